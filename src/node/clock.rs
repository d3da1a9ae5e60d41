//! The only reader of the clocks, and the only source of chance.

use std::time::{Instant, SystemTime};

use crate::domain::time::{Monotonic, Now, Wall};
use crate::engine::Entropy;

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Starts the monotonic count.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of the clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of the clock")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let monotonic = self.started.elapsed();
        Now {
            wall: Wall(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)),
            // Nothing is at zero, so that "long ago" always fits before "now".
            monotonic: Monotonic(u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX).saturating_add(1)),
        }
    }
}

/// Random bytes of the system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes);
    bytes
}

/// The system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        #[expect(clippy::expect_used, reason = "a machine without randomness cannot keep any promise of this program")]
        getrandom::fill(buffer).expect("the system gives random bytes");
    }
}

//! What a simulated world draws beside plain numbers.

use trust_runtime::engine::Entropy;

use crate::chance::Chance;

impl Chance {
    /// Whether something that happens so often in a thousand happens now.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }
}

impl Entropy for Chance {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            chunk.iter_mut().zip(random).for_each(|(byte, it)| *byte = it);
        }
    }
}

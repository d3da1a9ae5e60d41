//! The only place of the suite that reads a clock or sleeps: waits with a deadline and with the last thing that was seen.

// waits: for real processes, which tell nobody when they are done; every wait ends with its condition or a deadline.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Counts from the moment it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "what is measured here is real processes in real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Looks until the condition holds, and gives what it found and after how long. An `Err` says what was seen instead; after
/// the deadline the last one ends the test.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, deadline: Duration, look: impl FnMut() -> Result<T, String>) -> (T, Duration) {
    match try_until(deadline, look) {
        Ok(found) => found,
        Err(last) => panic!("waited {deadline:?} until {what}; last seen: {last}"),
    }
}

/// The same for whoever wants to say more about a failure.
pub(crate) fn try_until<T>(
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<(T, Duration), String> {
    let watch = Stopwatch::start();
    loop {
        match look() {
            Ok(found) => return Ok((found, watch.elapsed())),
            Err(last) if deadline <= watch.elapsed() => return Err(last),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Looks again and again for as long as `span`; the condition must hold every time.
#[track_caller]
pub(crate) fn holds_for(what: &str, span: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let watch = Stopwatch::start();
    while watch.elapsed() < span {
        if let Err(seen) = look() {
            panic!("{what} for {span:?}, but after {:?}: {seen}", watch.elapsed());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Lets real time pass where the moment itself is the input: a crash after so many milliseconds, a measured span.
pub(crate) fn let_pass(span: Duration) {
    std::thread::sleep(span);
}

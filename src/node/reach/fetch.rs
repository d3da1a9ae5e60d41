//! Fetches a text that is too long for one answer, in pieces as large as the link carries.
//!
//! A piece is one answer, and an answer has its time: where one does not come, the next one is smaller. So a slow link is told
//! from an owner that is silent, and what takes long is bounded by the time for the whole.

use crate::domain::time::{Millis, Monotonic};
use crate::wire::mesh::{Assembly, PIECE_BYTES_MAX, Refusal, RunPiece, Whole};

/// The first piece: 28 KiB a second carry it in time.
pub(super) const FIRST_BYTES: usize = 48 * 1024;

/// The smallest one. Where it does not come either, nothing does.
const LEAST_BYTES: usize = 3 * 1024;

/// How much smaller the next one is after one that did not come.
const STEP: usize = 4;

/// How long it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// One answer.
    pub(super) answer: Millis,
    /// All of them.
    pub(super) until: Monotonic,
}

impl Bounds {
    /// What the next answer may take. None where the time is over.
    pub(super) fn next(&self, now: Monotonic) -> Option<Millis> {
        let left = self.until.since(now);
        (Millis(0) < left).then(|| left.min(self.answer))
    }
}

/// Why a piece did not come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost<E> {
    /// In its time nothing was heard.
    Silent,
    /// The owner said something else, or could not be asked.
    Other(E),
}

/// Why a text did not come whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfetched<E> {
    /// This is no piece of it.
    Refused(Refusal),
    /// Not even the smallest piece came in its time.
    Silent,
    /// The time is over, and so many bytes have come.
    Slow(u64),
    /// The owner said something else, or could not be asked.
    Other(E),
}

/// How large the next piece is.
struct Pace {
    most: usize,
    /// What an answer may take.
    answer: Millis,
}

impl Pace {
    /// One came: where it took less than a quarter of its time, one of twice the size comes in time.
    fn came(&mut self, took: Millis) {
        if took.0.saturating_mul(4) <= self.answer.0 {
            self.most = self.most.saturating_mul(2).min(PIECE_BYTES_MAX);
        }
    }

    /// One did not come. False where none can be smaller.
    fn missed(&mut self) -> bool {
        let is_least = self.most <= LEAST_BYTES;
        self.most = self.most.div_euclid(STEP).max(LEAST_BYTES);
        !is_least
    }
}

/// Asks for piece after piece: from which byte on, how many at most, and in which time.
pub(super) async fn fetch<E, F: Future<Output = Result<RunPiece, Lost<E>>>>(
    whole: Whole,
    bounds: Bounds,
    now: impl Fn() -> Monotonic,
    ask: impl Fn(u64, usize, Millis) -> F,
) -> Result<String, Unfetched<E>> {
    let mut assembly = Assembly::new(whole);
    let mut pace = Pace { most: FIRST_BYTES, answer: bounds.answer };
    while let Some(from) = assembly.wanted() {
        let asked = now();
        let Some(within) = bounds.next(asked) else { return Err(Unfetched::Slow(assembly.has())) };
        match ask(from, pace.most, within).await {
            Ok(piece) => {
                assembly.take(&piece).map_err(Unfetched::Refused)?;
                pace.came(now().since(asked));
            }
            // The time for all of them was shorter than that of an answer.
            Err(Lost::Silent) if bounds.next(now()).is_none() => {}
            Err(Lost::Silent) if within == bounds.answer && pace.missed() => {}
            Err(Lost::Silent) => return Err(Unfetched::Silent),
            Err(Lost::Other(other)) => return Err(Unfetched::Other(other)),
        }
    }
    assembly.text().map_err(Unfetched::Refused)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::wire::mesh::BROUGHT_BYTES_MAX;

    const ANSWER: Millis = Millis::from_secs(3);
    const WHOLE: Millis = Millis::from_secs(60);

    /// A link that carries so many bytes in a second, one answer after the other, also those that nobody waits for any more.
    /// Its time goes forward with whoever waits, and nobody else does.
    struct Link {
        text: String,
        bytes_per_second: u64,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        now: Monotonic,
        free_at: Monotonic,
        asked: Vec<usize>,
    }

    impl Link {
        fn new(bytes: usize, bytes_per_second: u64) -> Self {
            Self { text: "x".repeat(bytes), bytes_per_second, state: Mutex::default() }
        }

        fn now(&self) -> Monotonic {
            self.state.lock().expect("whole").now
        }

        fn answer(&self, from: u64, most: usize, within: Millis) -> Result<RunPiece, Lost<()>> {
            let mut state = self.state.lock().expect("whole");
            state.asked.push(most);
            let piece = RunPiece::of(&self.text, from, most).expect("there is more");
            // Base64 twice.
            let on_the_way = (piece.bytes.len() as u64).saturating_mul(16_000).div_euclid(9);
            let takes = Millis(on_the_way.div_euclid(self.bytes_per_second));
            state.free_at = state.free_at.max(state.now).plus(takes);
            let comes = state.free_at;
            if within < comes.since(state.now) {
                state.now = state.now.plus(within);
                return Err(Lost::Silent);
            }
            state.now = comes;
            Ok(piece)
        }

        /// What came, and at what time.
        fn fetch(&self) -> (Result<String, Unfetched<()>>, Millis) {
            let bounds = Bounds { answer: ANSWER, until: self.now().plus(WHOLE) };
            let ask = |from, most, within| std::future::ready(self.answer(from, most, within));
            let fetched = fetch(Whole::of(&self.text), bounds, || self.now(), ask).now_or_never();
            (fetched.expect("nobody waits"), self.now().since(Monotonic::default()))
        }

        fn asked(&self) -> Vec<usize> {
            self.state.lock().expect("whole").asked.clone()
        }
    }

    #[test]
    fn a_slow_link_brings_a_long_text_in_pieces_that_it_carries_in_time() {
        for (bytes, bytes_per_second, within) in [
            (BROUGHT_BYTES_MAX, 10 << 20, 1),
            // 340 KiB in three seconds, and less.
            (BROUGHT_BYTES_MAX, 113 << 10, 40),
            (BROUGHT_BYTES_MAX, 64 << 10, 60),
            (300 * 1024, 30 << 10, 20),
            (300 * 1024, 14 << 10, 50),
        ] {
            let link = Link::new(bytes, bytes_per_second);
            let (fetched, took) = link.fetch();
            assert!(fetched.as_ref() == Ok(&link.text), "{bytes} bytes at {bytes_per_second}: {took:?}");
            assert!(took <= Millis::from_secs(within), "{bytes} bytes at {bytes_per_second}: {took:?}");
        }
    }

    #[test]
    fn a_text_that_does_not_come_whole_in_its_time_is_given_up_then() {
        let link = Link::new(BROUGHT_BYTES_MAX, 32 << 10);
        let (fetched, took) = link.fetch();
        let Err(Unfetched::Slow(has)) = fetched else { panic!("too slow") };
        assert_eq!(took, WHOLE);
        assert!((500_000..BROUGHT_BYTES_MAX as u64).contains(&has), "{has}");
    }

    #[test]
    fn an_owner_from_whom_not_even_the_smallest_piece_comes_is_silent() {
        let link = Link::new(300 * 1024, 1);
        let (fetched, took) = link.fetch();
        assert_eq!(fetched, Err(Unfetched::Silent));
        assert_eq!(link.asked(), [48 * 1024, 12 * 1024, 3 * 1024]);
        assert_eq!(took, Millis::from_secs(9));
    }

    #[test]
    fn pieces_grow_while_the_link_is_fast_and_never_beyond_their_bound() {
        let link = Link::new(BROUGHT_BYTES_MAX, 10 << 20);
        assert!(link.fetch().0.is_ok());
        let asked = link.asked();
        assert_eq!(asked[..4], [48 * 1024, 96 * 1024, 192 * 1024, 192 * 1024]);
        assert!(asked.iter().all(|most| *most <= PIECE_BYTES_MAX));
    }
}

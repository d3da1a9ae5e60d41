//! Results and errors that are too long for one answer, read at another node than their owner.

#![expect(clippy::arithmetic_side_effects, reason = "the lengths of test texts are small")]

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::liar::Lied;
use super::support::ended;
use super::*;
use crate::node::reach::fetch::FIRST_BYTES;
use crate::wire::mesh::{Announced, BROUGHT_AT_ONCE_MAX, BROUGHT_BYTES_MAX, PIECE_BYTES_MAX, RunPiece, Whole};
use crate::workload::LINE_BYTES_MAX;

/// A JSON text of so many bytes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

#[test]
fn the_longest_line_of_a_program_brings_no_more_than_is_fetched() {
    const { assert!(3 * LINE_BYTES_MAX + 1_024 <= BROUGHT_BYTES_MAX) }
}

#[tokio::test]
async fn a_long_result_or_error_is_the_same_at_every_node() {
    let (_hub, members) = site(&["s/a", "s/b"]).await;
    let [a, b] = members.as_slice() else { panic!("two") };
    let lengths = [BROUGHT_AT_ONCE_MAX, BROUGHT_AT_ONCE_MAX + 1, 900 * 1024, BROUGHT_BYTES_MAX];
    for (number, length) in (1..).zip(lengths) {
        for (number, is_error) in [(number, false), (number + 100, true)] {
            let known = a.begin(number).await;
            // Characters of three bytes, so that pieces end within them, and quotes.
            let marks = "\u{fffd}\\\"".repeat(length / 5 - 2);
            let brought = format!("\"{marks}{}\"", "x".repeat(length - 2 - marks.len()));
            assert_eq!(brought.len(), length);
            a.kept.runs.commit(vec![ended(known.run, 1, &brought, is_error)]).await.expect("ended");
            let own = a.kept.runs.run(known.run).await.expect("reads").expect("known");
            let read = b.all.run(engineer(), known.run).await.expect("read");
            assert!(read == own, "{length}, {is_error}: another record than the owner's");
        }
    }
    let pieces = a.run_reads().iter().filter(|draft| draft.detail.starts_with("result of run_")).count();
    let wanted = |bytes: usize| lengths[1..].iter().map(|length| length.div_ceil(bytes)).sum::<usize>();
    let is_each_on_record = (wanted(PIECE_BYTES_MAX)..=wanted(FIRST_BYTES)).contains(&pieces);
    assert!(is_each_on_record, "each piece is a read on record: {pieces}");
    assert_eq!(b.refused("too_large") + b.refused("not_its_own_word"), 0);
}

/// What one liar says of one long result.
struct Lies {
    lied: Lied,
    whole: Whole,
    text: String,
}

impl Lies {
    async fn new(patience: Patience) -> Self {
        let text = text(2 * FIRST_BYTES);
        Self { lied: Lied::new(patience).await, whole: Whole::of(&text), text }
    }

    fn announced(&self, whole: Whole) -> RunAnswer {
        let run = Run { pointer: self.lied.known.clone(), result: None, error: None };
        RunAnswer::Announced(Box::new(Announced { run, result: Some(whole), error: None }))
    }

    fn piece(&self, from: usize) -> RunPiece {
        RunPiece::of(&self.text, from as u64, FIRST_BYTES).expect("there is more")
    }
}

#[tokio::test]
async fn a_long_result_is_the_text_that_was_announced_or_nothing() {
    let lies = Lies::new(Patience { answer: Duration::from_millis(300), ..patience() }).await;
    let Lied { b, liar, known, .. } = &lies.lied;
    let (first, second, whole) = (lies.piece(0), lies.piece(FIRST_BYTES), lies.whole);
    let announced = || lies.announced(whole);
    liar.answer(vec![announced(), RunAnswer::Piece(first.clone()), RunAnswer::Piece(second.clone())]);
    let read = in_time(b.all.run(engineer(), known.run)).await.expect("the rig answers");
    assert!(read.result.as_ref() == Some(&lies.text));

    let bent = |bend: fn(&mut RunPiece)| {
        let mut piece = second.clone();
        bend(&mut piece);
        vec![announced(), RunAnswer::Piece(first.clone()), RunAnswer::Piece(piece)]
    };
    let huge = Whole { bytes: BROUGHT_BYTES_MAX as u64 + 1, ..whole };
    for (what, answers, reason) in [
        ("the first piece twice", bent(|piece| piece.from = 0), "not_its_own_word"),
        ("a gap", bent(|piece| piece.from += 1), "not_its_own_word"),
        ("nothing", bent(|piece| piece.bytes.clear()), "not_its_own_word"),
        ("a piece of another text", bent(|piece| piece.whole = Whole::of("else")), "not_its_own_word"),
        ("a text that grows", bent(|piece| piece.whole.bytes += 1), "not_its_own_word"),
        ("more than there is", bent(|piece| piece.bytes.push(b'x')), "not_its_own_word"),
        ("another text to the end", bent(|piece| piece.bytes[0] = b'y'), "not_its_own_word"),
        ("the record again", vec![announced(), announced()], "not_its_own_word"),
        ("more than may be", vec![lies.announced(huge)], "too_large"),
    ] {
        let before = b.refused(reason);
        liar.answer(answers);
        let read = in_time(b.all.run(engineer(), known.run)).await;
        assert_eq!(read, Err(Absent::OwnerUnreachable(Box::new(known.clone()))), "{what}");
        assert_eq!(b.refused(reason), before + 1, "{what}");
    }
    // It was forgotten in the middle.
    liar.answer(vec![announced(), RunAnswer::Piece(first), RunAnswer::Unknown]);
    assert_eq!(in_time(b.all.run(engineer(), known.run)).await, Err(Absent::Unknown));
}

/// Hands out its result byte by byte, for as long as this is true.
fn is_slow(lies: &Lies) -> Arc<AtomicBool> {
    let (text, announced) = (lies.text.clone(), lies.announced(lies.whole));
    let (keys, asked) = (lies.lied.liar.keys(), Arc::clone(&lies.lied.liar.asked));
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    lies.lied.liar.tell(move |_, question| {
        let answer = match asked.lock().expect("whole")["from"].as_u64() {
            None => announced.clone(),
            Some(from) => {
                let most = if slow.load(Ordering::Relaxed) { 1 } else { FIRST_BYTES };
                RunAnswer::Piece(RunPiece::of(&text, from, most).expect("there is more"))
            }
        };
        Some(message::seal_run_answer(&keys, question, &answer))
    });
    is_slow
}

/// It keeps some places, and not all that there are for it, and none of those for others.
#[tokio::test]
async fn one_slow_owner_does_not_take_the_places_of_the_others() {
    const PLACES: usize = 4;
    let lies = Lies::new(Patience { answer: Duration::from_millis(500), ..patience() }).await;
    let is_slow = is_slow(&lies);
    let Lied { hub, b, liar, known } = &lies.lied;
    let other = Member::join(hub, "s/o", Kept::new()).await;
    b.sees(&other.id).await;
    let long = other.begin(2).await.run;
    let result = text(2 * BROUGHT_AT_ONCE_MAX);
    other.end(long, 1, &result).await;
    b.knows(long, true).await;
    let read = || b.all.run(engineer(), known.run);
    // More than there are places in all.
    let mut readers: FuturesUnordered<_> = (0..20).map(|_| read()).collect();
    for _ in PLACES..20 {
        let refused = in_time(readers.next()).await.expect("one of them");
        let Err(Absent::Failed(failure)) = &refused else { panic!("{refused:?}") };
        assert_eq!(failure.code, Code::ServerBusy);
        assert!(failure.reason.contains(&liar.id.to_string()), "{failure:?}");
    }
    assert_eq!(readers.len(), PLACES);
    let (read_of_other, next) = futures_util::future::join(
        in_time(b.all.run(engineer(), long)),
        tokio::time::timeout(Duration::from_millis(1), readers.next()),
    )
    .await;
    assert!(next.is_err(), "they are still at it");
    assert!(read_of_other.expect("there is a place").result.as_ref() == Some(&result));
    drop(readers);
    is_slow.store(false, Ordering::Relaxed);
    assert!(in_time(read()).await.expect("there is a place again").result.as_ref() == Some(&lies.text));
}

/// The owner is there, and says so again and again.
#[tokio::test]
async fn what_comes_too_slowly_is_called_so_and_not_unreachable() {
    let lies = Lies::new(Patience { whole: Duration::from_millis(300), ..patience() }).await;
    is_slow(&lies);
    let Lied { b, liar, known, .. } = &lies.lied;
    let read = in_time(b.all.run(engineer(), known.run)).await;
    let Err(Absent::OwnerTooSlow(pointer, reason)) = read else { panic!("{read:?}") };
    assert_eq!(*pointer, *known);
    assert!(reason.contains("s/l is too slow for the result: ") && reason.contains("bytes came in 0.3 s"), "{reason}");

    // Page after page has nothing of the kind that is wanted, but for the first.
    for first in [vec![log(known.run, 0, "one")], Vec::new()] {
        let (keys, asked) = (liar.keys(), Arc::clone(&liar.asked));
        let (of, events) = (Box::new(known.clone()), first.clone());
        liar.tell(move |_, question| {
            let from = asked.lock().expect("whole")["events"]["from"].as_u64()?;
            let events = if from == 0 { events.clone() } else { Vec::new() };
            let page = RunEvents { events, next: from + 1, count: u64::MAX, is_ended: false };
            Some(message::seal_run_answer(&keys, question, &RunAnswer::Events(of.clone(), page)))
        });
        let logs = EventsAsked { kinds: Some([Kind::Log].into()), ..page(known.run, None, 9) };
        match in_time(b.all.events(engineer(), logs)).await {
            Ok(read) => assert_eq!((read.len(), read), (1, first), "what has come is a page"),
            Err(Absent::OwnerTooSlow(_, reason)) => assert!(first.is_empty(), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

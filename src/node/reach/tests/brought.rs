//! Results and errors that are too long for one answer, read at another node than their owner.

#![expect(clippy::arithmetic_side_effects, reason = "the lengths of test texts are small")]

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::support::ended;
use super::*;
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
    let wanted: usize = lengths[1..].iter().map(|length| length.div_ceil(PIECE_BYTES_MAX)).sum();
    assert_eq!(pieces, wanted, "each piece is a read on record");
    assert_eq!(b.refused("too_large") + b.refused("not_its_own_word"), 0);
}

/// What one liar says of one run, question by question.
struct Lies {
    b: Member,
    liar: Liar,
    known: Pointer,
    whole: Whole,
    text: String,
}

impl Lies {
    async fn new(patience: Patience) -> Self {
        let hub = Hub::new().expect("a hub");
        let b = Member::patient(&hub, "s/b", Kept::new(), patience).await;
        let liar = Liar::join(&hub, "s/l").await;
        b.sees_liar(&liar, None).await;
        let known = pointer(&liar.id, 1);
        let changes = vec![PointerChange::Put(known.clone())];
        let replica = Replica { owner: liar.id.clone(), is_restart: false, changes, upto: Upto::default() };
        b.kept.runs.replicate(replica).await.expect("kept");
        let text = text(2 * PIECE_BYTES_MAX);
        Self { whole: Whole::of(&text), b, liar, known, text }
    }

    fn announced(&self, whole: Whole) -> RunAnswer {
        let run = Run { pointer: self.known.clone(), result: None, error: None };
        RunAnswer::Announced(Box::new(Announced { run, result: Some(whole), error: None }))
    }

    fn piece(&self, number: u64) -> RunPiece {
        RunPiece::of(&self.text, number * PIECE_BYTES_MAX as u64).expect("there is more")
    }

    /// Says these one after the other, and then nothing.
    fn tell(&self, answers: Vec<RunAnswer>) {
        let (keys, mut answers) = (self.liar.keys(), answers.into_iter().peekable());
        self.liar.tell(move |_, question| {
            let answer = answers.next()?;
            Some(message::seal_run_answer(&keys, question, &answer))
        });
    }
}

#[tokio::test]
async fn a_long_result_is_the_text_that_was_announced_or_nothing() {
    let lies = Lies::new(Patience { answer: Duration::from_millis(300), ..patience() }).await;
    let (first, second, whole) = (lies.piece(0), lies.piece(1), lies.whole);
    let announced = || lies.announced(whole);
    lies.tell(vec![announced(), RunAnswer::Piece(first.clone()), RunAnswer::Piece(second.clone())]);
    let read = in_time(lies.b.all.run(engineer(), lies.known.run)).await.expect("the rig answers");
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
        let before = lies.b.refused(reason);
        lies.tell(answers);
        let read = in_time(lies.b.all.run(engineer(), lies.known.run)).await;
        assert_eq!(read, Err(Absent::OwnerUnreachable(Box::new(lies.known.clone()))), "{what}");
        assert_eq!(lies.b.refused(reason), before + 1, "{what}");
    }
    // It was forgotten in the middle.
    lies.tell(vec![announced(), RunAnswer::Piece(first), RunAnswer::Unknown]);
    assert_eq!(in_time(lies.b.all.run(engineer(), lies.known.run)).await, Err(Absent::Unknown));
}

/// An owner that hands out its result byte by byte keeps some places, and not all of what this node has.
#[tokio::test]
async fn few_long_records_are_put_together_at_once() {
    const PLACES: usize = 16;
    let lies = Lies::new(Patience { answer: Duration::from_millis(500), ..patience() }).await;
    let (text, announced) = (lies.text.clone(), lies.announced(lies.whole));
    let (keys, asked) = (lies.liar.keys(), Arc::clone(&lies.liar.asked));
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    lies.liar.tell(move |_, question| {
        let answer = match asked.lock().expect("whole")["from"].as_u64() {
            None => announced.clone(),
            Some(from) => {
                let mut piece = RunPiece::of(&text, from).expect("there is more");
                piece.bytes.truncate(if slow.load(Ordering::Relaxed) { 1 } else { usize::MAX });
                RunAnswer::Piece(piece)
            }
        };
        Some(message::seal_run_answer(&keys, question, &answer))
    });
    let read = || lies.b.all.run(engineer(), lies.known.run);
    let mut readers: FuturesUnordered<_> = (0..=PLACES).map(|_| read()).collect();
    let first = in_time(readers.next()).await.expect("one of them");
    assert!(matches!(&first, Err(Absent::Failed(failure)) if failure.code == Code::ServerBusy), "{first:?}");
    drop(readers);
    is_slow.store(false, Ordering::Relaxed);
    assert!(in_time(read()).await.expect("there is a place again").result.as_ref() == Some(&lies.text));
}

//! One target's part of a dispatch, as a small machine: ask, ask again, ask for the outcome, give up honestly.
//!
//! Zero replies never means "not executed" (DESIGN). Asking again is safe, because the target carries out a request once
//! whatever repeats it; so a query that the mesh ended without an answer is repeated within the budget, and a write that
//! stayed unanswered is followed by a question for its outcome.

use crate::domain::code::Code;
use crate::domain::envelope::{Receipt, Ruling};
use crate::domain::policy::Denial;
use crate::domain::time::{Millis, Monotonic};

/// How much longer than its budget an unanswered write may take to learn its outcome (DESIGN).
pub const OUTCOME_BUDGET: Millis = Millis(500);

/// The first pause before a repetition; it doubles. A route that is being rebuilt takes 10 to 110 ms.
const FIRST_PAUSE: Millis = Millis(20);

/// What is asked of the target. Both carry the same sealed envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Do it.
    Act,
    /// What became of it?
    Outcome,
}

/// What an exchange waits for at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// A question is under way: the target may have heard it.
    ForAnswer,
    /// The pause before the next question.
    ToAsk,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait `after`, then ask and wait at most `within`.
    Ask {
        /// What.
        question: Question,
        /// Pause before it.
        after: Millis,
        /// How long to wait for the answer.
        within: Millis,
    },
    /// The exchange is over.
    Done(Box<Finding>),
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A verified receipt for this envelope.
    Answered(Box<Receipt>),
    /// An answer that does not verify.
    Forged,
    /// The mesh ended the query without an answer.
    NoReply,
    /// The target's boundary refused, with this code's text.
    Refused(String),
    /// Nothing came in time.
    Silence,
    /// Nothing could be sent.
    Unsent,
}

/// What is known in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The target answered.
    Receipt(Box<Receipt>),
    /// It did not, or not credibly. For a write with the code `timeout` the outcome is unknown.
    Denied(Denial),
}

/// The machine for one target.
#[derive(Debug, Clone)]
pub struct Exchange {
    is_read: bool,
    ends: Monotonic,
    pause: Millis,
    asked_outcome: bool,
    was_sent: bool,
    last: Code,
}

impl Exchange {
    /// Begins: the first step always asks.
    pub fn begin(is_read: bool, now: Monotonic, budget: Millis) -> (Self, Step) {
        let ends = now.plus(budget);
        let exchange =
            Self { is_read, ends, pause: FIRST_PAUSE, asked_outcome: false, was_sent: false, last: Code::Timeout };
        (exchange, Step::Ask { question: Question::Act, after: Millis(0), within: budget })
    }

    /// Takes in what came of the last step.
    pub fn next(&mut self, now: Monotonic, event: Event) -> Step {
        if !matches!(event, Event::Unsent) {
            self.was_sent = true;
        }
        match event {
            Event::Answered(receipt) => Step::Done(Box::new(Finding::Receipt(receipt))),
            Event::Refused(text) => self.refused(&text),
            Event::Silence => self.give_up(),
            Event::Forged => self.again(now, Code::UntrustedIdentity),
            Event::NoReply => self.again(now, Code::Timeout),
            Event::Unsent => self.again(now, Code::TransportFailure),
        }
    }

    fn again(&mut self, now: Monotonic, code: Code) -> Step {
        self.last = code;
        let left = self.ends.since(now);
        let after = self.pause;
        if self.asked_outcome || left <= after {
            return self.give_up();
        }
        self.pause = Millis(after.0.saturating_mul(2));
        Step::Ask { question: Question::Act, after, within: Millis(left.0.saturating_sub(after.0)) }
    }

    fn give_up(&mut self) -> Step {
        if !self.is_read && !self.asked_outcome && self.was_sent {
            self.asked_outcome = true;
            return Step::Ask { question: Question::Outcome, after: Millis(0), within: OUTCOME_BUDGET };
        }
        let code = if self.is_read || !self.was_sent { self.last } else { Code::Timeout };
        let reason = if code == Code::UntrustedIdentity {
            "an answer came whose signature does not verify"
        } else if code == Code::TransportFailure {
            "the mesh could not carry the request"
        } else if self.is_read {
            "no answer within the budget"
        } else {
            "sent and not answered: outcome unknown"
        };
        Step::Done(Box::new(Finding::Denied(Denial::at_origin(code, "exchange", reason))))
    }

    /// This runtime stops: nothing more is asked, and what is known is said. `waits` tells whether a question is under way.
    pub fn cut(&self, waits: Waits) -> Finding {
        let denied = |code, reason| Finding::Denied(Denial::at_origin(code, "stop", reason));
        match (self.was_sent || waits == Waits::ForAnswer, self.is_read) {
            (false, _) => denied(Code::ServerBusy, "this runtime stopped before it was sent"),
            (true, true) => denied(Code::Timeout, "no answer before this runtime stopped"),
            (true, false) => {
                denied(Code::Timeout, "sent and not answered before this runtime stopped: outcome unknown")
            }
        }
    }

    /// Somebody refused without a signature. For a read that ends it, if the word is a code of ours and not the mesh's own.
    /// For a write it proves nothing: whoever answered first may not be the target, which may have carried it out.
    fn refused(&mut self, text: &str) -> Step {
        let is_proof = self.is_read;
        let Some(code) = text.parse::<Code>().ok().filter(|_| is_proof) else { return self.give_up() };
        let reason = format!("the target refused the message: {}", code.meaning());
        Step::Done(Box::new(Finding::Denied(Denial::at_target(code, "boundary", reason))))
    }
}

impl Finding {
    /// What the target ruled, if it did.
    pub fn ruling(&self) -> Option<&Ruling> {
        match self {
            Self::Receipt(receipt) => Some(&receipt.ruling),
            Self::Denied(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::default().plus(Millis(millis))
    }

    fn asks(step: &Step) -> Option<(Question, u64, u64)> {
        match step {
            Step::Ask { question, after, within } => Some((*question, after.0, within.0)),
            Step::Done(_) => None,
        }
    }

    fn code(step: Step) -> Code {
        match step {
            Step::Done(finding) => match *finding {
                Finding::Denied(denial) => denial.code,
                Finding::Receipt(receipt) => panic!("got {receipt:?}"),
            },
            Step::Ask { .. } => panic!("got {step:?}"),
        }
    }

    #[test]
    fn a_silent_write_is_followed_by_one_question_for_its_outcome() {
        let (mut exchange, first) = Exchange::begin(false, at(0), Millis(1_000));
        assert_eq!(asks(&first), Some((Question::Act, 0, 1_000)));
        let second = exchange.next(at(1_000), Event::Silence);
        assert_eq!(asks(&second), Some((Question::Outcome, 0, 500)));
        assert_eq!(code(exchange.next(at(1_500), Event::Silence)), Code::Timeout);
    }

    #[test]
    fn a_target_that_knows_nothing_of_a_write_does_not_mean_not_executed() {
        let (mut exchange, _) = Exchange::begin(false, at(0), Millis(100));
        exchange.next(at(100), Event::Silence);
        assert_eq!(code(exchange.next(at(101), Event::Refused("peer_not_available".into()))), Code::Timeout);
    }

    #[test]
    fn zero_replies_are_asked_again_with_growing_pauses_inside_the_budget() {
        let (mut exchange, _) = Exchange::begin(true, at(0), Millis(100));
        assert_eq!(asks(&exchange.next(at(0), Event::NoReply)), Some((Question::Act, 20, 80)));
        assert_eq!(asks(&exchange.next(at(20), Event::NoReply)), Some((Question::Act, 40, 40)));
        assert_eq!(code(exchange.next(at(60), Event::NoReply)), Code::Timeout);
    }

    #[test]
    fn what_was_never_sent_needs_no_question_and_says_so() {
        let (mut exchange, _) = Exchange::begin(false, at(0), Millis(10));
        assert_eq!(code(exchange.next(at(0), Event::Unsent)), Code::TransportFailure);
    }

    #[test]
    fn an_unsigned_refusal_proves_nothing_about_a_write() {
        let (mut exchange, _) = Exchange::begin(false, at(0), Millis(1_000));
        let asked = exchange.next(at(30), Event::Refused("permission_denied".into()));
        assert_eq!(asks(&asked), Some((Question::Outcome, 0, 500)));
        assert_eq!(code(exchange.next(at(31), Event::Refused("permission_denied".into()))), Code::Timeout);
    }

    #[test]
    fn a_word_of_the_mesh_itself_is_no_refusal_by_the_target() {
        let (mut exchange, _) = Exchange::begin(false, at(0), Millis(1_000));
        let asked = exchange.next(at(1_000), Event::Refused("Timeout".into()));
        assert_eq!(asks(&asked), Some((Question::Outcome, 0, 500)));
        assert_eq!(code(exchange.next(at(1_500), Event::Refused("Timeout".into()))), Code::Timeout);
        let (mut exchange, _) = Exchange::begin(true, at(0), Millis(1_000));
        assert_eq!(code(exchange.next(at(1_000), Event::Refused("Timeout".into()))), Code::Timeout);
    }

    #[test]
    fn a_refused_read_keeps_its_code_and_a_forged_answer_is_named() {
        let (mut exchange, _) = Exchange::begin(true, at(0), Millis(100));
        assert_eq!(code(exchange.next(at(1), Event::Refused("server_busy".into()))), Code::ServerBusy);
        let (mut exchange, _) = Exchange::begin(true, at(0), Millis(10));
        assert_eq!(code(exchange.next(at(1), Event::Forged)), Code::UntrustedIdentity);
    }

    #[test]
    fn what_is_cut_off_says_whether_it_may_have_been_heard() {
        let code = |finding| code(Step::Done(Box::new(finding)));
        for is_read in [false, true] {
            let (mut exchange, _) = Exchange::begin(is_read, at(0), Millis(1_000));
            assert_eq!(code(exchange.cut(Waits::ToAsk)), Code::ServerBusy);
            assert_eq!(code(exchange.cut(Waits::ForAnswer)), Code::Timeout);
            exchange.next(at(0), Event::Unsent);
            assert_eq!(code(exchange.cut(Waits::ToAsk)), Code::ServerBusy);
            exchange.next(at(20), Event::NoReply);
            assert_eq!(code(exchange.cut(Waits::ToAsk)), Code::Timeout, "the first may have been heard");
        }
    }
}

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
    /// A question was lost on its way back, so the target may have done what it asked.
    may_have_acted: bool,
    last: Code,
}

impl Exchange {
    /// Begins: the first step always asks.
    pub fn begin(is_read: bool, now: Monotonic, budget: Millis) -> (Self, Step) {
        let ends = now.plus(budget);
        let exchange = Self {
            is_read,
            ends,
            pause: FIRST_PAUSE,
            asked_outcome: false,
            was_sent: false,
            may_have_acted: false,
            last: Code::Timeout,
        };
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
            Event::Forged => {
                self.may_have_acted = true;
                self.again(now, Code::UntrustedIdentity)
            }
            Event::NoReply => {
                self.may_have_acted = true;
                self.again(now, Code::Timeout)
            }
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

    /// The target's boundary refused before anything was decided, so nothing happened there. That holds for this question
    /// alone: an earlier one may have been carried out. A word that is no code of ours is not the target's, but the mesh's own.
    fn refused(&mut self, text: &str) -> Step {
        let is_proof = !self.asked_outcome && (self.is_read || !self.may_have_acted);
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
    fn a_refusal_proves_nothing_about_an_earlier_question_that_was_lost() {
        for lost in [Event::NoReply, Event::Forged] {
            let (mut exchange, _) = Exchange::begin(false, at(0), Millis(1_000));
            exchange.next(at(1), lost);
            let asked = exchange.next(at(30), Event::Refused("server_busy".into()));
            assert_eq!(asks(&asked), Some((Question::Outcome, 0, 500)));
            assert_eq!(code(exchange.next(at(31), Event::Refused("server_busy".into()))), Code::Timeout);
        }
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
    fn a_refusal_at_the_boundary_keeps_its_code_and_a_forged_answer_is_named() {
        let (mut exchange, _) = Exchange::begin(false, at(0), Millis(100));
        assert_eq!(code(exchange.next(at(1), Event::Refused("server_busy".into()))), Code::ServerBusy);
        let (mut exchange, _) = Exchange::begin(true, at(0), Millis(10));
        assert_eq!(code(exchange.next(at(1), Event::Forged)), Code::UntrustedIdentity);
    }
}

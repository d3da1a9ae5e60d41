//! Follows a run at its owner: page by page from a cursor, which is all that a cut link leaves to be remembered.

use std::sync::Arc;
use std::time::Duration;

use super::asking::{Asking, Unanswered, denied};
use super::known::Known;
use super::{Patience, millis};
use crate::domain::preflight::Asker;
use crate::domain::run::Pointer;
use crate::domain::time::{Millis, Monotonic};
use crate::handle::Pending;
use crate::handle::runs::{Absent, EVENTS_MAX, Follower, Next};
use crate::wire::mesh::{RunAnswer, RunAsked, RunEvents};

/// The pause after the first question without an answer. It doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, so that a follower goes on soon after its owner is back.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One reader of a run of another runtime.
#[derive(Debug)]
pub(super) struct RemoteFollower {
    pub(super) asking: Arc<Asking>,
    pub(super) known: Arc<Known>,
    pub(super) asker: Asker,
    pub(super) pointer: Pointer,
    pub(super) patience: Patience,
    /// The number of the event that comes next.
    pub(super) next: u64,
    /// Whether all events were given: of a run that is forgotten by its own end there is nobody to ask.
    pub(super) is_over: bool,
    /// The page with which it began.
    pub(super) first: Option<RunEvents>,
    /// Whether the owner may say that the run is held up: until it turns out not to know of that.
    pub(super) takes_held: bool,
    /// When the owner was last heard.
    pub(super) heard: Monotonic,
}

impl RemoteFollower {
    async fn next_of_owner(&mut self) -> Result<Next, Absent> {
        while !self.is_over {
            let page = match self.first.take() {
                Some(page) => page,
                None => match self.page().await? {
                    Some(page) => page,
                    None => return Ok(Next::Gone),
                },
            };
            self.next = page.next;
            self.is_over = page.is_ended && page.is_last();
            // Nothing is waited for between here and the answer: whoever drops it has it, or has not lost it.
            if !page.events.is_empty() {
                return Ok(Next::Events(page.events.into()));
            }
        }
        Ok(Next::End)
    }

    fn asked(&self, wait: Millis) -> RunAsked {
        let (from, limit, takes_held) = (self.next, EVENTS_MAX, self.takes_held);
        RunAsked::Events { from, kinds: None, limit, wait, takes_held }
    }

    fn is_overdue(&self) -> bool {
        millis(self.patience.gone) <= self.asking.clock.now().monotonic.since(self.heard)
    }

    /// The next page with something on it, or the last one. None if the run is forgotten.
    async fn page(&mut self) -> Result<Option<RunEvents>, Absent> {
        // Whoever follows may ask anew before an owner that is silent has been waited for: then it is asked for a word at once.
        let is_overdue = self.is_overdue();
        let (mut pause, mut wait) = (PAUSE, if is_overdue { Millis(0) } else { millis(self.patience.event) });
        loop {
            let asked_at = self.asking.clock.now().monotonic;
            let asked = self.asked(wait);
            let question = (self.pointer.run, &asked);
            let answer = self.asking.ask(&self.asker, &self.pointer.owner, question, self.patience.answer).await;
            match answer {
                // Another run by the same id (contract, RR-25).
                Ok(RunAnswer::Events(pointer, _) | RunAnswer::HeldUp(pointer))
                    if !pointer.is_of_one_run_with(&self.pointer) =>
                {
                    self.known.forget(&self.pointer).await;
                    return Ok(None);
                }
                Ok(RunAnswer::Events(_, page)) => {
                    self.heard = self.asking.clock.now().monotonic;
                    if !page.events.is_empty() || page.is_ended {
                        return Ok(Some(page));
                    }
                    let has_waited = Millis(0) < wait && millis(PAUSE) <= self.heard.since(asked_at);
                    wait = millis(self.patience.event);
                    if has_waited {
                        pause = PAUSE;
                        continue;
                    }
                    // There was no place to wait at the owner, or it let nobody wait: look again after a pause.
                }
                Ok(RunAnswer::HeldUp(_)) => {
                    self.heard = self.asking.clock.now().monotonic;
                    return Err(Absent::HeldUp);
                }
                Ok(RunAnswer::Unknown) => {
                    self.known.forget(&self.pointer).await;
                    return Ok(None);
                }
                Ok(RunAnswer::Denied(denial)) | Err(Unanswered::Denied(denial)) => return Err(denied(&denial)),
                // Asked at once in the words of before.
                Err(Unanswered::Misunderstood) if self.takes_held => {
                    self.takes_held = false;
                    continue;
                }
                // Nothing else is accepted as an answer to this.
                Ok(RunAnswer::Announced(_) | RunAnswer::Piece(_) | RunAnswer::Pointer(_) | RunAnswer::Record(_))
                | Err(Unanswered::Misunderstood | Unanswered::Silent) => {
                    if self.is_overdue() {
                        return Err(Absent::OwnerUnreachable(Box::new(self.pointer.clone())));
                    }
                }
                // Busy is nobody's signed word: only a page shows that the owner lives.
                Err(Unanswered::Busy) if wait == Millis(0) => {
                    if self.is_overdue() {
                        return Err(Absent::OwnerUnreachable(Box::new(self.pointer.clone())));
                    }
                }
                Err(Unanswered::Busy) => wait = Millis(0),
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }
}

impl Follower for RemoteFollower {
    fn next(&mut self) -> Pending<'_, Result<Next, Absent>> {
        Box::pin(self.next_of_owner())
    }
}

//! Where other runtimes ask for own runs: on behalf of an actor, who needs what a read of the status needs, or for pointers.
//!
//! Whoever waits for an event waits here and not in a place of the queries, of which there are few.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{ReachParts, Shelf, is_trusted};
use crate::domain::code::Code;
use crate::domain::id::RuntimeId;
use crate::domain::policy::Denial;
use crate::domain::run::{Event, Kind, Pointer, Run, RunId};
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::act_draft;
use crate::engine::input::Received;
use crate::engine::judge;
use crate::engine::view::View;
use crate::mesh::{Answer, Responder};
use crate::node::clock::SystemEntropy;
use crate::node::ingress::Ingress;
use crate::store;
use crate::store::runs::feed::RunReader;
use crate::store::runs::{EventPage, EventsAsked, PointerChange, Upto, hub};
use crate::wire::mesh::{self as message, POINTERS_MAX, PointerNews, PointersPage, RUN_EVENTS_BYTES_MAX};
use crate::wire::mesh::{RunAnswer, RunAsked, RunEvents, RunPiece, RunQuestion};

/// The longest that anybody waits for an event. Whoever has none by then asks again.
const WAIT_MAX: Millis = Millis::from_secs(10);

/// Questions that wait for an event, of all origins: each costs a task and a place in the run's feed.
const WAITERS_MAX: usize = 2_048;

/// Those of one origin, so that none uses up the room of the others.
const WAITERS_OF_ONE_MAX: usize = 256;

/// How long a record stands for the further pages of who follows a run.
const FOLLOWED: Millis = Millis::from_secs(60);

/// Followers that are remembered for that. Beyond it each page is on record.
const FOLLOWERS_MAX: usize = 4_096;

/// Longest question whose bytes are kept while it waits: several times what one with a chain of certificates takes. With
/// [`WAITERS_MAX`] of them it is 32 MiB.
pub(super) const KEPT_BYTES_MAX: usize = 16 * 1024;

/// A question that waits, with the bytes that it came in: under another trust its origin is proved anew.
#[derive(Debug)]
struct Waiting {
    question: RunQuestion,
    /// Absent where they are too many. Then whoever was proved under another trust counts no more.
    sealed: Option<Vec<u8>>,
}

impl Waiting {
    fn new(question: RunQuestion, sealed: &[u8]) -> Self {
        Self { question, sealed: (sealed.len() <= KEPT_BYTES_MAX).then(|| sealed.to_vec()) }
    }

    /// The read in it, as the trust of now has it. What does not count any more stays as it was, and is denied.
    fn read_by(&self, view: &View, now: Wall) -> Cow<'_, Received> {
        let read = &self.question.read;
        if view.settings.vouches_still(&read.signer, now) {
            return Cow::Borrowed(read);
        }
        let opened = |sealed| message::open_run_question(view, read.signer.runtime(), sealed, now).ok();
        self.sealed.as_deref().and_then(opened).map_or(Cow::Borrowed(read), |question| Cow::Owned(question.read))
    }
}

/// Answers for own runs.
#[derive(Debug)]
pub(in crate::node) struct Desk {
    parts: ReachParts,
    shelf: Shelf,
    waiters: Arc<Waiters>,
    followers: Mutex<Followers>,
}

/// Since when there is a record of whoever follows a run from elsewhere.
type Followers = BTreeMap<(RuntimeId, String, RunId), Monotonic>;

/// Who waits, by origin.
#[derive(Debug, Default)]
struct Waiters(Mutex<BTreeMap<RuntimeId, usize>>);

/// A place among those who wait.
#[derive(Debug)]
struct Place {
    waiters: Arc<Waiters>,
    origin: RuntimeId,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RuntimeId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>, origin: &RuntimeId) -> Option<Place> {
        let mut waiters = self.lock();
        let total: usize = waiters.values().sum();
        let own = waiters.get(origin).copied().unwrap_or_default();
        if WAITERS_MAX <= total || WAITERS_OF_ONE_MAX <= own {
            return None;
        }
        waiters.insert(origin.clone(), own.saturating_add(1));
        Some(Place { waiters: Arc::clone(self), origin: origin.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiters = self.waiters.lock();
        match waiters.get_mut(&self.origin) {
            Some(own) if 1 < *own => *own = own.saturating_sub(1),
            Some(_) | None => drop(waiters.remove(&self.origin)),
        }
    }
}

impl Ingress {
    /// Answers an actor's question about a run.
    pub(in crate::node) async fn tell_of_run(&self, origin: &RuntimeId, payload: &[u8], responder: Responder) {
        let view = self.views.load_full();
        match message::open_run_question(&view, origin, payload, self.clock.now().wall) {
            Err(refusal) => self.refuse(refusal, responder),
            Ok(question) => {
                self.introduce(&view, &question.read).await;
                Arc::clone(&self.desk).answer(question, payload, responder).await;
            }
        }
    }

    /// Tells a peer of the own site what became of the own pointers.
    pub(in crate::node) async fn tell_pointers(&self, origin: &RuntimeId, payload: &[u8], responder: Responder) {
        let view = self.views.load_full();
        let (signer, asked, digest) = match message::open_pointers_asked(&view, origin, payload, self.clock.now().wall)
        {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(refusal, responder),
        };
        if !view.peers.get(origin).is_some_and(|peer| is_trusted(&view, peer, &signer)) {
            self.refused.count(Code::PermissionDenied.as_str());
            return refuse(responder, Code::PermissionDenied);
        }
        let after = Upto { number: asked.number, floor: asked.floor };
        match self.desk.pointers(after).await {
            Ok(page) => {
                let keys = self.keyring.keys();
                responder.answer(Answer::Reply(message::seal_pointers(&keys, digest, &page)));
            }
            Err(_fault) => refuse(responder, Code::StorageUnavailable),
        }
    }
}

fn refuse(responder: Responder, code: Code) {
    responder.answer(Answer::Refusal(code.to_string()));
}

impl Desk {
    pub(in crate::node) fn new(parts: ReachParts, shelf: Shelf) -> Self {
        Self { parts, shelf, waiters: Arc::default(), followers: Mutex::default() }
    }

    async fn pointers(&self, after: Upto) -> Result<PointersPage, store::Error> {
        let page = self.shelf.registry.changes(after, POINTERS_MAX).await?;
        let news = |(_, change)| match change {
            PointerChange::Put(pointer) => PointerNews::Put(pointer),
            PointerChange::Forgotten(run) => PointerNews::Forgotten(run),
        };
        Ok(PointersPage {
            is_restart: page.is_restart,
            changes: page.changes.into_iter().map(news).collect(),
            number: page.upto.number,
            floor: page.upto.floor,
            has_more: page.has_more,
        })
    }

    async fn answer(self: Arc<Self>, question: RunQuestion, sealed: &[u8], responder: Responder) {
        let now = self.parts.clock.now();
        let view = self.parts.views.load_full();
        if let Err(denial) = judge::judge(&view, &question.read, now.wall) {
            return self.deny(&view, &question, denial, now, responder);
        }
        let Ok(answer) = self.look_up(&question).await else { return refuse(responder, Code::StorageUnavailable) };
        // A question that finds nothing shows nothing: whoever looks for a run asks everybody.
        if answer != RunAnswer::Unknown && !self.record(&view, &question, None, now) {
            return refuse(responder, Code::ServerBusy);
        }
        match (&answer, wait_of(&question)) {
            (RunAnswer::Events(pointer, page), Some(wait)) if page.events.is_empty() && !page.is_ended => {
                let place = (pointer.clone(), page.next);
                self.leave_waiting(Waiting::new(question, sealed), place, wait, responder);
            }
            _ => self.reply(&question, &answer, responder),
        }
    }

    fn deny(&self, view: &View, question: &RunQuestion, denial: Denial, now: Now, responder: Responder) {
        self.parts.refused.count(denial.code.as_str());
        if !self.record(view, question, Some(&denial), now) {
            return refuse(responder, Code::ServerBusy);
        }
        let is_own_site = question.read.envelope.origin.site == view.me().site;
        let denial = if is_own_site { denial } else { denial.for_another_site() };
        self.reply(question, &RunAnswer::Denied(denial), responder);
    }

    /// Answers whoever has waited, if he may be told by now: he may have been banned, and his certificate may have ended.
    fn answer_waiting(&self, waiting: &Waiting, answer: &RunAnswer, responder: Responder) {
        let (view, now) = (self.parts.views.load_full(), self.parts.clock.now());
        match judge::judge_again(&view, &waiting.read_by(&view, now.wall), now.wall) {
            Ok(_rule) => self.reply(&waiting.question, answer, responder),
            Err(denial) => self.deny(&view, &waiting.question, denial, now, responder),
        }
    }

    async fn look_up(&self, question: &RunQuestion) -> Result<RunAnswer, store::Error> {
        let (store, run) = (&self.shelf.store, question.run);
        // Asked before the store is: it can only have come there meanwhile.
        let accepted = self.accepted(run);
        Ok(match &question.asked {
            RunAsked::Pointer => match store.run(run).await? {
                Some(kept) => RunAnswer::Pointer(Box::new(kept.pointer)),
                None => self.to_come(run, accepted).await?.map_or(RunAnswer::Unknown, RunAnswer::Pointer),
            },
            RunAsked::Record => match store.run(run).await? {
                Some(kept) => RunAnswer::of_record(kept),
                None => self.to_come(run, accepted).await?.map_or(RunAnswer::Unknown, |pointer| {
                    RunAnswer::Record(Box::new(Run { pointer: *pointer, result: None, error: None }))
                }),
            },
            RunAsked::Part { part, from, most } => {
                let kept = store.run(run).await?;
                let piece = kept.as_ref().and_then(|run| RunPiece::of(part.of(run)?, *from, *most));
                piece.map_or(RunAnswer::Unknown, RunAnswer::Piece)
            }
            RunAsked::Events { from, kinds, limit, .. } => {
                let bytes_max = RUN_EVENTS_BYTES_MAX;
                let asked = EventsAsked { run, from: *from, kinds: kinds.clone(), limit: *limit, bytes_max };
                match store.events(asked).await? {
                    Some(EventPage { pointer, events, next, head }) => {
                        let page = RunEvents { events, next, count: head.count, is_ended: head.is_ended };
                        RunAnswer::Events(Box::new(pointer), page)
                    }
                    // Nothing yet, and more to come.
                    None => self.to_come(run, accepted).await?.map_or(RunAnswer::Unknown, |pointer| {
                        let page = RunEvents { events: Vec::new(), next: *from, count: 0, is_ended: false };
                        RunAnswer::Events(pointer, page)
                    }),
                }
            }
        })
    }

    /// A run that was accepted and may not be in the store yet: its name was given out before.
    fn accepted(&self, run: RunId) -> Option<Box<Pointer>> {
        let view = self.parts.views.load();
        Some(Box::new(view.runs.get(&run)?.pointer(view.me())))
    }

    /// The same for one that was then not found there. One that has ended and is forgotten is accepted too, until the engine
    /// has heard of it.
    async fn to_come(&self, run: RunId, accepted: Option<Box<Pointer>>) -> Result<Option<Box<Pointer>>, store::Error> {
        Ok(if accepted.is_some() && self.shelf.store.is_forgotten(run).await? { None } else { accepted })
    }

    /// The question's place among the queries is free from now on.
    fn leave_waiting(
        self: Arc<Self>,
        waiting: Waiting,
        (pointer, next): (Box<Pointer>, u64),
        wait: Duration,
        responder: Responder,
    ) {
        let Some(place) = self.waiters.admit(&waiting.question.read.envelope.origin) else {
            self.parts.refused.count("too_many_waiters");
            return refuse(responder, Code::ServerBusy);
        };
        let (tasks, stop) = (self.parts.tasks.clone(), self.parts.stop.clone());
        tasks.spawn(stop.run_until_cancelled_owned(async move {
            match self.waited(&waiting.question, (pointer, next), wait).await {
                Ok(answer) => self.answer_waiting(&waiting, &answer, responder),
                Err(_fault) => refuse(responder, Code::StorageUnavailable),
            }
            drop(place);
        }));
    }

    /// What is answered is read from the store, as for who does not wait. But a run that is forgotten by its own end is told to
    /// its end to whoever waits for that: it is in memory.
    async fn waited(
        &self,
        question: &RunQuestion,
        (pointer, next): (Box<Pointer>, u64),
        wait: Duration,
    ) -> Result<RunAnswer, store::Error> {
        // Whether there is something, the store says.
        let bell = tokio::time::timeout(wait, self.bell(question.run, next));
        let (heard, is_held) = tokio::select! {
            biased;
            heard = bell => (heard, false),
            () = self.held_up(question) => (Ok(Ok(None)), true),
        };
        match (self.look_up(question).await?, heard) {
            // What came meanwhile comes first.
            (RunAnswer::Events(pointer, page), _) if is_held && page.events.is_empty() && !page.is_ended => {
                Ok(RunAnswer::HeldUp(pointer))
            }
            (RunAnswer::Unknown, Ok(Ok(Some((reader, events))))) => {
                let rest = rest(&question.asked, reader, events).await?;
                Ok(rest.map_or(RunAnswer::Unknown, |page| RunAnswer::Events(pointer, page)))
            }
            (answer, _) => Ok(answer),
        }
    }

    /// Until the run is held up for too long, for whoever understands that.
    async fn held_up(&self, question: &RunQuestion) {
        match question.asked {
            RunAsked::Events { takes_held: true, .. } => self.shelf.held.too_long(question.run).await,
            RunAsked::Events { .. } | RunAsked::Part { .. } | RunAsked::Pointer | RunAsked::Record => {
                std::future::pending().await
            }
        }
    }

    /// Until there may be something new of a run: what of it is in memory, and where that came from.
    async fn bell(&self, run: RunId, next: u64) -> Result<Option<(RunReader, Vec<Event>)>, store::Error> {
        let mut begun = self.shelf.begun.clone();
        begun.mark_unchanged();
        loop {
            let is_accepted = self.accepted(run).is_some();
            if let Some(mut reader) = self.shelf.feeds.reader(run, next.checked_sub(1)).await? {
                return Ok(match reader.next_page(RUN_EVENTS_BYTES_MAX).await? {
                    hub::Next::Page(events) => Some((reader, events.to_vec())),
                    hub::Next::End | hub::Next::Gone => None,
                });
            }
            if !is_accepted || begun.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    fn reply(&self, question: &RunQuestion, answer: &RunAnswer, responder: Responder) {
        let sealed = message::seal_run_answer(&self.parts.keyring.keys(), question.read.digest, answer);
        responder.answer(Answer::Reply(sealed));
    }

    /// Leaves a record that nobody waits for. False where there is no room for it.
    fn record(&self, view: &View, question: &RunQuestion, denial: Option<&Denial>, now: Now) -> bool {
        if denial.is_none() && self.is_followed(question, now.monotonic) {
            return true;
        }
        let read = &question.read.envelope;
        let result = denial.map_or(Ok(()), Err);
        let mut draft = act_draft(now, &mut SystemEntropy, view.settings.policy_hash, read, result);
        "run_read".clone_into(&mut draft.action);
        let what = format!("{} of {}", question.asked.as_str(), question.run);
        draft.detail = denial.map_or(what.clone(), |denial| format!("{what}: {}", denial.reason));
        if self.parts.audit.append_read(draft).is_ok() {
            self.remember_follower(question, denial, now.monotonic);
            return true;
        }
        self.parts.refused.count("unrecorded_read");
        // A disk that failed must not stop the reads (DESIGN, *A failing disk*); health names it. A flood must.
        self.parts.audit.reads_fault().is_some()
    }

    /// Whether the record of who follows this run is still fresh: each page would be one otherwise.
    fn is_followed(&self, question: &RunQuestion, now: Monotonic) -> bool {
        if wait_of(question).is_none() {
            return false;
        }
        self.followers().get(&follower(question)).is_some_and(|since| now < since.plus(FOLLOWED))
    }

    /// Once the record is there, and not before.
    fn remember_follower(&self, question: &RunQuestion, denial: Option<&Denial>, now: Monotonic) {
        if denial.is_some() || wait_of(question).is_none() {
            return;
        }
        let mut followers = self.followers();
        if FOLLOWERS_MAX <= followers.len() {
            followers.retain(|_, since| now < since.plus(FOLLOWED));
        }
        if followers.len() < FOLLOWERS_MAX {
            followers.insert(follower(question), now);
        }
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run that is forgotten has said from where its reader stands to its end, if that is all that was asked for and fits
/// into an answer.
async fn rest(
    asked: &RunAsked,
    mut reader: RunReader,
    mut events: Vec<Event>,
) -> Result<Option<RunEvents>, store::Error> {
    let RunAsked::Events { kinds: None, limit, .. } = asked else { return Ok(None) };
    let bytes = |events: &[Event]| events.iter().map(|event| event.body.len()).fold(0, usize::saturating_add);
    while events.last().is_some_and(|last| last.kind != Kind::RunEnd) {
        match reader.next_page(RUN_EVENTS_BYTES_MAX).await? {
            hub::Next::Page(more) if bytes(&events).saturating_add(bytes(&more)) <= RUN_EVENTS_BYTES_MAX => {
                events.extend(more);
            }
            hub::Next::Page(_) | hub::Next::End | hub::Next::Gone => return Ok(None),
        }
    }
    if *limit < events.len() {
        return Ok(None);
    }
    let next = reader.next();
    Ok(Some(RunEvents { events, next, count: next, is_ended: true }))
}

fn follower(question: &RunQuestion) -> (RuntimeId, String, RunId) {
    let read = &question.read.envelope;
    (read.origin.clone(), read.actor.to_string(), question.run)
}

/// How long the question may wait for an event, if it wants to.
fn wait_of(question: &RunQuestion) -> Option<Duration> {
    match question.asked {
        RunAsked::Events { wait, .. } if wait > Millis(0) => Some(Duration::from_millis(wait.min(WAIT_MAX).0)),
        RunAsked::Events { .. } | RunAsked::Part { .. } | RunAsked::Pointer | RunAsked::Record => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_origin_does_not_use_up_the_places_of_the_others() {
        let waiters = Arc::new(Waiters::default());
        let runtime = |text: &str| text.parse::<RuntimeId>().expect("legal");
        let mut places: Vec<_> = (0..WAITERS_OF_ONE_MAX).map(|_| waiters.admit(&runtime("s/a"))).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(waiters.admit(&runtime("s/a")).is_none());
        assert!(waiters.admit(&runtime("s/b")).is_some());
        assert_eq!(waiters.lock().len(), 1, "b has left");
        places.pop();
        places.push(waiters.admit(&runtime("s/a")));
        assert!(places.last().is_some_and(Option::is_some), "one left, one came");
        for number in 1..WAITERS_MAX / WAITERS_OF_ONE_MAX {
            let origin = runtime(&format!("s/r{number}"));
            places.extend((0..WAITERS_OF_ONE_MAX).map(|_| waiters.admit(&origin)));
        }
        assert!(places.iter().all(Option::is_some));
        assert!(waiters.admit(&runtime("s/b")).is_none(), "all places are taken");
        drop(places);
        assert!(waiters.lock().is_empty());
    }
}

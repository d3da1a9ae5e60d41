//! A mesh inside one process: several nodes on one [`Hub`], with links that can be cut and healed.
//!
//! It keeps the promises of `contract.rs` without sockets, for tests of what stands above the mesh. Time is tokio's, so a
//! paused clock works. There is no relaying: two nodes whose link is cut do not hear each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::id::RuntimeId;
use crate::domain::queue::Queue;
use crate::mesh::intake::Intake;
use crate::mesh::key::{SERVICE_DEFAULT, Space};
use crate::mesh::{
    Accept, Answer, Document, Inbox, Mesh, OpenError, PAYLOAD_BYTES_MAX, Pending, QueryError, Refusal, Refusals,
    Responder, Verb,
};

/// The medium that nodes join. A clone is the same medium.
#[derive(Clone)]
pub struct Hub(Arc<Medium>);

struct Medium {
    space: Space,
    state: Mutex<State>,
    /// Counts changes of links and members, so that waiting queries look again whether their target is still linked.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<u64, Member>,
    joined: u64,
    /// Pairs that do not hear each other, the lesser name first.
    cut: BTreeSet<(RuntimeId, RuntimeId)>,
}

struct Member {
    runtime: RuntimeId,
    boot: u64,
    intake: Arc<Intake>,
    identity: Option<Vec<u8>>,
    announced: bool,
}

/// One node's place on a [`Hub`].
pub struct MemoryMesh {
    hub: Hub,
    number: u64,
    runtime: RuntimeId,
    intake: Arc<Intake>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Hub {
    /// An empty medium whose keys start with the default service name.
    pub fn new() -> Result<Self, OpenError> {
        let space = Space::new(SERVICE_DEFAULT).map_err(|error| OpenError::Session(error.to_string()))?;
        let (changed, _) = watch::channel(0);
        Ok(Self(Arc::new(Medium { space, state: Mutex::default(), changed })))
    }

    /// Joins as `runtime` in its life `boot`, and hears the tokens that are there. Needs a tokio runtime.
    pub fn join(&self, runtime: RuntimeId, boot: u64) -> (Arc<MemoryMesh>, Inbox) {
        let (intake, inbox) = Intake::new(self.0.space.clone(), runtime.clone(), boot);
        let intake = Arc::new(intake);
        let mut state = self.lock();
        state.joined = state.joined.saturating_add(1);
        let number = state.joined;
        for member in state.members.values() {
            if member.announced && !state.is_cut(&runtime, &member.runtime) {
                intake.hear_token(&self.0.space.liveliness(&member.runtime, member.boot), true);
            }
        }
        let member =
            Member { runtime: runtime.clone(), boot, intake: intake.clone(), identity: None, announced: false };
        state.members.insert(number, member);
        drop(state);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (worker, stopped) = (intake.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = worker.deliver_backlog() => (),
                () = stopped.cancelled() => (),
            }
        });
        tasks.close();
        self.note_change();
        (Arc::new(MemoryMesh { hub: self.clone(), number, runtime, intake, tasks, stop }), inbox)
    }

    /// Cuts the link between two runtimes: each sees the other's token go, and queries under way end unanswered.
    pub fn cut(&self, one: &RuntimeId, other: &RuntimeId) {
        let mut state = self.lock();
        if state.cut.insert(pair(one, other)) {
            state.tell_pair(&self.0.space, one, other, false);
        }
        drop(state);
        self.note_change();
    }

    /// Heals the link between two runtimes: each sees the other's token again.
    pub fn heal(&self, one: &RuntimeId, other: &RuntimeId) {
        let mut state = self.lock();
        if state.cut.remove(&pair(one, other)) {
            state.tell_pair(&self.0.space, one, other, true);
        }
        drop(state);
        self.note_change();
    }

    /// Puts bytes on any key, as a program that is no node of ours could.
    pub fn put_foreign(&self, key: &str, bytes: &[u8]) {
        for member in self.lock().members.values() {
            member.intake.hear_document(key, bytes.len(), || bytes.to_vec());
        }
    }

    /// Asks `target` on any key, as a program that is no node of ours could.
    pub async fn ask_foreign(&self, target: &RuntimeId, key: &str, payload: Vec<u8>) -> Result<Vec<u8>, QueryError> {
        let intake = self.lock().members.values().find(|it| it.runtime == *target).map(|it| it.intake.clone());
        let Some(intake) = intake else {
            return Err(QueryError::NoReply);
        };
        judge(ask(&intake, key, payload)?.await.ok(), PAYLOAD_BYTES_MAX)
    }

    fn note_change(&self) {
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_cut(&self, one: &RuntimeId, other: &RuntimeId) -> bool {
        self.cut.contains(&pair(one, other))
    }

    /// Every other member that hears the member `number`.
    fn hearers(&self, number: u64) -> impl Iterator<Item = &Member> {
        let own = self.members.get(&number);
        self.members
            .iter()
            .filter(move |(other, member)| {
                own.is_some_and(|own| **other != number && !self.is_cut(&own.runtime, &member.runtime))
            })
            .map(|(_, member)| member)
    }

    fn tell_pair(&self, space: &Space, one: &RuntimeId, other: &RuntimeId, alive: bool) {
        for (hearer, announcer) in [(one, other), (other, one)] {
            for member in self.members.values().filter(|it| it.runtime == *announcer && it.announced) {
                let key = space.liveliness(&member.runtime, member.boot);
                for it in self.members.values().filter(|it| it.runtime == *hearer) {
                    it.intake.hear_token(&key, alive);
                }
            }
        }
    }

    fn tell_token(&self, space: &Space, number: u64, alive: bool) {
        if let Some(own) = self.members.get(&number) {
            let key = space.liveliness(&own.runtime, own.boot);
            self.hearers(number).for_each(|it| it.intake.hear_token(&key, alive));
        }
    }
}

impl MemoryMesh {
    /// Looks a target up: somebody else with that name, linked to this node, which is still a member itself.
    fn find<T>(&self, target: &RuntimeId, read: impl Fn(&Member) -> T) -> Result<Option<T>, QueryError> {
        let state = self.hub.lock();
        if !state.members.contains_key(&self.number) {
            return Err(QueryError::Session("closed".into()));
        }
        Ok(state.hearers(self.number).find(|it| it.runtime == *target).map(read))
    }

    async fn ask(&self, target: &RuntimeId, verb: Verb, payload: Vec<u8>) -> Result<Vec<u8>, QueryError> {
        if PAYLOAD_BYTES_MAX < payload.len() {
            return Err(QueryError::TooLarge(payload.len()));
        }
        let mut changed = self.hub.0.changed.subscribe();
        let Some(intake) = self.find(target, |it| it.intake.clone())? else {
            return Err(QueryError::NoReply);
        };
        let mut answer = ask(&intake, &self.hub.0.space.rpc(target, verb, &self.runtime), payload)?;
        loop {
            tokio::select! {
                answered = &mut answer => return self.counted(judge(answered.ok(), verb.answer_bytes_max())),
                _ = changed.changed() => if self.find(target, |_| ())?.is_none() {
                    return Err(QueryError::NoReply);
                },
            }
        }
    }

    fn counted(&self, answer: Result<Vec<u8>, QueryError>) -> Result<Vec<u8>, QueryError> {
        if matches!(answer, Err(QueryError::TooLarge(_))) {
            self.intake.count(Refusal::TooLarge);
        }
        answer
    }

    fn leave(&self) {
        let mut state = self.hub.lock();
        if state.members.get(&self.number).is_some_and(|it| it.announced) {
            state.tell_token(&self.hub.0.space, self.number, false);
        }
        state.members.remove(&self.number);
        drop(state);
        self.hub.note_change();
        self.stop.cancel();
    }
}

impl Drop for MemoryMesh {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Mesh for MemoryMesh {
    fn query<'a>(
        &'a self,
        target: &'a RuntimeId,
        verb: Verb,
        payload: Vec<u8>,
        budget: Duration,
        accept: Accept<'a>,
    ) -> Pending<'a, Result<Vec<u8>, QueryError>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(budget, self.ask(target, verb, payload)).await;
            let answer = asked.unwrap_or(Err(QueryError::Timeout))?;
            // Nobody but the target answers here: there is nothing to choose from, and its answer is given in any case.
            accept(&answer);
            Ok(answer)
        })
    }

    fn fetch_identity<'a>(
        &'a self,
        runtime: &'a RuntimeId,
        _budget: Duration,
        accept: Accept<'a>,
    ) -> Pending<'a, Result<Vec<u8>, QueryError>> {
        Box::pin(async move {
            let identity = self.find(runtime, |it| it.identity.clone())?;
            let answer = identity.flatten().ok_or(QueryError::NoReply)?;
            accept(&answer);
            Ok(answer)
        })
    }

    fn publish<'a>(&'a self, document: Document, bytes: Vec<u8>) -> Pending<'a, Result<(), QueryError>> {
        Box::pin(async move {
            if PAYLOAD_BYTES_MAX < bytes.len() {
                return Err(QueryError::TooLarge(bytes.len()));
            }
            let mut state = self.hub.lock();
            let Some(own) = state.members.get_mut(&self.number) else {
                return Err(QueryError::Session("closed".into()));
            };
            if document == Document::Identity {
                own.identity = Some(bytes.clone());
            }
            let key = self.hub.0.space.document(&self.runtime, document);
            for it in state.hearers(self.number) {
                it.intake.hear_document(&key, bytes.len(), || bytes.clone());
            }
            Ok(())
        })
    }

    fn announce<'a>(&'a self) -> Pending<'a, Result<(), QueryError>> {
        Box::pin(async move {
            let mut state = self.hub.lock();
            let Some(own) = state.members.get_mut(&self.number) else {
                return Err(QueryError::Session("closed".into()));
            };
            if !std::mem::replace(&mut own.announced, true) {
                state.tell_token(&self.hub.0.space, self.number, true);
            }
            Ok(())
        })
    }

    fn listening(&self) -> Vec<String> {
        Vec::new()
    }

    fn links(&self) -> Pending<'_, usize> {
        Box::pin(async move { self.hub.lock().hearers(self.number).count() })
    }

    fn refusals(&self) -> Refusals {
        self.intake.refusals()
    }

    fn queues(&self) -> Vec<Queue> {
        self.intake.queues().to_vec()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.leave();
            self.tasks.wait().await;
        })
    }
}

fn pair(one: &RuntimeId, other: &RuntimeId) -> (RuntimeId, RuntimeId) {
    (one.min(other).clone(), one.max(other).clone())
}

fn ask(intake: &Intake, key: &str, payload: Vec<u8>) -> Result<oneshot::Receiver<Answer>, QueryError> {
    let refused = |refusal: Refusal| QueryError::Refused(refusal.as_str().to_owned());
    let admission = intake.admit(key, payload.len()).map_err(refused)?;
    let (responder, answer) = Responder::channel();
    admission.enter(payload, responder);
    Ok(answer)
}

fn judge(answer: Option<Answer>, bytes_max: usize) -> Result<Vec<u8>, QueryError> {
    match answer {
        None => Err(QueryError::NoReply),
        Some(Answer::Refusal(reason)) => Err(QueryError::Refused(reason)),
        Some(Answer::Reply(bytes)) if bytes_max < bytes.len() => Err(QueryError::TooLarge(bytes.len())),
        Some(Answer::Reply(bytes)) => Ok(bytes),
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hub({} members)", self.lock().members.len())
    }
}

impl fmt::Debug for MemoryMesh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MemoryMesh({})", self.runtime)
    }
}

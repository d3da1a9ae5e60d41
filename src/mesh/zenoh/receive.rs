//! What comes in from Zenoh: tokens, documents and queries.
//!
//! The callbacks here run on the threads that carry everybody's traffic. They parse, count and queue; whatever sends
//! something back is done by the [`Clerk`] or by whoever answers. A callback owns no session, or it could never be dropped.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use zenoh::query::Query;
use zenoh::sample::{Locality, Sample, SampleKind};
use zenoh::{Session, Wait};

use crate::mesh::intake::Intake;
use crate::mesh::zenoh::core::{Core, REFUSAL_ENCODING};
use crate::mesh::zenoh::session::MESSAGE_BYTES_MAX;
use crate::mesh::zenoh::ways::Ways;

use crate::mesh::{Answer, Document, Refusal, Responder, Verb};

/// Small replies waiting to be sent. When full a query is dropped, and its origin hears that nobody answered.
const ERRANDS_MAX: usize = 256;

/// Tokens that a session is remembered to have heard of: eight times the largest fleet, as many as may wait in the intake. Above
/// it somebody is inventing names.
const TOKENS_MAX: usize = 16_384;

/// What a callback leaves for the [`Clerk`].
enum Errand {
    Identify(Query),
    Refuse(Query, Refusal),
}

/// Sends the replies that need no decision, away from Zenoh's threads.
pub(super) struct Clerk {
    errands: mpsc::Receiver<Errand>,
    identity: Arc<Identity>,
    key: String,
}

/// The newest identity document of this runtime.
#[derive(Debug, Default)]
pub(super) struct Identity(Mutex<Option<Vec<u8>>>);

impl Identity {
    /// Replaces the document.
    pub(super) fn set(&self, bytes: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    /// The document, once there is one.
    pub(super) fn get(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The tokens that one session has heard of. A session that is closed says nothing of those it no longer hears.
#[derive(Debug)]
pub(super) struct There(Mutex<Option<BTreeSet<String>>>);

impl Default for There {
    fn default() -> Self {
        Self(Mutex::new(Some(BTreeSet::new())))
    }
}

impl There {
    /// Passes on what the session says of a token. Under the lock, so that nothing comes after [`There::end`].
    fn hear(&self, intake: &Intake, key: &str, alive: bool) {
        let mut there = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(keys) = there.as_mut() else { return };
        if alive && keys.len() < TOKENS_MAX {
            keys.insert(key.to_owned());
        } else if !alive {
            keys.remove(key);
        }
        intake.hear_token(key, alive);
    }

    /// The session is over: nobody is heard by it any more.
    pub(super) fn end(&self, intake: &Intake) {
        let mut there = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        there.take().iter().flatten().for_each(|key| intake.hear_token(key, false));
    }
}

/// Declares everything this runtime listens to. The declarations live as long as the session.
pub(super) fn declare(session: &Session, core: &Core) -> zenoh::Result<Clerk> {
    let Core { space, own, intake, identity, .. } = core;
    let (errands_tx, errands) = mpsc::channel(ERRANDS_MAX);
    for document in [Document::Identity, Document::Observation] {
        let intake = intake.clone();
        session
            .declare_subscriber(space.every_document(document))
            .allowed_origin(Locality::Remote)
            .callback(move |sample| hear_document(&intake, &sample))
            .background()
            .wait()?;
    }
    let (hearing, tx, ways) = (intake.clone(), errands_tx.clone(), core.ways.clone());
    session
        .declare_queryable(space.every_rpc(own))
        .complete(true)
        .allowed_origin(Locality::Remote)
        .callback(move |query| hear_query(&hearing, &tx, &ways, query))
        .background()
        .wait()?;
    let (hearing, key) = (intake.clone(), space.document(own, Document::Identity));
    session
        .declare_queryable(key.clone())
        .complete(true)
        .allowed_origin(Locality::Remote)
        .callback(move |query| leave(&hearing, &errands_tx, Errand::Identify(query)))
        .background()
        .wait()?;
    // Last, so that a token is heard only once its owner's documents can be.
    let (hearing, there) = (intake.clone(), core.there.clone());
    session
        .liveliness()
        .declare_subscriber(space.every_liveliness())
        .history(true)
        // A callback and not Zenoh's default queue: that one holds 256, and a longer history then waits for ever.
        .callback(move |sample| {
            there.hear(&hearing, sample.key_expr().as_str(), sample.kind() == SampleKind::Put);
        })
        .background()
        .wait()?;
    Ok(Clerk { errands, identity: identity.clone(), key })
}

fn hear_document(intake: &Intake, sample: &Sample) {
    let payload = sample.payload();
    intake.hear_document(sample.key_expr().as_str(), payload.len(), || payload.to_bytes().into_owned());
}

fn hear_query(intake: &Intake, errands: &mpsc::Sender<Errand>, ways: &Arc<Ways>, query: Query) {
    let length = query.payload().map_or(0, |it| it.len());
    match intake.admit(query.key_expr().as_str(), length) {
        Ok(admission) => {
            let payload = query.payload().map(|it| it.to_bytes().into_owned()).unwrap_or_default();
            // The worker that answers sends the reply itself: no task to wake, no copy.
            // What anybody may ask says nothing of who asks, and would fill the table with names that are made up.
            let ways = (admission.verb == Verb::Act).then(|| Arc::clone(ways));
            admission.enter(payload, Responder::direct(move |answer| reply(query, ways.as_deref(), answer)));
        }
        Err(refusal) => leave(intake, errands, Errand::Refuse(query, refusal)),
    }
}

/// Leaves an errand. When too many wait, the query is dropped here, which ends it unanswered.
fn leave(intake: &Intake, errands: &mpsc::Sender<Errand>, errand: Errand) {
    if errands.try_send(errand).is_err() {
        intake.count(Refusal::Busy);
    }
}

fn reply(query: Query, ways: Option<&Ways>, answer: Answer) {
    // The reply takes the query's priority and congestion control.
    let sent = match answer {
        Answer::Reply(bytes) if MESSAGE_BYTES_MAX <= bytes.len() => {
            return tracing::warn!(length = bytes.len(), "answer is too large for the mesh");
        }
        Answer::Reply(bytes) => {
            let key = query.key_expr().clone();
            let sent = query.reply(&key, bytes).wait();
            // At once, because then the end of the answers mostly leaves in one piece with this one.
            drop(query);
            if let Some(ways) = ways {
                ways.hear(key.as_str());
            }
            sent
        }
        Answer::Refusal(reason) => query.reply_err(reason).encoding(REFUSAL_ENCODING).wait(),
    };
    note(sent);
}

/// An origin that has gone asks for the outcome once it is back, so a reply that cannot be sent is no error.
fn note(sent: zenoh::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "reply not sent");
    }
}

impl Clerk {
    /// Runs errands until the session is gone.
    pub(super) async fn run(mut self) {
        while let Some(errand) = self.errands.recv().await {
            match errand {
                Errand::Identify(query) => {
                    // Before the first publication nobody answers, which is what dropping the query says.
                    if let Some(bytes) = self.identity.get() {
                        note(query.reply(&self.key, bytes).wait());
                    }
                }
                Errand::Refuse(query, refusal) => {
                    note(query.reply_err(refusal.as_str()).encoding(REFUSAL_ENCODING).wait())
                }
            }
        }
    }
}

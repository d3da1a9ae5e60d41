//! A member of the mesh whose key is pinned like any other, and that answers as a test tells it to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use tokio_util::task::TaskTracker;

use super::support::{Kept, Member, in_time, key, pointer};
use crate::domain::audit::Hash;
use crate::domain::code::Code;
use crate::domain::envelope::Health;
use crate::domain::id::RuntimeId;
use crate::domain::run::Pointer;
use crate::engine::word::Observation;
use crate::mesh::memory::{Hub, MemoryMesh};
use crate::mesh::{Answer, Document, Inbox, Mesh as _, Verb};
use crate::node::clock::Clock;
use crate::node::keyring::Keyring;
use crate::node::reach::Patience;
use crate::node::tests::parsed;
use crate::wire::mesh as message;
use crate::wire::mesh::{Keys, RunAnswer};

/// What it makes of the hash of a question.
pub(super) type Script = Box<dyn FnMut(Verb, Hash) -> Option<Vec<u8>> + Send>;

/// Speaks once, and then answers.
pub(super) struct Liar {
    pub(super) id: RuntimeId,
    mesh: Arc<MemoryMesh>,
    script: Arc<Mutex<Script>>,
    /// The question that is answered now.
    pub(super) asked: Arc<Mutex<serde_json::Value>>,
    /// Whether it refuses what it cannot know, as one of before that a run could be held up.
    pub(super) is_older: Arc<AtomicBool>,
    pub(super) keyring: Arc<Keyring>,
}

impl Liar {
    pub(super) async fn join(hub: &Hub, name: &str) -> Self {
        let id: RuntimeId = parsed(name);
        let (mesh, inbox) = hub.join(id.clone(), 1);
        let keyring = Arc::new(keyring(name, name));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(|_, _| None)));
        let task = TaskTracker::new();
        let asked: Arc<Mutex<serde_json::Value>> = Arc::default();
        let is_older: Arc<AtomicBool> = Arc::default();
        task.spawn(answer(inbox, Arc::clone(&asked), Arc::clone(&is_older), Arc::clone(&script)));
        mesh.announce().await.expect("announced");
        Self { id, mesh, script, asked, is_older, keyring }
    }

    /// A word, so that everybody pins its key and sees it online. It is to be repeated.
    pub(super) async fn speak(&self, sequence: u64, runs_head: Option<u64>) {
        let observation = Observation {
            runtime: self.id.clone(),
            boot: 1,
            sequence,
            at: Clock::start().now().wall,
            health: Health::Healthy,
            config_revision: 0,
            runs_head,
            edges: None,
            is_leaving: false,
        };
        let sealed = message::seal_observation(&self.keyring.keys(), &observation);
        in_time(self.mesh.publish(Document::Observation, sealed)).await.expect("published");
    }

    pub(super) fn tell(&self, script: impl FnMut(Verb, Hash) -> Option<Vec<u8>> + Send + 'static) {
        *self.script.lock().expect("whole") = Box::new(script);
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keyring.keys()
    }
}

/// A node, and a liar whose run it knows by its pointer.
pub(super) struct Lied {
    pub(super) hub: Hub,
    pub(super) b: Member,
    pub(super) liar: Liar,
    pub(super) known: Pointer,
}

impl Lied {
    pub(super) async fn new(patience: Patience) -> Self {
        let hub = Hub::new().expect("a hub");
        let b = Member::patient(&hub, "s/b", Kept::new(), patience).await;
        let liar = Liar::join(&hub, "s/l").await;
        b.sees_liar(&liar, None).await;
        let known = pointer(&liar.id, 1);
        b.is_told(known.clone()).await;
        Self { hub, b, liar, known }
    }
}

impl Liar {
    /// Says these one after the other, and then nothing.
    pub(super) fn answer(&self, answers: Vec<RunAnswer>) {
        let (keys, mut answers) = (self.keys(), answers.into_iter().peekable());
        self.tell(move |_, question| {
            let answer = answers.next()?;
            Some(message::seal_run_answer(&keys, question, &answer))
        });
    }

    /// Says always the same.
    pub(super) fn repeat(&self, answer: RunAnswer) {
        let keys = self.keys();
        self.tell(move |_, question| Some(message::seal_run_answer(&keys, question, &answer)));
    }
}

/// What signs as one runtime with the key of another.
pub(super) fn keyring(runtime: &str, of: &str) -> Keyring {
    Keyring::new(key(of).into(), parsed(runtime), Clock::start().now().wall).expect("a key signs")
}

/// What a signed message says.
pub(super) fn payload(sealed: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(&signed(sealed)?).ok()
}

fn signed(sealed: &[u8]) -> Option<Vec<u8>> {
    let outer: serde_json::Value = serde_json::from_slice(sealed).ok()?;
    STANDARD.decode(outer.get("payload")?.as_str()?).ok()
}

async fn answer(
    mut inbox: Inbox,
    asked: Arc<Mutex<serde_json::Value>>,
    is_older: Arc<AtomicBool>,
    script: Arc<Mutex<Script>>,
) {
    while let Some(incoming) = inbox.queries.recv().await {
        let Some(question) = signed(&incoming.payload) else { continue };
        let wanted: serde_json::Value = serde_json::from_slice(&question).expect("JSON");
        let is_new = wanted.pointer("/events/takes_held").is_some();
        *asked.lock().expect("whole") = wanted;
        if is_new && is_older.load(Ordering::Relaxed) {
            incoming.responder.answer(Answer::Refusal(Code::ContractViolation.to_string()));
            continue;
        }
        let digest = Hash::of(&question);
        if let Some(bytes) = (script.lock().expect("whole"))(incoming.verb, digest) {
            incoming.responder.answer(Answer::Reply(bytes));
        }
    }
}

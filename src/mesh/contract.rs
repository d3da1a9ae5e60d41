//! What every adapter of the mesh holds, as one suite that runs against each of them.

use std::any::Any;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::zenoh::{Session, Wait};

use crate::domain::id::RuntimeId;
use crate::mesh::authority::Authority;
use crate::mesh::memory::Hub;
use crate::mesh::support::{DEADLINE, any_answer, hears, in_time, runtime, wait_until};
use crate::mesh::zenoh::session::{self, Wires};
use crate::mesh::zenoh::tunnel::Tunnel;
use crate::mesh::zenoh::{self, Options};
use crate::mesh::{
    ANSWER_BYTES_MAX, Answer, Document, Fact, Inbox, Mesh, PAYLOAD_BYTES_MAX, QUERIES_QUEUE_MAX, QueryError, Refusal,
    Verb,
};

/// Time for an answer that comes. Only a failing test waits so long.
const BUDGET: Duration = Duration::from_secs(10);

/// Time after which an answer that does not come is given up.
const SHORT: Duration = Duration::from_millis(200);

macro_rules! holds_for_every_adapter {
    ($($promise:ident),* $(,)?) => {
        mod over_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::in_time("the test", super::$promise(super::Rig::memory())).await;
            })*
        }
        mod over_zenoh {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::in_time("the test", super::$promise(super::Rig::zenoh())).await;
            })*
        }
        mod over_tls {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::in_time("the test", super::$promise(super::Rig::tls())).await;
            })*
        }
    };
}

holds_for_every_adapter!(
    a_query_carries_its_verb_origin_and_payload_and_brings_the_answer,
    a_refusal_brings_its_reason,
    an_unanswered_query_ends_when_its_budget_does,
    a_dropped_query_ends_at_once,
    nobody_there_is_no_reply,
    payloads_pass_at_the_limit_and_no_further,
    each_of_many_queries_is_carried_out_once_and_gets_its_own_answer,
    a_full_queue_refuses_as_busy,
    tokens_appear_and_go,
    a_late_joiner_hears_three_hundred_tokens,
    another_life_of_the_own_name_is_heard_and_the_own_one_is_not,
    documents_are_published_and_identities_fetched,
    a_wildcard_query_is_refused_and_counted,
    foreign_keys_and_sizes_are_counted,
    a_closed_mesh_says_so,
);

/// An adapter under test: makes nodes that hear each other, and speaks as a foreign program.
enum Rig {
    Memory(Hub),
    Zenoh(Box<Zenoh>),
}

/// Where each node listens, and who issues their certificates where links run inside TLS.
#[derive(Default)]
struct Zenoh {
    listening: Mutex<Vec<String>>,
    authority: Option<Authority>,
    strangers: Mutex<Vec<Tunnel>>,
}

/// One node and what it hears.
struct Node {
    id: RuntimeId,
    mesh: Arc<dyn Mesh>,
    inbox: Inbox,
}

impl Rig {
    fn memory() -> Self {
        Self::Memory(Hub::new().expect("legal service"))
    }

    fn zenoh() -> Self {
        Self::Zenoh(Box::default())
    }

    fn tls() -> Self {
        Self::Zenoh(Box::new(Zenoh { authority: Some(Authority::new()), ..Zenoh::default() }))
    }

    async fn node(&self, name: &str, boot: u64) -> Node {
        let id = runtime(name);
        match self {
            Self::Memory(hub) => {
                let (mesh, inbox) = hub.join(id.clone(), boot);
                Node { id, mesh, inbox }
            }
            Self::Zenoh(zenoh) => {
                let (mesh, inbox) = zenoh::open(zenoh.options(name, boot)).await.expect("opens");
                zenoh.note(mesh.listening());
                Node { id, mesh, inbox }
            }
        }
    }

    /// Two nodes that have heard each other and can ask each other.
    async fn pair(&self) -> (Node, Node) {
        let (mut a, mut b) = (self.node("a", 1).await, self.node("b", 1).await);
        for node in [&a, &b] {
            node.mesh.publish(Document::Identity, node.id.to_string().into_bytes()).await.expect("published");
            node.mesh.announce().await.expect("announced");
        }
        a.hears([Fact::TokenAppeared { runtime: b.id.clone(), boot: 1 }]).await;
        b.hears([Fact::TokenAppeared { runtime: a.id.clone(), boot: 1 }]).await;
        for (asking, asked) in [(&a, &b), (&b, &a)] {
            wait_until("the nodes reach each other", async || {
                asking.mesh.fetch_identity(&asked.id, BUDGET, &any_answer).await.is_ok()
            })
            .await;
        }
        (a, b)
    }

    /// A session that is no node of ours, linked to the first node.
    async fn stranger(&self) -> Session {
        let Self::Zenoh(zenoh) = self else { panic!("a stranger speaks over zenoh") };
        let options = zenoh.options("stranger", 1);
        let wires = zenoh.wires(&options).await;
        let config = session::config(&options, &wires).expect("accepted");
        let stranger = ::zenoh::open(config).await.expect("opens");
        wait_until("the stranger is linked", async || stranger.info().transports().await.count() != 0).await;
        stranger
    }

    /// Puts `count` tokens of as many runtimes on the mesh, for as long as the result lives.
    async fn crowd(&self, count: usize) -> Box<dyn Any + Send> {
        match self {
            Self::Memory(hub) => {
                let mut crowd = Vec::new();
                for index in 0..count {
                    let (mesh, inbox) = hub.join(runtime(&format!("crowd-{index}")), 1);
                    mesh.announce().await.expect("announced");
                    crowd.push((mesh, inbox));
                }
                Box::new(crowd)
            }
            Self::Zenoh(_) => {
                let stranger = self.stranger().await;
                let key = |index| format!("truST/s/crowd-{index}/svc/liveliness/1");
                let declare = |index| stranger.liveliness().declare_token(key(index)).wait().expect("declared");
                let tokens: Vec<_> = (0..count).map(declare).collect();
                Box::new((tokens, stranger))
            }
        }
    }
}

impl Zenoh {
    fn options(&self, name: &str, boot: u64) -> Options {
        let connect = self.listening.lock().expect("not poisoned").clone();
        let options = Options::new(runtime(name), boot, SocketAddr::from(([127, 0, 0, 1], 0)));
        Options { connect, tls: self.authority.as_ref().map(|it| it.node(name)), ..options }
    }

    /// Over TCP the first node is enough, who makes the others known. Inside TLS nobody is dialled who is not named.
    fn note(&self, addresses: Vec<String>) {
        let mut listening = self.listening.lock().expect("not poisoned");
        if listening.is_empty() || self.authority.is_some() {
            listening.extend(addresses);
        }
    }

    async fn wires(&self, options: &Options) -> Wires {
        let Some(identity) = &options.tls else { return Wires::tcp(options) };
        let tunnel = Tunnel::open(options, identity).await.expect("opens");
        self.note(tunnel.listening.clone());
        let wires = tunnel.wires.clone();
        self.strangers.lock().expect("not poisoned").push(tunnel);
        wires
    }
}

impl Node {
    /// Waits for these facts, in whatever order they come, and passes over others.
    async fn hears<const N: usize>(&mut self, wanted: [Fact; N]) {
        hears(&mut self.inbox, wanted).await;
    }

    async fn hears_such(&mut self, what: &str, is_wanted: impl Fn(&Fact) -> bool) -> Fact {
        in_time(what, async {
            loop {
                let fact = self.inbox.facts.recv().await.expect("the inbox stays open");
                if is_wanted(&fact) {
                    return fact;
                }
            }
        })
        .await
    }

    /// Answers the next query, and says what it was.
    async fn answers(&mut self, answer: Answer) -> (Verb, RuntimeId, Vec<u8>) {
        let incoming = in_time("a query", self.inbox.queries.recv()).await.expect("the inbox stays open");
        incoming.responder.answer(answer);
        (incoming.verb, incoming.origin, incoming.payload)
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.mesh.refusals().get(refusal.as_str()).copied().expect("every reason is counted")
    }
}

async fn a_query_carries_its_verb_origin_and_payload_and_brings_the_answer(rig: Rig) {
    let (a, mut b) = rig.pair().await;
    for verb in Verb::ALL {
        let target = b.id.clone();
        let asked = a.mesh.query(&target, verb, b"question".to_vec(), BUDGET, &any_answer);
        let (answer, heard) = tokio::join!(asked, b.answers(Answer::Reply(b"answer".to_vec())));
        assert_eq!(answer, Ok(b"answer".to_vec()));
        assert_eq!(heard, (verb, a.id.clone(), b"question".to_vec()));
    }
    let target = b.id.clone();
    let empty = a.mesh.query(&target, Verb::Probe, Vec::new(), BUDGET, &any_answer);
    assert_eq!(tokio::join!(empty, b.answers(Answer::Reply(Vec::new()))).0, Ok(Vec::new()));
    assert_eq!((a.mesh.links().await, b.mesh.links().await), (1, 1));
}

async fn a_refusal_brings_its_reason(rig: Rig) {
    let (a, mut b) = rig.pair().await;
    // The second word is what Zenoh's own timer says.
    for reason in ["permission_denied", "Timeout"] {
        let target = b.id.clone();
        let asked = a.mesh.query(&target, Verb::Act, Vec::new(), BUDGET, &any_answer);
        let (answer, _) = tokio::join!(asked, b.answers(Answer::Refusal(reason.into())));
        assert_eq!(answer, Err(QueryError::Refused(reason.into())));
    }
}

async fn an_unanswered_query_ends_when_its_budget_does(rig: Rig) {
    let (a, mut b) = rig.pair().await;
    assert_eq!(a.mesh.query(&b.id, Verb::Act, Vec::new(), SHORT, &any_answer).await, Err(QueryError::Timeout));
    let held = in_time("the query", b.inbox.queries.recv()).await.expect("arrived");
    held.responder.answer(Answer::Reply(b"too late".to_vec()));
    // The late answer must not become the answer of the next query.
    let target = b.id.clone();
    let asked = a.mesh.query(&target, Verb::Act, Vec::new(), BUDGET, &any_answer);
    assert_eq!(tokio::join!(asked, b.answers(Answer::Reply(b"in time".to_vec()))).0, Ok(b"in time".to_vec()));
}

async fn a_dropped_query_ends_at_once(rig: Rig) {
    let (a, mut b) = rig.pair().await;
    let target = b.id.clone();
    let asked = a.mesh.query(&target, Verb::Act, Vec::new(), DEADLINE, &any_answer);
    let (answer, incoming) = tokio::join!(asked, async { drop(b.inbox.queries.recv().await.expect("arrived")) });
    assert_eq!((answer, incoming), (Err(QueryError::NoReply), ()));
}

async fn nobody_there_is_no_reply(rig: Rig) {
    let (a, _b) = rig.pair().await;
    for target in [runtime("nobody"), a.id.clone()] {
        assert_eq!(a.mesh.query(&target, Verb::Act, Vec::new(), DEADLINE, &any_answer).await, Err(QueryError::NoReply));
        assert_eq!(a.mesh.fetch_identity(&target, DEADLINE, &any_answer).await, Err(QueryError::NoReply));
    }
}

async fn payloads_pass_at_the_limit_and_no_further(rig: Rig) {
    let (a, mut b) = rig.pair().await;
    let (largest, above) = (vec![7; PAYLOAD_BYTES_MAX], vec![7; PAYLOAD_BYTES_MAX + 1]);
    let target = b.id.clone();
    let asked = a.mesh.query(&target, Verb::Act, largest.clone(), BUDGET, &any_answer);
    let (answer, heard) = tokio::join!(asked, b.answers(Answer::Reply(largest.clone())));
    assert_eq!((answer, heard.2), (Ok(largest.clone()), largest));

    let too_large = Err(QueryError::TooLarge(above.len()));
    assert_eq!(a.mesh.query(&b.id, Verb::Act, above.clone(), BUDGET, &any_answer).await, too_large);
    assert_eq!(a.mesh.publish(Document::Observation, above.clone()).await, too_large.clone().map(drop));
    assert!(b.inbox.queries.try_recv().is_err(), "nothing was sent");

    let asked = a.mesh.query(&target, Verb::Act, Vec::new(), BUDGET, &any_answer);
    assert_eq!(tokio::join!(asked, b.answers(Answer::Reply(above))).0, too_large);
    assert_eq!(a.refused(Refusal::TooLarge), 1);

    // Whoever asks about runs takes more.
    let (largest, above) = (vec![7; ANSWER_BYTES_MAX], vec![7; ANSWER_BYTES_MAX + 1]);
    let asked = a.mesh.query(&target, Verb::Run, Vec::new(), BUDGET, &any_answer);
    assert_eq!(tokio::join!(asked, b.answers(Answer::Reply(largest.clone()))).0, Ok(largest));
    let asked = a.mesh.query(&target, Verb::Run, Vec::new(), BUDGET, &any_answer);
    let too_large = Err(QueryError::TooLarge(above.len()));
    assert_eq!(tokio::join!(asked, b.answers(Answer::Reply(above))).0, too_large);
    assert_eq!(a.refused(Refusal::TooLarge), 2);
}

async fn each_of_many_queries_is_carried_out_once_and_gets_its_own_answer(rig: Rig) {
    const QUERIES: u32 = 200;
    let (a, mut b) = rig.pair().await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..QUERIES {
        let (mesh, target) = (a.mesh.clone(), b.id.clone());
        asking.spawn(async move {
            let sent = number.to_be_bytes().to_vec();
            assert_eq!(mesh.query(&target, Verb::Act, sent.clone(), BUDGET, &any_answer).await, Ok(sent));
        });
    }
    let mut carried_out = BTreeSet::new();
    for _ in 0..QUERIES {
        let incoming = in_time("a query", b.inbox.queries.recv()).await.expect("open");
        assert!(carried_out.insert(incoming.payload.clone()), "came twice");
        incoming.responder.answer(Answer::Reply(incoming.payload));
    }
    asking.join_all().await;
    assert!(b.inbox.queries.try_recv().is_err(), "came again");
}

async fn a_full_queue_refuses_as_busy(rig: Rig) {
    let (a, b) = rig.pair().await;
    let mut waiting = tokio::task::JoinSet::new();
    let busy = Err(QueryError::Refused(Refusal::Busy.as_str().into()));
    for _ in 0..QUERIES_QUEUE_MAX {
        let (mesh, target) = (a.mesh.clone(), b.id.clone());
        waiting.spawn(async move { mesh.query(&target, Verb::Act, Vec::new(), DEADLINE, &any_answer).await });
    }
    wait_until("the queue is full", async || b.inbox.queries.len() == QUERIES_QUEUE_MAX).await;
    assert_eq!(b.refused(Refusal::Busy), 0);
    assert_eq!(a.mesh.query(&b.id, Verb::Act, Vec::new(), BUDGET, &any_answer).await, busy);
    assert_eq!(b.refused(Refusal::Busy), 1);
}

async fn tokens_appear_and_go(rig: Rig) {
    let (mut a, b) = rig.pair().await;
    let mut late = rig.node("late", 1).await;
    // In whatever order they are reached.
    let mut missing = BTreeSet::from([a.id.clone(), b.id.clone()]);
    while !missing.is_empty() {
        let fact = late.hears_such("the earlier tokens", |fact| matches!(fact, Fact::TokenAppeared { .. })).await;
        if let Fact::TokenAppeared { runtime, boot: 1 } = fact {
            missing.remove(&runtime);
        }
    }
    late.mesh.announce().await.expect("announced");
    late.mesh.announce().await.expect("announced twice is announced");
    a.hears([Fact::TokenAppeared { runtime: late.id.clone(), boot: 1 }]).await;

    tokio::time::timeout(Duration::from_secs(2), b.mesh.close()).await.expect("closes within two seconds");
    for other in [&mut a, &mut late] {
        other.hears([Fact::TokenGone { runtime: b.id.clone(), boot: 1 }]).await;
    }
}

async fn a_late_joiner_hears_three_hundred_tokens(rig: Rig) {
    const TOKENS: usize = 300;
    let first = rig.node("a", 1).await;
    let crowd = rig.crowd(TOKENS).await;
    let mut late = rig.node("late", 1).await;
    let mut heard = BTreeSet::new();
    while heard.len() < TOKENS {
        let fact = late.hears_such("every token", |fact| matches!(fact, Fact::TokenAppeared { .. })).await;
        if let Fact::TokenAppeared { runtime, boot: 1 } = fact {
            heard.insert(runtime);
        }
    }
    drop((crowd, first));
}

async fn another_life_of_the_own_name_is_heard_and_the_own_one_is_not(rig: Rig) {
    let (mut a, b) = rig.pair().await;
    let twin = rig.node("a", 2).await;
    twin.mesh.announce().await.expect("announced");
    a.hears([Fact::TokenAppeared { runtime: a.id.clone(), boot: 2 }]).await;

    let same_life = rig.node("a", 1).await;
    same_life.mesh.announce().await.expect("announced");
    let marker = rig.node("marker", 1).await;
    marker.mesh.announce().await.expect("announced");
    let is_own = |fact: &Fact| *fact == Fact::TokenAppeared { runtime: runtime("a"), boot: 1 };
    let is_marker = |fact: &Fact| *fact == Fact::TokenAppeared { runtime: runtime("marker"), boot: 1 };
    let next = a.hears_such("the marker", |fact| is_own(fact) || is_marker(fact)).await;
    assert!(is_marker(&next), "a node heard its own token");
    drop((b, same_life));
}

async fn documents_are_published_and_identities_fetched(rig: Rig) {
    let (mut a, b) = rig.pair().await;
    let silent = rig.node("silent", 1).await;
    silent.mesh.announce().await.expect("announced");
    a.hears([Fact::TokenAppeared { runtime: silent.id.clone(), boot: 1 }]).await;
    assert_eq!(
        a.mesh.fetch_identity(&silent.id, BUDGET, &any_answer).await,
        Err(QueryError::NoReply),
        "nothing published yet"
    );

    for (document, bytes) in [
        (Document::Identity, b"newer".to_vec()),
        (Document::Observation, Vec::new()),
        (Document::Observation, vec![1; PAYLOAD_BYTES_MAX]),
    ] {
        b.mesh.publish(document, bytes.clone()).await.expect("published");
        a.hears([Fact::Published { runtime: b.id.clone(), document, bytes }]).await;
    }
    assert_eq!(a.mesh.fetch_identity(&b.id, BUDGET, &any_answer).await, Ok(b"newer".to_vec()));

    let own = |fact: &Fact| matches!(fact, Fact::Published { runtime, .. } if *runtime == a.id);
    a.mesh.publish(Document::Observation, b"own".to_vec()).await.expect("published");
    b.mesh.publish(Document::Observation, b"last".to_vec()).await.expect("published");
    loop {
        let fact = in_time("the last document", a.inbox.facts.recv()).await.expect("open");
        assert!(!own(&fact), "a node heard itself");
        if matches!(&fact, Fact::Published { bytes, .. } if bytes == b"last") {
            break;
        }
    }
}

/// Asks as a foreign program; the answer as text.
async fn ask(rig: &Rig, stranger: Option<&Session>, target: &Node, key: &str, payload: Vec<u8>) -> String {
    let Some(stranger) = stranger else {
        let Rig::Memory(hub) = rig else { panic!("a stranger speaks over zenoh") };
        return format!("{:?}", hub.ask_foreign(&target.id, key, payload).await);
    };
    let replies = stranger.get(key).payload(payload).timeout(BUDGET).wait().expect("asked");
    match in_time("the reply", replies.recv_async()).await.map(|reply| reply.into_result().map(drop)) {
        Ok(Err(error)) => format!("{:?}", String::from_utf8_lossy(&error.payload().to_bytes())),
        other => format!("{other:?}"),
    }
}

async fn speaker(rig: &Rig) -> Option<Session> {
    match rig {
        Rig::Memory(_) => None,
        Rig::Zenoh(_) => Some(rig.stranger().await),
    }
}

async fn a_wildcard_query_is_refused_and_counted(rig: Rig) {
    let (mut a, _b) = rig.pair().await;
    let stranger = speaker(&rig).await;
    for key in ["truST/s/a/svc/rpc/act/s/*", "truST/s/a/svc/rpc/**"] {
        let mut answer = String::new();
        wait_until("the stranger reaches the node", async || {
            answer = ask(&rig, stranger.as_ref(), &a, key, Vec::new()).await;
            !answer.contains("Disconnected")
        })
        .await;
        assert!(answer.contains(Refusal::WildcardQuery.as_str()), "{answer}");
    }
    assert_eq!(a.refused(Refusal::WildcardQuery), 2);
    assert!(a.inbox.queries.try_recv().is_err(), "the query got in");
}

async fn foreign_keys_and_sizes_are_counted(rig: Rig) {
    const HUGE: usize = 2 * 1024 * 1024;
    let (mut a, b) = rig.pair().await;
    let stranger = speaker(&rig).await;
    let put = |key: &'static str, bytes: Vec<u8>| match (&rig, &stranger) {
        (Rig::Memory(hub), _) => hub.put_foreign(key, &bytes),
        (Rig::Zenoh(_), Some(stranger)) => stranger.put(key, bytes).wait().expect("put"),
        (Rig::Zenoh(_), None) => panic!("a stranger speaks over zenoh"),
    };
    for (key, length, refusal) in [
        ("truST/s/not$*/diag/observation", 1, Refusal::MalformedKey),
        ("truST/s/a b/_meta/identity", 1, Refusal::MalformedKey),
        ("truST/s/x/diag/observation", PAYLOAD_BYTES_MAX + 1, Refusal::TooLarge),
        ("truST/s/x/_meta/identity", HUGE, Refusal::TooLarge),
    ] {
        let before = a.refused(refusal);
        wait_until("the put is counted", async || {
            put(key, vec![0; length]);
            before < a.refused(refusal)
        })
        .await;
    }
    let huge = ask(&rig, stranger.as_ref(), &a, "truST/s/a/svc/rpc/act/s/x", vec![0; HUGE]).await;
    assert!(huge.contains(Refusal::TooLarge.as_str()), "{huge}");
    let verb = ask(&rig, stranger.as_ref(), &a, "truST/s/a/svc/rpc/erase/s/x", Vec::new()).await;
    assert!(verb.contains(Refusal::MalformedKey.as_str()), "{verb}");
    // None of that stops the node.
    let target = a.id.clone();
    let asked = b.mesh.query(&target, Verb::Probe, Vec::new(), BUDGET, &any_answer);
    assert_eq!(tokio::join!(asked, a.answers(Answer::Reply(Vec::new()))).0, Ok(Vec::new()));
    while let Ok(fact) = a.inbox.facts.try_recv() {
        assert!(!matches!(fact, Fact::Published { runtime, .. } if runtime != b.id), "a foreign document got in");
    }
}

async fn a_closed_mesh_says_so(rig: Rig) {
    let (a, b) = rig.pair().await;
    a.mesh.close().await;
    a.mesh.close().await;
    let answer = a.mesh.query(&b.id, Verb::Act, Vec::new(), BUDGET, &any_answer).await;
    assert!(matches!(answer, Err(QueryError::Session(_))), "{answer:?}");
    assert!(matches!(a.mesh.fetch_identity(&b.id, BUDGET, &any_answer).await, Err(QueryError::Session(_))));
    assert!(matches!(a.mesh.publish(Document::Identity, Vec::new()).await, Err(QueryError::Session(_))));
    assert!(matches!(a.mesh.announce().await, Err(QueryError::Session(_))));
    assert_eq!(a.mesh.links().await, 0);
}

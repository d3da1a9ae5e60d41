//! What every adapter does with what it hears: parse the key, check the size, queue, and count what is refused.
//!
//! Nothing here waits, because adapters call it from threads that carry everybody's traffic. A document that finds the queue
//! full is dropped, since the next period brings it again. A token is not repeated by anybody, so its newest state is kept
//! aside and delivered by [`Intake::deliver_backlog`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::domain::id::RuntimeId;
use crate::domain::queue::Queue;
use crate::mesh::key::{Key, Space};
use crate::mesh::{
    FACTS_QUEUE_MAX, Fact, Inbox, Incoming, PAYLOAD_BYTES_MAX, QUERIES_QUEUE_MAX, Refusal, Refusals, Verb,
};

/// Lives whose token state waits for room in the facts queue: eight times the 2,000 nodes of the largest fleet. Above it
/// somebody is inventing names, and new names are dropped and counted.
const BACKLOG_MAX: usize = 16_384;

/// One adapter's way in.
#[derive(Debug)]
pub(super) struct Intake {
    space: Space,
    own: RuntimeId,
    own_boot: u64,
    facts: mpsc::Sender<Fact>,
    queries: mpsc::Sender<Incoming>,
    /// Newest token state per life; `true` is alive. Held while sending a token, so that a runtime's facts keep their order.
    backlog: Mutex<BTreeMap<(RuntimeId, u64), bool>>,
    backlog_grew: Notify,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// A query that was found in order, with its place in the queue.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    /// What is asked.
    pub(super) verb: Verb,
    /// Who claims to ask.
    pub(super) origin: RuntimeId,
    place: mpsc::Permit<'a, Incoming>,
}

impl Admission<'_> {
    /// Hands the query to the workers.
    pub(super) fn enter(self, payload: Vec<u8>, responder: super::Responder) {
        self.place.send(Incoming { verb: self.verb, origin: self.origin, payload, responder });
    }
}

impl Intake {
    /// Makes the way in of `own` in its life `own_boot`, and the receiving ends.
    pub(super) fn new(space: Space, own: RuntimeId, own_boot: u64) -> (Self, Inbox) {
        Self::with_queues(space, own, own_boot, FACTS_QUEUE_MAX, QUERIES_QUEUE_MAX)
    }

    fn with_queues(space: Space, own: RuntimeId, own_boot: u64, facts_max: usize, queries_max: usize) -> (Self, Inbox) {
        let (facts, facts_rx) = mpsc::channel(facts_max);
        let (queries, queries_rx) = mpsc::channel(queries_max);
        let intake = Self {
            space,
            own,
            own_boot,
            facts,
            queries,
            backlog: Mutex::default(),
            backlog_grew: Notify::new(),
            refused: Default::default(),
        };
        (intake, Inbox { facts: facts_rx, queries: queries_rx })
    }

    /// A liveliness token appeared or went away.
    pub(super) fn hear_token(&self, key: &str, alive: bool) {
        let Ok(Key::Liveliness { runtime, boot }) = self.space.parse(key) else {
            return self.count(Refusal::MalformedKey);
        };
        if runtime == self.own && boot == self.own_boot {
            return;
        }
        let mut backlog = self.lock_backlog();
        // Something of this runtime already waits: overtaking it would turn the order of its facts round.
        if !waits(&backlog, &runtime) && self.facts.try_send(token_fact(runtime.clone(), boot, alive)).is_ok() {
            return;
        }
        let life = (runtime, boot);
        if backlog.len() < BACKLOG_MAX || backlog.contains_key(&life) {
            backlog.insert(life, alive);
            self.backlog_grew.notify_one();
        } else {
            self.count(Refusal::Busy);
        }
    }

    /// A document of `length` bytes was published; `bytes` copies it once it is known to be in order.
    pub(super) fn hear_document(&self, key: &str, length: usize, bytes: impl FnOnce() -> Vec<u8>) {
        let Ok(Key::Document { runtime, document }) = self.space.parse(key) else {
            return self.count(Refusal::MalformedKey);
        };
        if PAYLOAD_BYTES_MAX < length {
            return self.count(Refusal::TooLarge);
        }
        if waits(&self.lock_backlog(), &runtime) {
            return self.count(Refusal::Busy);
        }
        if let Ok(place) = self.facts.try_reserve() {
            place.send(Fact::Published { runtime, document, bytes: bytes() });
        } else {
            self.count(Refusal::Busy);
        }
    }

    /// How full the ways in are. What waits for room among the facts has a bound of its own.
    pub(super) fn queues(&self) -> [Queue; 3] {
        let tokens = self.lock_backlog().len();
        [
            Queue::with_room("mesh_facts", self.facts.max_capacity(), self.facts.capacity()),
            Queue::with_room("mesh_queries", self.queries.max_capacity(), self.queries.capacity()),
            Queue { name: "mesh_tokens", length: tokens, capacity: BACKLOG_MAX },
        ]
    }

    /// Checks a query with a payload of `length` bytes and reserves its place; a refusal is counted.
    pub(super) fn admit(&self, key: &str, length: usize) -> Result<Admission<'_>, Refusal> {
        self.admit_uncounted(key, length).inspect_err(|refusal| self.count(*refusal))
    }

    fn admit_uncounted(&self, key: &str, length: usize) -> Result<Admission<'_>, Refusal> {
        // `*` stands in every wildcard expression and in no name. An expression would reach more runtimes than its signer
        // named, so it is refused before anything else.
        if key.contains('*') {
            return Err(Refusal::WildcardQuery);
        }
        match self.space.parse(key) {
            Ok(Key::Rpc { target, verb, origin }) if target == self.own => {
                if PAYLOAD_BYTES_MAX < length {
                    return Err(Refusal::TooLarge);
                }
                let place = self.queries.try_reserve().map_err(|_full_or_closed| Refusal::Busy)?;
                Ok(Admission { verb, origin, place })
            }
            Ok(Key::Document { .. } | Key::Liveliness { .. } | Key::Rpc { .. }) | Err(_) => Err(Refusal::MalformedKey),
        }
    }

    /// Counts something refused.
    pub(super) fn count(&self, refusal: Refusal) {
        for (counted, counter) in Refusal::ALL.iter().zip(&self.refused) {
            if *counted == refusal {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What was refused so far.
    pub(super) fn refusals(&self) -> Refusals {
        let counters = self.refused.iter().map(|it| it.load(Ordering::Relaxed));
        Refusal::ALL.iter().map(|it| it.as_str()).zip(counters).collect()
    }

    /// Delivers token states that found the queue full, until the inbox is dropped.
    pub(super) async fn deliver_backlog(&self) {
        loop {
            self.backlog_grew.notified().await;
            while !self.lock_backlog().is_empty() {
                let Ok(place) = self.facts.reserve().await else {
                    return;
                };
                let mut backlog = self.lock_backlog();
                if let Some(((runtime, boot), alive)) = backlog.pop_first() {
                    place.send(token_fact(runtime, boot, alive));
                }
            }
        }
    }

    fn lock_backlog(&self) -> MutexGuard<'_, BTreeMap<(RuntimeId, u64), bool>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn waits(backlog: &BTreeMap<(RuntimeId, u64), bool>, runtime: &RuntimeId) -> bool {
    !backlog.is_empty() && backlog.range((runtime.clone(), 0)..=(runtime.clone(), u64::MAX)).next().is_some()
}

fn token_fact(runtime: RuntimeId, boot: u64, alive: bool) -> Fact {
    if alive { Fact::TokenAppeared { runtime, boot } } else { Fact::TokenGone { runtime, boot } }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::queue::tests::{Put, check};
    use crate::mesh::{Document, Responder};

    fn small(facts_max: usize) -> (Arc<Intake>, Inbox) {
        let space = Space::new("truST").expect("legal");
        let (intake, inbox) = Intake::with_queues(space, "s/own".parse().expect("legal"), 5, facts_max, 1);
        (Arc::new(intake), inbox)
    }

    fn counted(intake: &Intake, refusal: Refusal) -> u64 {
        intake.refusals().get(refusal.as_str()).copied().unwrap_or_default()
    }

    #[test]
    fn the_own_life_is_ignored_and_another_life_of_the_own_name_is_not() {
        let (intake, mut inbox) = small(4);
        intake.hear_token("truST/s/own/svc/liveliness/5", true);
        intake.hear_token("truST/s/own/svc/liveliness/6", true);
        let runtime: RuntimeId = "s/own".parse().expect("legal");
        assert_eq!(inbox.facts.try_recv().ok(), Some(Fact::TokenAppeared { runtime, boot: 6 }));
        assert!(inbox.facts.try_recv().is_err());
    }

    #[tokio::test]
    async fn the_final_state_of_every_token_arrives_through_a_full_queue() {
        let (intake, mut inbox) = small(2);
        for index in 0..50 {
            intake.hear_token(&format!("truST/s/r{index}/svc/liveliness/1"), true);
        }
        for index in 0..50 {
            intake.hear_token(&format!("truST/s/r{index}/svc/liveliness/1"), index % 2 == 0);
        }
        let mut latest = BTreeMap::new();
        let collect = async {
            while latest.values().filter(|alive| **alive).count() != 25 || latest.len() != 50 {
                match inbox.facts.recv().await {
                    Some(Fact::TokenAppeared { runtime, .. }) => latest.insert(runtime, true),
                    Some(Fact::TokenGone { runtime, .. }) => latest.insert(runtime, false),
                    other => panic!("unexpected {other:?}"),
                };
            }
        };
        tokio::select! {
            () = intake.deliver_backlog() => panic!("the inbox is open"),
            it = tokio::time::timeout(std::time::Duration::from_secs(5), collect) => it.expect("all states arrive"),
        }
        assert_eq!(counted(&intake, Refusal::Busy), 0);
    }

    #[test]
    fn a_document_that_finds_no_room_is_counted() {
        let (intake, mut inbox) = small(1);
        intake.hear_document("truST/s/a/diag/observation", 1, || vec![1]);
        intake.hear_document("truST/s/b/diag/observation", 1, || panic!("copied without room"));
        assert_eq!(counted(&intake, Refusal::Busy), 1);
        let runtime = "s/a".parse().expect("legal");
        let wanted = Fact::Published { runtime, document: Document::Observation, bytes: vec![1] };
        assert_eq!(inbox.facts.try_recv().ok(), Some(wanted));
    }

    #[test]
    fn payloads_are_taken_at_the_limit_and_refused_above_it() {
        let (intake, _inbox) = small(8);
        intake.hear_document("truST/s/a/diag/observation", PAYLOAD_BYTES_MAX, Vec::new);
        assert_eq!(counted(&intake, Refusal::TooLarge), 0);
        intake.hear_document("truST/s/a/diag/observation", PAYLOAD_BYTES_MAX + 1, Vec::new);
        let refused = intake.admit("truST/s/own/svc/rpc/act/s/a", PAYLOAD_BYTES_MAX + 1);
        assert_eq!(refused.err(), Some(Refusal::TooLarge));
        assert_eq!(counted(&intake, Refusal::TooLarge), 2);
        assert!(intake.admit("truST/s/own/svc/rpc/act/s/a", PAYLOAD_BYTES_MAX).is_ok());
    }

    /// As large as a node has them, and nobody takes anything.
    #[test]
    fn each_way_in_says_how_much_is_in_it_and_how_much_it_takes() {
        let space = Space::new("truST").expect("legal");
        let (intake, _inbox) = Intake::new(space, "s/own".parse().expect("legal"), 5);
        let is_taken = |hear: &dyn Fn()| {
            let before = counted(&intake, Refusal::Busy);
            hear();
            counted(&intake, Refusal::Busy) == before
        };
        let fact = || is_taken(&|| intake.hear_document("truST/s/a/diag/observation", 1, || vec![1]));
        let query = || {
            let admitted = intake.admit("truST/s/own/svc/rpc/act/s/a", 0);
            admitted.map(|it| it.enter(Vec::new(), Responder::channel().0)).is_ok()
        };
        // They wait for room among the facts.
        let mut lives = 0..;
        let mut token = || {
            let life = lives.next().unwrap_or(0);
            is_taken(&|| intake.hear_token(&format!("truST/s/r{life}/svc/liveliness/1"), true))
        };
        let puts: [(&str, Put<'_>); 3] =
            [("mesh_facts", Box::new(fact)), ("mesh_queries", Box::new(query)), ("mesh_tokens", Box::new(&mut token))];
        check(|| intake.queues().to_vec(), puts.into());
    }

    #[test]
    fn a_query_is_refused_by_reason() {
        let (intake, _inbox) = small(1);
        for (key, wanted) in [
            ("truST/s/*/svc/rpc/act/s/a", Refusal::WildcardQuery),
            ("truST/s/own/**", Refusal::WildcardQuery),
            ("truST/s/other/svc/rpc/act/s/a", Refusal::MalformedKey),
            ("truST/s/own/svc/rpc/erase/s/a", Refusal::MalformedKey),
            ("truST/s/own/_meta/identity", Refusal::MalformedKey),
        ] {
            assert_eq!(intake.admit(key, 0).err(), Some(wanted), "{key}");
        }
        intake.admit("truST/s/own/svc/rpc/act/s/a", 0).expect("room").enter(Vec::new(), Responder::channel().0);
        assert_eq!(intake.admit("truST/s/own/svc/rpc/act/s/a", 0).err(), Some(Refusal::Busy));
    }
}

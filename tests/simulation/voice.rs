//! What a node says by itself every period, and what it makes of packets that arrive.

use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::envelope::{self, Response, Ruling};
use trust_runtime::domain::projection::{Edge, Lifecycle};
use trust_runtime::domain::time::Now;
use trust_runtime::engine::exchange::Question;
use trust_runtime::engine::input::{Input, Received};
use trust_runtime::engine::view::View;
use trust_runtime::engine::word::{Echo, Identity, Observation, Word};
use trust_runtime::engine::{Entropy, audit_id, config_etag, judge};
use trust_runtime::wire::mesh::{self as wire, Probe, Refusal};

use crate::network::{Body, Packet, Ticket};
use crate::node::Live;
use crate::turn::Mail;
use crate::work::offer;
use crate::world::{Event, World, delegate};

/// Edges are repeated every so many observations for those who came later.
const EDGES_EVERY: u64 = 10;

/// How long a probe may take.
const PROBE_BUDGET: u64 = 1_000;

impl World {
    /// One round: identity on change, observation, probes.
    pub(crate) fn period(&mut self, node: usize) {
        let now = self.nodes[node].now(self.now);
        let epoch = self.nodes[node].epoch;
        let it = &mut self.nodes[node];
        let is_due = |live: &Live| live.keys.signer().delegation.is_to_be_renewed(now.wall);
        if let Some(mut live) = it.live.take_if(|live| is_due(live)) {
            live.keys = delegate(self.setup.profile, it, node, now.wall, &mut live.entropy);
            live.said = None;
            it.live = Some(live);
        }
        let Some(live) = it.live.as_mut() else { return };
        let identity = live.new_identity(now);
        let observation = live.observe(now);
        let (unknown, heard) = peers_to_ask(&live.view, now);
        let period = live.view.limits.period.0;
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != node).collect();
        let about = self.nodes[node].id.clone();
        for other in others {
            let word = |document, bytes| Body::Word { about: about.clone(), document, bytes };
            if let Some(bytes) = identity.clone() {
                self.post(node, other, word(PayloadType::Identity, bytes));
            }
            self.post(node, other, word(PayloadType::Observation, observation.clone()));
            let id = &self.nodes[other].id;
            if unknown.contains(id) {
                self.post(node, other, Body::FetchIdentity);
            }
            if heard.contains(&self.nodes[other].id) {
                self.probe(node, other);
            }
        }
        self.check_view(node);
        let jitter = self.chance.below(20);
        self.schedule(period + jitter, Event::Period { node, epoch });
    }

    fn probe(&mut self, node: usize, other: usize) {
        let epoch = self.nodes[node].epoch;
        let now = self.now;
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        let mut random = [0; 8];
        live.entropy.fill(&mut random);
        let nonce = format!("{:016x}", u64::from_be_bytes(random));
        live.probes.insert(nonce.clone(), (other, now));
        let bytes = Probe { nonce: nonce.clone() }.to_bytes();
        self.post(node, other, Body::Probe { bytes });
        self.schedule(PROBE_BUDGET, Event::ProbeOver { node, epoch, nonce });
    }

    pub(crate) fn probe_over(&mut self, node: usize, nonce: &str) {
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        if let Some((other, _)) = live.probes.remove(nonce) {
            let runtime = self.nodes[other].id.clone();
            self.tell(node, Input::ProbeLost { runtime });
        }
    }

    pub(crate) fn arrive(&mut self, packet: Packet) {
        let Packet { from, to, body } = packet;
        let now = self.nodes[to].now(self.now);
        self.log(format!("n{to} hears {} from n{from}", body.name()));
        let Some(live) = self.nodes[to].live.as_mut() else {
            if let Body::Query { ticket: Some(ticket), .. } = body
                && self.chance.happens(500)
            {
                self.schedule(5, Event::NoReply(ticket));
            }
            return;
        };
        match body {
            Body::Answer { ticket, answer } => self.take_answer(ticket, answer),
            Body::Echo { nonce, bytes } => self.take_echo(to, from, &nonce, &bytes),
            Body::FetchIdentity => {
                if let Some((_, bytes)) = live.said.clone() {
                    let about = self.nodes[to].id.clone();
                    self.post(to, from, Body::Word { about, document: PayloadType::Identity, bytes });
                }
            }
            Body::Head { claimed, bytes } => self.hear_head(to, from, &claimed, &bytes),
            Body::WitnessWord { head, bytes } => self.hear_word(to, from, head, &bytes),
            Body::Probe { bytes } => {
                if let Ok(probe) = Probe::parse(&bytes) {
                    let echo = wire::Echo { nonce: probe.nonce.clone(), boot: live.view.boot };
                    let sealed = wire::seal_echo(&live.keys, &echo);
                    self.post(to, from, Body::Echo { nonce: probe.nonce, bytes: sealed });
                }
            }
            Body::Query { question, claimed, bytes, ticket } => {
                match wire::open_envelope(&live.view, &claimed, &bytes, now.wall) {
                    Ok(received) => self.introduce(to, question, received, ticket),
                    Err(refusal) => self.refuse(to, refusal, ticket),
                }
            }
            Body::Token { about, boot, is_there: true } => {
                let is_new = live.view.peers.get(&about).is_none_or(|peer| peer.boot != boot);
                if is_new && about != self.nodes[to].id {
                    self.post(to, from, Body::FetchIdentity);
                }
                self.tell(to, Input::TokenAppeared { runtime: about, boot });
            }
            Body::Token { about, boot, is_there: false } => self.tell(to, Input::TokenGone { runtime: about, boot }),
            Body::Word { about, document, bytes } => {
                if let Ok((signer, word)) = wire::open_word(&live.view, &about, document, &bytes, now.wall) {
                    self.tell(to, Input::Word { signer, word });
                }
            }
        }
    }

    fn take_echo(&mut self, to: usize, from: usize, nonce: &str, bytes: &[u8]) {
        let now = self.nodes[to].now(self.now);
        let claimed = self.nodes[from].id.clone();
        let world_ms = self.now;
        let Some(live) = self.nodes[to].live.as_mut() else { return };
        let Some((asked, since)) = live.probes.remove(nonce) else { return };
        let input = match wire::open_echo(&live.view, &claimed, nonce, bytes, now.wall) {
            Ok((signer, echo)) if asked == from => {
                let round_trip_us = (world_ms - since) * 1_000;
                Input::Word { signer, word: Word::Echo(Echo { boot: echo.boot, round_trip_us }) }
            }
            Ok(_) | Err(_) => Input::ProbeLost { runtime: claimed },
        };
        self.tell(to, input);
    }

    fn refuse(&mut self, node: usize, refusal: Refusal, ticket: Option<Ticket>) {
        let code = match refusal {
            Refusal::BadSignature | Refusal::BadDelegation | Refusal::BadCertificate | Refusal::NotItsOwnWord => {
                Code::UntrustedIdentity
            }
            Refusal::Malformed | Refusal::TooLarge => Code::ContractViolation,
        };
        if let Some(ticket) = ticket {
            self.post(node, ticket.origin, Body::Answer { ticket, answer: Err(code.to_string()) });
        }
    }

    /// An unknown signer is introduced to the engine before its query counts.
    fn introduce(&mut self, node: usize, question: Question, received: Received, ticket: Option<Ticket>) {
        let Some(live) = self.nodes[node].live.as_ref() else { return };
        let known = live.view.peers.get(received.signer.runtime()).and_then(|peer| peer.signer.as_ref());
        if known.is_none_or(|signer| signer.delegation_hash != received.signer.delegation_hash) {
            let signer = Box::new(received.signer.clone());
            let boot = received.envelope.boot;
            self.mail(node, Mail::Met(signer, boot, question, Box::new(received), ticket));
        } else {
            self.take_query(node, question, received, ticket);
        }
    }

    pub(crate) fn take_query(&mut self, node: usize, question: Question, received: Received, ticket: Option<Ticket>) {
        match question {
            Question::Outcome => self.mail(node, Mail::AskOutcome(Box::new(received), ticket)),
            Question::Act if received.envelope.action.kind().is_read() => self.answer_read(node, &received, ticket),
            Question::Act => self.mail(node, Mail::Act(Box::new(received), ticket)),
        }
    }

    /// A read is judged and answered from the snapshot.
    fn answer_read(&mut self, node: usize, received: &Received, ticket: Option<Ticket>) {
        let now = self.nodes[node].now(self.now);
        let Some(live) = self.nodes[node].live.as_mut() else { return };
        let ruling = match judge::judge(&live.view, received, now.wall) {
            Ok(_rule) => Ruling::Done(Response::Status(Box::new(live.view.status(now)))),
            Err(denial) => Ruling::Refused(denial),
        };
        let receipt = envelope::Receipt {
            envelope: received.digest,
            target: live.view.me().clone(),
            origin: received.envelope.origin.clone(),
            request_id: received.envelope.request_id.clone(),
            ruling,
            audit_id: audit_id(now, &mut live.entropy),
            position: None,
            repeated: false,
            at: now.wall,
        };
        let sealed = wire::seal_receipt(&live.keys, &receipt);
        self.check_read(node, received, &receipt);
        if let Some(ticket) = ticket {
            self.post(node, ticket.origin, Body::Answer { ticket, answer: Ok(sealed) });
        }
    }
}

impl Live {
    /// The identity document, when something in it changed.
    fn new_identity(&mut self, now: Now) -> Option<Vec<u8>> {
        let view = &self.view;
        let mut identity = Identity {
            runtime: view.me().clone(),
            boot: view.boot,
            at: now.wall,
            api_version: "1.0".to_owned(),
            version: view.settings.version.clone(),
            capabilities: offer().capabilities(),
            host: None,
            web: None,
            is_secure: view.settings.is_secure,
            policy_hash: view.settings.policy_hash,
            config_revision: view.overlay.revision,
            config_etag: config_etag(&view.overlay),
        };
        if let Some((before, _)) = &self.said {
            // Only the moment differs: nothing new to say.
            identity.at = before.at;
            if *before == identity {
                return None;
            }
            identity.at = now.wall;
        }
        let bytes = wire::seal_identity(&self.keys, &identity);
        self.said = Some((identity, bytes.clone()));
        Some(bytes)
    }

    fn observe(&mut self, now: Now) -> Vec<u8> {
        let edges = self.view.own_edges();
        let is_due = self.observations.is_multiple_of(EDGES_EVERY) || differ(&self.said_edges, &edges);
        self.observations += 1;
        if is_due {
            self.said_edges.clone_from(&edges);
        }
        let observation = Observation {
            runtime: self.view.me().clone(),
            boot: self.view.boot,
            sequence: self.observations,
            at: now.wall,
            health: self.view.health(),
            config_revision: self.view.overlay.revision,
            runs_head: None,
            edges: is_due.then_some(edges),
            is_leaving: false,
        };
        wire::seal_observation(&self.keys, &observation)
    }
}

/// Peers that spoke but never showed their identity, and peers to probe.
fn peers_to_ask(
    view: &View,
    now: Now,
) -> (Vec<trust_runtime::domain::id::RuntimeId>, Vec<trust_runtime::domain::id::RuntimeId>) {
    let (mut unknown, mut heard) = (Vec::new(), Vec::new());
    for (runtime, peer) in view.peers.iter().filter(|(_, peer)| peer.signer.is_some()) {
        let lifecycle = peer.presence.lifecycle(&view.limits, now.monotonic);
        if !peer.presence.left {
            heard.push(runtime.clone());
        }
        if lifecycle == Lifecycle::Online && peer.identity.is_none() {
            unknown.push(runtime.clone());
        }
    }
    (unknown, heard)
}

fn differ(before: &[Edge], now: &[Edge]) -> bool {
    let is_same = |(one, other): (&Edge, &Edge)| one.target == other.target && one.state == other.state;
    before.len() != now.len() || !before.iter().zip(now).all(is_same)
}

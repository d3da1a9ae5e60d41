//! The network between the nodes: it delays, loses, repeats, reorders, bends and cuts, all from the seed.

use std::collections::BTreeSet;

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::engine::exchange::Question;

use crate::chance::Chance;

/// No packet is under way for longer.
pub(crate) const DELAY_MAX: u64 = 3_000;
/// A token of a runtime behind a cut disappears after so long.
pub(crate) const LEASE: u64 = 3_000;
/// Packets that the attacker keeps to send again.
const CAPTURED_MAX: usize = 48;

/// Where an answer goes: which attempt of which part of which dispatch, in which life of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub(crate) origin: usize,
    pub(crate) epoch: u64,
    pub(crate) dispatch: u64,
    pub(crate) part: usize,
    pub(crate) attempt: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// A receipt's bytes, or the refusal's text.
    Answer {
        ticket: Ticket,
        answer: Result<Vec<u8>, String>,
    },
    Echo {
        nonce: String,
        bytes: Vec<u8>,
    },
    FetchIdentity,
    Probe {
        bytes: Vec<u8>,
    },
    /// Without a ticket nobody waits for the answer: the attacker sends these.
    Query {
        question: Question,
        claimed: RuntimeId,
        bytes: Vec<u8>,
        ticket: Option<Ticket>,
    },
    Token {
        about: RuntimeId,
        boot: u64,
        is_there: bool,
    },
    /// The head of a log, for a witness.
    Head {
        claimed: RuntimeId,
        bytes: Vec<u8>,
    },
    /// What the witness says of it.
    WitnessWord {
        head: Hash,
        bytes: Vec<u8>,
    },
    Word {
        about: RuntimeId,
        document: PayloadType,
        bytes: Vec<u8>,
    },
}

impl Body {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Answer { answer: Ok(_), .. } => "answer",
            Self::Answer { answer: Err(_), .. } => "refusal",
            Self::Echo { .. } => "echo",
            Self::FetchIdentity => "fetch",
            Self::Probe { .. } => "probe",
            Self::Query { question: Question::Act, .. } => "act",
            Self::Query { question: Question::Outcome, .. } => "ask-outcome",
            Self::Token { is_there: true, .. } => "token",
            Self::Token { is_there: false, .. } => "token-gone",
            Self::Word { document: PayloadType::Identity, .. } => "identity",
            Self::Word { .. } => "observation",
            Self::Head { .. } => "head",
            Self::WitnessWord { .. } => "witness-word",
        }
    }

    fn bytes_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Answer { answer: Ok(bytes), .. }
            | Self::Echo { bytes, .. }
            | Self::Head { bytes, .. }
            | Self::Probe { bytes }
            | Self::Query { bytes, .. }
            | Self::WitnessWord { bytes, .. }
            | Self::Word { bytes, .. } => Some(bytes),
            Self::Answer { answer: Err(_), .. } | Self::FetchIdentity | Self::Token { .. } => None,
        }
    }
}

/// How bad the network is, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) bent: u64,
    /// Takes up to [`DELAY_MAX`], which is what reorders.
    pub(crate) slow: u64,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    pub(crate) captured: Vec<Packet>,
    pub(crate) chance: Chance,
}

impl Network {
    pub(crate) fn new(chance: Chance) -> Self {
        Self { weather: Weather::default(), cuts: BTreeSet::new(), captured: Vec::new(), chance }
    }

    pub(crate) fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cuts.contains(&(one.min(other), one.max(other)))
    }

    /// When each copy of the packet arrives, from now on. Empty when it is lost.
    pub(crate) fn carry(&mut self, packet: &mut Packet) -> Vec<u64> {
        let Weather { lost, repeated, bent, slow } = self.weather;
        if matches!(packet.body, Body::Token { .. }) {
            // Tokens are the mesh's own bookkeeping: slow at times, but neither lost nor bent.
            return vec![self.chance.between(1, 60)];
        }
        if self.chance.happens(lost) {
            return Vec::new();
        }
        self.capture(packet);
        if self.chance.happens(bent) {
            self.bend(packet);
        }
        let copies = if self.chance.happens(repeated) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                if self.chance.happens(slow) { self.chance.between(50, DELAY_MAX) } else { self.chance.between(1, 20) }
            })
            .collect()
    }

    fn bend(&mut self, packet: &mut Packet) {
        let Some(bytes) = packet.body.bytes_mut() else { return };
        let at = self.chance.index(bytes.len());
        let bit = self.chance.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn capture(&mut self, packet: &Packet) {
        if matches!(packet.body, Body::Probe { .. } | Body::FetchIdentity) {
            return;
        }
        if self.captured.len() < CAPTURED_MAX {
            self.captured.push(packet.clone());
        } else if self.chance.happens(300) {
            let place = self.chance.index(CAPTURED_MAX);
            self.captured[place] = packet.clone();
        }
    }
}

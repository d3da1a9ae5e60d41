//! One action for exactly one target, as it travels between runtimes, and the target's answer to it.
//!
//! These are the typed contents. `dsse` signs bytes, `wire::mesh` turns contents into bytes and back, and `engine` decides.

pub mod dsse;

use sha2::{Digest, Sha256};

use self::dsse::PublicKey;
use crate::domain::action::Action;
use crate::domain::audit::{AuditId, Hash, Position};
use crate::domain::code::Code;
use crate::domain::id::{RequestId, RuntimeId, Segment};
use crate::domain::identity::{Actor, Fingerprint, Role};
use crate::domain::policy::Denial;
use crate::domain::run::RunId;
use crate::domain::time::{Millis, Wall};

/// How far two clocks may differ (DESIGN, *An action across the mesh*).
pub const SKEW: Millis = Millis::from_secs(30);

/// How long a key that another one has followed is still taken, as an audience and as the key behind an envelope under way:
/// the longest window and the skew.
pub const KEY_ROLLOVER: Millis = Millis::from_secs(150);

/// Separates the request digest from every other use of SHA-256.
const DIGEST_CONTEXT: &[u8] = b"trust-runtime request v1\0";

/// What signs a delegation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voucher {
    /// The key of a certificate that comes with the delegation; its SHA-256.
    Certificate(Fingerprint),
    /// The runtime's own long-lived Ed25519 key, in profile `dev`.
    Key([u8; 32]),
}

impl Voucher {
    /// Names the key.
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Certificate(key) => *key,
            Self::Key(key) => Fingerprint(Sha256::digest(key).into()),
        }
    }
}

/// Why a runtime's envelope key may speak for it: signed by the runtime's identity key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// For whom it speaks.
    pub runtime: RuntimeId,
    /// The long-lived key that signed this delegation.
    pub voucher: Voucher,
    /// The short-lived key that signs envelopes, receipts and documents.
    pub envelope_key: PublicKey,
    /// Not before this moment.
    pub not_before: Wall,
    /// Not at or after this moment.
    pub not_after: Wall,
}

impl Delegation {
    /// Whether the delegation holds at this moment, give or take the permitted skew.
    pub fn holds_at(&self, now: Wall) -> bool {
        self.not_before.minus(SKEW) <= now && now < self.not_after.plus(SKEW)
    }

    /// Whether its owner has to make a new one by now: half its life is over, or it has not begun, because the clock by which
    /// it was made has gone back since. No skew is granted here: it belongs to those whose clocks differ from the owner's.
    pub fn is_to_be_renewed(&self, now: Wall) -> bool {
        let half = self.not_after.0.saturating_sub(self.not_before.0).wrapping_div(2);
        now < self.not_before || self.not_before.0.saturating_add(half) <= now.0
    }
}

/// What the origin signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The only runtime that may act on it.
    pub target: RuntimeId,
    /// The identity key that the origin believes the target to have.
    pub target_key: Fingerprint,
    /// In a write: the target's boot counter as the origin has heard it. A target carries out no write for another life of its
    /// own, because it may have refused it there and has forgotten that. Absent in a read.
    pub target_boot: Option<u64>,
    /// Who signed and sends.
    pub origin: RuntimeId,
    /// Who asks.
    pub actor: Actor,
    /// The role that the origin's credential check gave.
    pub role: Role,
    /// Whether a credential vouched for the actor.
    pub actor_verified: bool,
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// What to do.
    pub action: Action,
    /// When it was signed.
    pub issued: Wall,
    /// Until when it may be acted on.
    pub expires: Wall,
    /// The origin's boot counter.
    pub boot: u64,
    /// Counts the origin's envelopes within this boot.
    pub sequence: u64,
    /// The origin's policy.
    pub policy_hash: Hash,
}

impl Envelope {
    /// What identifies the content of a request whoever sends it again: SHA-256 of actor, action, target, parameters.
    pub fn digest(&self) -> Hash {
        request_digest(&self.actor, &self.action, &self.target)
    }

    /// Whether it may be acted on at this moment; the reason if not.
    pub fn check_window(&self, now: Wall) -> Result<(), Denial> {
        let longest = self.action.kind().window();
        let refuse = |reason: String| Err(Denial::at_target(Code::EnvelopeExpired, "window", reason));
        if self.expires < self.issued || self.issued.plus(longest) < self.expires {
            return refuse(format!("wanted a window of at most {} ms", longest.0));
        }
        if now.plus(SKEW) < self.issued {
            return refuse(format!("issued {} ms ahead of this runtime's clock", ahead(self.issued, now)));
        }
        if self.expires.plus(SKEW) < now {
            return refuse(format!("expired {} ms ago by this runtime's clock", ahead(now, self.expires)));
        }
        Ok(())
    }
}

fn ahead(later: Wall, earlier: Wall) -> u64 {
    later.as_millis().saturating_sub(earlier.as_millis())
}

/// The digest of a request's content. Every field is preceded by its length, so that no two requests share bytes.
pub fn request_digest(actor: &Actor, action: &Action, target: &RuntimeId) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(DIGEST_CONTEXT);
    let mut field = |text: &str| {
        hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(text.as_bytes());
    };
    field(&actor.to_string());
    field(action.kind().as_str());
    field(&target.to_string());
    match action {
        Action::CfgApply(values) => values.iter().for_each(|(key, value)| {
            field(key);
            field(&value.to_string());
        }),
        Action::CmdInvoke(invocation) => {
            field(invocation.command.as_str());
            invocation.params.iter().for_each(|(name, value)| {
                field(name);
                field(value);
            });
        }
        Action::StatusRead => {}
    }
    Hash(hasher.finalize().into())
}

/// What a target did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It acted.
    Done(Response),
    /// It refused, and nothing changed.
    Refused(Denial),
}

/// What an action brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The settings hold now.
    Applied {
        /// The configuration's revision after the application.
        revision: u64,
        /// The keys that were asked for.
        keys: Vec<String>,
    },
    /// The run is told to end.
    Cancelling {
        /// Which.
        run: RunId,
    },
    /// The workload is told; what becomes of it, state and audit log say.
    Commanded {
        /// What it is told.
        command: Segment,
    },
    /// `ping` was heard.
    Pong,
    /// A run has begun.
    Started {
        /// Its name, by which it is found from any runtime.
        run: RunId,
    },
    /// The target's status.
    Status(Box<Status>),
}

impl Response {
    /// The run that was started, if one was.
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Started { run } => Some(*run),
            Self::Applied { .. } | Self::Cancelling { .. } | Self::Commanded { .. } | Self::Pong | Self::Status(_) => {
                None
            }
        }
    }
}

/// A runtime's status as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whose.
    pub runtime: RuntimeId,
    /// The program's version.
    pub version: String,
    /// The boot counter.
    pub boot: u64,
    /// How long it has been up.
    pub uptime: Millis,
    /// Its own judgement.
    pub health: Health,
    /// The configuration's revision.
    pub config_revision: u64,
    /// How many peers it sees online.
    pub peers_online: u64,
}

/// Judgement about a thing that is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Works in part.
    Degraded,
    /// Does not work.
    Faulted,
    /// Works.
    Healthy,
}

impl Health {
    /// Every judgement.
    pub const ALL: [Self; 3] = [Self::Degraded, Self::Faulted, Self::Healthy];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Faulted => "faulted",
            Self::Healthy => "healthy",
        }
    }
}

/// What the target signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// SHA-256 of the envelope's payload bytes, so that nobody in between can swap questions.
    pub envelope: Hash,
    /// Who answers.
    pub target: RuntimeId,
    /// Whom it answers.
    pub origin: RuntimeId,
    /// The request.
    pub request_id: RequestId,
    /// What became of it.
    pub ruling: Ruling,
    /// The record at the target.
    pub audit_id: AuditId,
    /// The record's place in the target's chain of writes; absent for a read.
    pub position: Option<Position>,
    /// Whether this repeats an earlier answer.
    pub repeated: bool,
    /// When the target decided.
    pub at: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall::from_millis(1_000_000_000);

    fn envelope(issued: Wall, expires: Wall) -> Envelope {
        Envelope {
            target: "s/b".parse().expect("legal"),
            target_key: Fingerprint([1; 32]),
            target_boot: Some(1),
            origin: "s/a".parse().expect("legal"),
            actor: "spiffe://trust/s/alice".parse().expect("legal"),
            role: Role::Engineer,
            actor_verified: true,
            request_id: "r".parse().expect("legal"),
            action: Action::ping(),
            issued,
            expires,
            boot: 1,
            sequence: 1,
            policy_hash: Hash([2; 32]),
        }
    }

    #[test]
    fn a_run_is_named_by_the_answer_that_it_has_begun_and_by_no_other() {
        let run = RunId::new(NOW, [1; 10]);
        let answers = [Response::Started { run }, Response::Cancelling { run }, Response::Pong];
        assert_eq!(answers.map(|answer| answer.run()), [Some(run), None, None]);
    }

    #[test]
    fn a_window_may_be_as_short_as_nothing_and_as_long_as_its_action_asks() {
        let longest = Action::ping().kind().window();
        for (expires, is_taken) in [
            (NOW, true),
            (NOW.minus(Millis(1)), false),
            (NOW.plus(longest), true),
            (NOW.plus(longest).plus(Millis(1)), false),
        ] {
            assert_eq!(envelope(NOW, expires).check_window(NOW).is_ok(), is_taken, "{expires}");
        }
    }

    #[test]
    fn a_refusal_says_by_how_much_the_clocks_differ() {
        let reason = |it: &Envelope, now| it.check_window(now).expect_err("refused").reason.to_string();
        let early = reason(&envelope(NOW.plus(Millis(31_000)), NOW.plus(Millis(32_000))), NOW);
        assert_eq!(early, "issued 31000 ms ahead of this runtime's clock");
        let late = reason(&envelope(NOW, NOW.plus(Millis(1_000))), NOW.plus(Millis(31_001)));
        assert_eq!(late, "expired 30001 ms ago by this runtime's clock");
    }

    #[test]
    fn a_delegation_is_renewed_from_half_its_life_and_before_its_beginning() {
        let delegation = Delegation {
            runtime: "s/a".parse().expect("legal"),
            voucher: Voucher::Certificate(Fingerprint([1; 32])),
            envelope_key: PublicKey::new([0; 32]),
            not_before: NOW,
            not_after: NOW.plus(Millis(20)),
        };
        for (now, is_due) in
            [(NOW.minus(Millis(1)), true), (NOW, false), (NOW.plus(Millis(9)), false), (NOW.plus(Millis(10)), true)]
        {
            assert_eq!(delegation.is_to_be_renewed(now), is_due, "{now}");
        }
    }
}

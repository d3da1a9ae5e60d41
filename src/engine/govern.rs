//! What an admin of this node decides: which peers are trusted, and that the clock is right.

use crate::domain::audit::{Draft, Outcome};
use crate::domain::code::Code;
use crate::domain::id::RuntimeId;
use crate::domain::identity::{Fingerprint, SpiffeId, TrustState};
use crate::domain::preflight::Asker;
use crate::domain::time::Now;
use crate::engine::effect::{Answer, Effects};
use crate::engine::observe::peer_record;
use crate::engine::record::Record;
use crate::engine::view::Settings;
use crate::engine::{Engine, Entropy, audit_id};

impl Engine {
    pub(super) fn approve(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        asker: &Asker,
        runtime: &RuntimeId,
        fingerprint: Option<Fingerprint>,
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        let Some(peer) = self.peer_mut(runtime) else {
            return refused(Code::PeerNotAvailable, format!("{runtime} has never been heard of"));
        };
        if fingerprint.is_some_and(|compared| compared != peer.pinned) {
            let pinned = peer.pinned;
            return refused(Code::UntrustedIdentity, format!("{runtime} has the key {pinned}, not the one given"));
        }
        peer.trust = TrustState::Trusted;
        let record = peer_record(runtime, peer);
        effects.persist(record);
        self.change();
        self.record_about(now, entropy, asker, "peers_approve", runtime, effects)
    }

    pub(super) fn forget(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        asker: &Asker,
        runtime: &RuntimeId,
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        if !self.peers.remove_mut(runtime) {
            return refused(Code::PeerNotAvailable, format!("{runtime} has never been heard of"));
        }
        effects.persist(Record::PeerForgotten { runtime: runtime.clone() });
        self.forget_witnessing(runtime, effects);
        self.change();
        self.record_about(now, entropy, asker, "peers_forget", runtime, effects)
    }

    pub(super) fn reset_time(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        asker: &Asker,
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        self.clock.reset(now);
        effects.persist(Record::ClockMark { wall: now.wall });
        if now.wall < self.dropped_until {
            // Given by a clock that ran ahead. What a person says is now is the latest that anything can have been asked;
            // left as it is, every write would be refused until that future has come.
            self.dropped_until = now.wall;
            effects.persist(Record::DroppedUntil { wall: now.wall });
        }
        self.change();
        self.record(now, entropy, asker, "time_reset", effects)
    }

    /// Puts a local control action on record.
    pub(super) fn record(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        asker: &Asker,
        action: &str,
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        let me = self.me().clone();
        self.record_about(now, entropy, asker, action, &me, effects)
    }

    /// A runtime had its certificate prolonged by the authority that this runtime holds.
    pub(super) fn record_renewal(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        runtime: &RuntimeId,
        detail: String,
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        effects.audit(renewal_draft(now, entropy, &self.settings, runtime, Outcome::Applied, detail));
        Answer::Recorded
    }

    fn record_about(
        &self,
        now: Now,
        entropy: &mut dyn Entropy,
        asker: &Asker,
        action: &str,
        runtime: &RuntimeId,
        effects: &mut Effects,
    ) -> Answer {
        let mut draft = self.draft(now, entropy, asker, action, Outcome::Applied);
        draft.target = runtime.clone();
        effects.audit(draft);
        Answer::Recorded
    }

    pub(super) fn refuse_read_only(&self) -> Option<Answer> {
        self.is_read_only.then(|| refused(Code::StorageUnavailable, "this runtime's store takes no writes".to_owned()))
    }
}

/// What is put on record of a renewal, or of one that was refused.
pub fn renewal_draft(
    now: Now,
    entropy: &mut dyn Entropy,
    settings: &Settings,
    runtime: &RuntimeId,
    outcome: Outcome,
    detail: String,
) -> Draft {
    Draft {
        audit_id: audit_id(now, entropy),
        at: now.wall,
        actor: SpiffeId::of_runtime(&settings.trust_domain, runtime).to_string(),
        actor_verified: true,
        origin: runtime.clone(),
        action: "identity_renew".to_owned(),
        target: runtime.clone(),
        request_id: None,
        outcome,
        code: (outcome == Outcome::Denied).then_some(Code::PermissionDenied),
        detail,
        policy_hash: settings.policy_hash,
    }
}

fn refused(code: Code, reason: String) -> Answer {
    Answer::Refused { code, reason }
}

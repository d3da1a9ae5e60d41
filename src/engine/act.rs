//! Writes that arrive: judged, carried out once, answered with a receipt.
//!
//! Acceptance, effect and receipt are one transaction. A repeated request gets the stored receipt; the same id with another
//! content is a conflict. Refusals change nothing and cost no disk write; a signed one stands for every copy of its envelope.

use std::sync::Arc;

use crate::domain::action::{self, Action};
use crate::domain::audit::{AuditId, Draft, Hash, Outcome};
use crate::domain::code::Code;
use crate::domain::config::Value;
use crate::domain::envelope::{self, Envelope, Response, Ruling, SKEW};
use crate::domain::id::RuntimeId;
use crate::domain::policy::Denial;
use crate::domain::time::{Millis, Now, Wall};
use crate::engine::effect::{Effect, Effects, Waiter};
use crate::engine::input::{QueryId, Received};
use crate::engine::record::{Receipt, Record, RequestKey};
use crate::engine::view::{Category, ClockState, Severity};
use crate::engine::{Engine, Entropy, Happening, audit_id, judge};

/// A receipt is never dropped before no envelope for its request can be valid any more.
const RECEIPT_KEPT_MIN: Millis = Millis(120_000 + 2 * SKEW.0);

/// Most receipts dropped in one turn, so that a long sleep does not end in one long transaction.
const DROPPED_PER_TURN_MAX: usize = 64;

/// What is known of a request before it is judged.
enum Memory {
    New,
    Same(Box<Receipt>),
    Other,
}

impl Engine {
    pub(super) fn act(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        query: QueryId,
        received: &Received,
        effects: &mut Effects,
    ) {
        let envelope = &received.envelope;
        let view = self.view();
        let key = RequestKey { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() };
        let memory = self.remember(&key, envelope.digest());
        if let Memory::Same(receipt) = memory {
            // Asked before window, trust and policy: a refusal would claim that it was not carried out.
            match judge::identify(&view, received, now.wall) {
                Ok(()) => {
                    self.count_refused("repeated_request");
                    self.answer(query, received, *receipt, true, effects);
                }
                // A signed refusal would say that it was not carried out, and whoever asks may not be told that it was.
                Err(denial) => {
                    self.count_refused(denial.code.as_str());
                    effects.then(Effect::Refuse { query, code: denial.code });
                }
            }
            return;
        }
        let outcome = match self.refusals.get(&received.digest) {
            // Its origin has told its caller so, whatever holds by now.
            Some(denial) => Err(denial.clone()),
            None => self.decide(now, entropy, received, matches!(memory, Memory::Other), effects),
        };
        match outcome {
            Ok(receipt) => self.answer(query, received, receipt, false, effects),
            Err(denial) => self.refuse_act(now, entropy, query, received, denial, effects),
        }
    }

    /// Judges a write that was not carried out yet, and carries it out if it may be.
    fn decide(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        received: &Received,
        is_reused: bool,
        effects: &mut Effects,
    ) -> Result<Receipt, Denial> {
        let envelope = &received.envelope;
        judge::judge(&self.view(), received, now.wall)?;
        if is_reused {
            let reason = "this request id was used for another request";
            return Err(Denial::at_target(Code::Conflict, "request_id", reason));
        }
        if envelope.issued <= self.dropped_until.plus(SKEW) {
            let reason = "it is older than a receipt that was dropped, so it may have been carried out before";
            return Err(Denial::at_target(Code::Replayed, "receipts", reason));
        }
        self.carry_out(now, entropy, envelope, effects)
    }

    /// Remembers that this envelope was refused. Gives whether there was room.
    fn note_refusal(&mut self, received: &Received, denial: &Denial, now: Now) -> bool {
        let is_known = judge::identify(&self.view(), received, now.wall).is_ok();
        let account = is_known.then_some(&received.envelope.origin);
        let over = received.envelope.expires.plus(SKEW);
        let mut is_kept = self.refusals.keep(account, received.digest, denial, over);
        // By a clock that is not believed no window is over.
        if !is_kept && self.clock.state() == ClockState::Certain {
            self.refusals.forget_over(now.wall);
            is_kept = self.refusals.keep(account, received.digest, denial, over);
        }
        is_kept
    }

    /// Says what became of a write, and changes nothing: a request never seen stays unseen.
    pub(super) fn tell_outcome(&mut self, now: Now, query: QueryId, received: &Received, effects: &mut Effects) {
        let envelope = &received.envelope;
        let is_from_origin = judge::identify(&self.view(), received, now.wall).is_ok();
        let key = RequestKey { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() };
        match self.remember(&key, envelope.digest()) {
            Memory::Same(receipt) if is_from_origin => self.answer(query, received, *receipt, true, effects),
            Memory::Same(_) | Memory::New | Memory::Other => {
                effects.then(Effect::Refuse { query, code: Code::PeerNotAvailable });
            }
        }
    }

    fn remember(&self, key: &RequestKey, digest: Hash) -> Memory {
        match self.receipts.get(key) {
            None => Memory::New,
            Some(receipt) if receipt.digest == digest => Memory::Same(Box::new(receipt.clone())),
            Some(_) => Memory::Other,
        }
    }

    /// Carries out a write that was allowed, and remembers it. All records go into the same transaction.
    pub(super) fn carry_out(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        envelope: &Envelope,
        effects: &mut Effects,
    ) -> Result<Receipt, Denial> {
        if self.is_read_only {
            return Err(Denial::at_target(Code::StorageUnavailable, "store", "the target's store takes no writes"));
        }
        self.make_room(now, &envelope.origin, effects)?;
        let response = match &envelope.action {
            Action::CfgApply(values) => self.apply_config(now, envelope, values, effects)?,
            Action::CmdInvoke(invocation) => self.invoke(now, entropy, (envelope, invocation), effects)?,
            Action::StatusRead => {
                return Err(Denial::at_target(Code::ContractViolation, "kind", "a read is not carried out as a write"));
            }
        };
        let audit_id = self.audit_act(now, entropy, envelope, Ok(()), effects);
        let receipt = Receipt {
            key: RequestKey { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() },
            origin: envelope.origin.clone(),
            digest: envelope.digest(),
            at: now.wall,
            audit_id,
            response,
        };
        self.receipts.keep(receipt.clone());
        effects.persist(Record::Receipt(receipt.clone()));
        Ok(receipt)
    }

    fn apply_config(
        &mut self,
        now: Now,
        envelope: &Envelope,
        values: &std::collections::BTreeMap<String, Value>,
        effects: &mut Effects,
    ) -> Result<Response, Denial> {
        let (overlay, differs) = self.overlay.with(values, &self.settings.file_values);
        let before = std::mem::replace(&mut self.overlay, Arc::new(overlay));
        self.apply_overlay();
        if !self.limits.is_ordered() {
            let limits = self.limits;
            self.overlay = before;
            self.apply_overlay();
            let reason = format!(
                "mesh.timing: wanted 2 x period_ms <= stale_ms < partition_ms, got {}, {}, {}",
                limits.period.0, limits.stale.0, limits.partition.0
            );
            return Err(Denial::at_target(Code::SchemaMismatch, "schema", reason));
        }
        let keys: Vec<String> = values.keys().cloned().collect();
        if differs {
            effects.persist(Record::Overlay((*self.overlay).clone()));
            effects.then(Effect::Apply { values: values.clone() });
            let summary = format!("{} set {}", envelope.actor, keys.join(", "));
            self.tell_request(now, Category::Config, envelope, summary);
        }
        Ok(Response::Applied { revision: self.overlay.revision, keys })
    }

    pub(super) fn tell_request(&mut self, now: Now, category: Category, envelope: &Envelope, summary: String) {
        let runtime = self.me().clone();
        let request_id = Some(envelope.request_id.clone());
        self.tell(now, Happening { category, runtime, request_id, summary, severity: Severity::Info });
    }

    fn refuse_act(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        query: QueryId,
        received: &Received,
        denial: Denial,
        effects: &mut Effects,
    ) {
        self.count_refused(denial.code.as_str());
        let envelope = &received.envelope;
        let draft = act_draft(now, entropy, self.settings.policy_hash, envelope, Err(&denial));
        // A signed refusal says that the write was not and will not be carried out.
        if self.has_forgotten || self.is_doubted(envelope) || !self.note_refusal(received, &denial, now) {
            effects.then(Effect::AuditLightly { drafts: vec![draft], waiter: Waiter::Query(query) });
            effects.then(Effect::Refuse { query, code: denial.code });
            return;
        }
        let receipt = envelope::Receipt {
            envelope: received.digest,
            target: self.me().clone(),
            origin: received.signer.runtime().clone(),
            request_id: envelope.request_id.clone(),
            ruling: Ruling::Refused(self.told_to(&envelope.origin, denial)),
            audit_id: draft.audit_id,
            position: None,
            repeated: false,
            at: now.wall,
        };
        effects.then(Effect::AuditLightly { drafts: vec![draft], waiter: Waiter::Query(query) });
        effects.then(Effect::Answer { query, receipt: Box::new(receipt) });
    }

    fn is_doubted(&self, envelope: &Envelope) -> bool {
        let is_it = |key: &RequestKey| key.actor == envelope.actor && key.request_id == envelope.request_id;
        self.doubted.keys().any(is_it)
    }

    fn told_to(&self, origin: &RuntimeId, denial: Denial) -> Denial {
        if origin.site == self.me().site { denial } else { denial.for_another_site() }
    }

    fn audit_act(
        &self,
        now: Now,
        entropy: &mut dyn Entropy,
        envelope: &Envelope,
        result: Result<(), &Denial>,
        effects: &mut Effects,
    ) -> AuditId {
        let draft = act_draft(now, entropy, self.settings.policy_hash, envelope, result);
        let audit_id = draft.audit_id;
        effects.audit(draft);
        audit_id
    }

    fn answer(&self, query: QueryId, received: &Received, kept: Receipt, repeated: bool, effects: &mut Effects) {
        let receipt = envelope::Receipt {
            envelope: received.digest,
            target: self.me().clone(),
            origin: received.signer.runtime().clone(),
            request_id: kept.key.request_id,
            ruling: Ruling::Done(kept.response),
            audit_id: kept.audit_id,
            position: None,
            repeated,
            at: kept.at,
        };
        effects.then(Effect::Answer { query, receipt: Box::new(receipt) });
    }

    /// Makes room for one more receipt of this origin, or refuses: a live receipt is never evicted, and no origin's receipts
    /// make room for another's.
    fn make_room(&mut self, now: Now, origin: &RuntimeId, effects: &mut Effects) -> Result<(), Denial> {
        if self.receipts.is_full() {
            let over = self.old_receipts(now);
            self.drop_receipts(over, effects);
        }
        if let Some((at, key)) = self.receipts.oldest_of_full(origin).cloned() {
            if self.clock.state() == ClockState::Uncertain || now.wall < at.plus(RECEIPT_KEPT_MIN) {
                return Err(table_full(format!("for {origin}")));
            }
            self.drop_receipts(vec![key], effects);
        }
        if self.receipts.is_full() { Err(table_full("of all origins".to_owned())) } else { Ok(()) }
    }

    /// Forgets receipts, and in the same transaction until when requests may have been carried out that are not known any
    /// more: a restart must not make them new again.
    fn drop_receipts(&mut self, keys: Vec<RequestKey>, effects: &mut Effects) {
        let before = self.dropped_until;
        for key in keys {
            let Some(at) = self.receipts.remove(&key) else { continue };
            self.dropped_until = self.dropped_until.max(at);
            effects.persist(Record::ReceiptDropped(key));
        }
        if before < self.dropped_until {
            effects.persist(Record::DroppedUntil { wall: self.dropped_until });
        }
    }

    /// Drops receipts whose time is over, some at each write, so that the disk is not touched for this alone.
    pub(super) fn drop_old_receipts(&mut self, now: Now, effects: &mut Effects) {
        if !effects.batch.is_empty() && !self.is_read_only {
            let over = self.old_receipts(now);
            self.drop_receipts(over, effects);
        }
    }

    /// Receipts whose time is over, as many as one turn may drop.
    fn old_receipts(&self, now: Now) -> Vec<RequestKey> {
        // By a clock that is not believed no receipt is old: once it is right again, its request would run a second time.
        if self.clock.state() == ClockState::Uncertain {
            return Vec::new();
        }
        let kept = self.receipts_kept.max(RECEIPT_KEPT_MIN);
        // Nothing is old while the clock has run for less than that.
        let Some(until) = now.wall.0.checked_sub(kept.as_nanos()) else { return Vec::new() };
        self.receipts.given_until(Wall(until), DROPPED_PER_TURN_MAX)
    }
}

fn table_full(whose: String) -> Denial {
    let reason = format!("the table of receipts {whose} is full of requests that may still be repeated");
    Denial::at_target(Code::ServerBusy, "receipts", reason)
}

/// The target's record of an envelope.
pub fn act_draft(
    now: Now,
    entropy: &mut dyn Entropy,
    policy_hash: Hash,
    envelope: &Envelope,
    result: Result<(), &Denial>,
) -> Draft {
    Draft {
        audit_id: audit_id(now, entropy),
        at: now.wall,
        actor: envelope.actor.to_string(),
        actor_verified: envelope.actor_verified,
        origin: envelope.origin.clone(),
        action: action::name(&envelope.action),
        target: envelope.target.clone(),
        request_id: Some(envelope.request_id.clone()),
        outcome: if result.is_ok() { Outcome::Applied } else { Outcome::Denied },
        code: result.err().map(|denial| denial.code),
        detail: result.err().map(|denial| denial.reason.to_string()).unwrap_or_default(),
        policy_hash,
    }
}

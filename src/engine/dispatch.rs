//! Writes that leave: decided again, put on record as intended, sent only when that is durable, and concluded.

use crate::domain::action;
use crate::domain::audit::{Draft, Outcome};
use crate::domain::code::Code;
use crate::domain::envelope::{Envelope, Ruling};
use crate::domain::id::RuntimeId;
use crate::domain::policy::{Decision, Denial, Reason};
use crate::domain::preflight::{Plan, Profile, Row};
use crate::domain::time::Now;
use crate::engine::effect::{Answer, Effect, Effects, Started, Waiter};
use crate::engine::input::{Conclusion, ReplyId, Write};
use crate::engine::record::{Intent, IntentKey, Record, RequestKey};
use crate::engine::view::{Basis, ClockState};
use crate::engine::{Engine, Entropy};

/// Most outcomes that wait for a store that takes no writes: ten dispatches to as many targets as one may have. What is more
/// is on record as unknown after the next start.
const LATE_MAX: usize = 10_000;

/// The record of an outcome, and the intent that it closes if its request is not under way a second time.
#[derive(Debug, Clone)]
pub(super) struct Late {
    draft: Draft,
    closes: Option<IntentKey>,
}

impl Engine {
    pub(super) fn begin(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        reply: ReplyId,
        (write, planned): (&Write, Option<&Basis>),
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        if self.clock.state() == ClockState::Uncertain && self.settings.profile != Profile::Dev {
            let reason = "this runtime's clock is uncertain, so it grants nothing new".to_owned();
            return Answer::Refused { code: Code::ClockUncertain, reason };
        }
        let view = self.view();
        let plan = view.plan(&write.asker, &write.action, &write.targets, now);
        if planned.is_some_and(|planned| *planned != view.basis(&plan)) {
            let denial = plan_overtaken();
            let drafts = vec![self.overtaken(now, entropy, write, &denial)];
            effects.then(Effect::AuditLightly { drafts, waiter: Waiter::Reply(reply) });
            return Answer::Overtaken { plan, denial };
        }
        if !plan.is_allowed() {
            let drafts = self.denials(now, entropy, write, &plan);
            effects.then(Effect::AuditLightly { drafts, waiter: Waiter::Reply(reply) });
            return Answer::Begun { plan, started: Vec::new() };
        }
        let mut started = Vec::with_capacity(write.targets.len());
        for target in &write.targets {
            match self.start_part(now, entropy, reply, (write, target), effects) {
                Ok(part) => started.push(part),
                Err(denial) => return Answer::Refused { code: denial.code, reason: denial.reason.to_string() },
            }
        }
        Answer::Begun { plan, started }
    }

    fn start_part(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        reply: ReplyId,
        (write, target): (&Write, &RuntimeId),
        effects: &mut Effects,
    ) -> Result<Started, Denial> {
        if target == self.me() {
            return Ok(self.start_here(now, entropy, reply, write, effects));
        }
        let Write { asker, request_id, action, .. } = write;
        let envelope = self.view().envelope(asker, request_id, action, target, now.wall).ok_or_else(|| {
            Denial::at_origin(Code::PeerNotAvailable, "known", format!("no key is pinned for {target}"))
        })?;
        let request = RequestKey { actor: asker.actor.clone(), request_id: request_id.clone() };
        let key = IntentKey { request, target: target.clone() };
        self.under_way.begin(&key);
        let intent = Intent { key, action: action::name(action), at: now.wall };
        effects.audit(self.write_draft(now, entropy, write, target, Outcome::Intended));
        effects.persist(Record::Intent(intent));
        Ok(Started::Send(Box::new(envelope)))
    }

    /// The own part needs no envelope: the same transaction, the same memory of requests.
    fn start_here(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        reply: ReplyId,
        write: &Write,
        effects: &mut Effects,
    ) -> Started {
        let envelope = self.own_envelope(now, write);
        let key = RequestKey { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() };
        let result = match self.receipts.get(&key) {
            Some(known) if known.digest == envelope.digest() => Ok(known.clone()),
            Some(_) => {
                let reason = "this request id was used for another request";
                Err(Denial::at_target(Code::Conflict, "request_id", reason))
            }
            None => self.carry_out(now, entropy, &envelope, effects),
        };
        match result {
            Ok(receipt) => Started::Here { ruling: Ruling::Done(receipt.response), audit_id: receipt.audit_id },
            Err(denial) => {
                let mut draft = self.write_draft(now, entropy, write, &envelope.target, Outcome::Denied);
                draft.code = Some(denial.code);
                draft.detail = denial.reason.to_string();
                let audit_id = draft.audit_id;
                if write.targets.len() == 1 {
                    effects.then(Effect::AuditLightly { drafts: vec![draft], waiter: Waiter::Reply(reply) });
                } else {
                    // Other parts are put on record and sent whatever comes of this one.
                    effects.audit(draft);
                }
                Started::Here { ruling: Ruling::Refused(denial), audit_id }
            }
        }
    }

    fn own_envelope(&self, now: Now, write: &Write) -> Envelope {
        Envelope {
            target: self.me().clone(),
            target_key: self.identity,
            target_boot: Some(self.boot),
            origin: self.me().clone(),
            actor: write.asker.actor.clone(),
            role: write.asker.role,
            actor_verified: write.asker.is_verified,
            request_id: write.request_id.clone(),
            action: write.action.clone(),
            issued: now.wall,
            expires: now.wall.plus(write.action.kind().window()),
            boot: self.boot,
            sequence: 0,
            policy_hash: self.settings.policy_hash,
        }
    }

    /// Puts the outcome of each sent part on record and closes its intent.
    pub(super) fn conclude(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        write: &Write,
        conclusions: Vec<Conclusion>,
        effects: &mut Effects,
    ) -> Answer {
        let concluded: Vec<Late> =
            conclusions.into_iter().map(|conclusion| self.outcome(now, entropy, write, conclusion)).collect();
        // Written once the store takes writes again. Until then the intent stays open on the disk, so that a start in between
        // puts the outcome there as unknown.
        if let Some(refusal) = self.refuse_read_only() {
            self.put_off(concluded);
            return refusal;
        }
        self.write_outcomes(&concluded, effects);
        Answer::Recorded
    }

    fn outcome(&mut self, now: Now, entropy: &mut dyn Entropy, write: &Write, conclusion: Conclusion) -> Late {
        let (outcome, code, detail) = match &conclusion.ruling {
            Some(Ruling::Done(_)) => (Outcome::Applied, None, String::new()),
            Some(Ruling::Refused(denial)) => (Outcome::Denied, Some(denial.code), denial.reason.to_string()),
            None => (Outcome::Unknown, Some(Code::Timeout), "no receipt from the target".to_owned()),
        };
        let mut draft = self.write_draft(now, entropy, write, &conclusion.target, outcome);
        draft.code = code;
        draft.detail = detail;
        if let Some(there) = conclusion.audit_id {
            draft.detail = format!("{} record {there} at the target", draft.detail).trim_start().to_owned();
        }
        let request = RequestKey { actor: write.asker.actor.clone(), request_id: write.request_id.clone() };
        let key = IntentKey { request, target: conclusion.target };
        let closes = self.under_way.conclude(&key).then_some(key);
        Late { draft, closes }
    }

    fn write_outcomes(&mut self, concluded: &[Late], effects: &mut Effects) {
        for Late { draft, closes } in concluded {
            effects.audit(draft.clone());
            if let Some(key) = closes {
                effects.persist(Record::IntentClosed(key.clone()));
            }
        }
    }

    /// Kept here from now on, whatever becomes of the next batch.
    fn put_off(&mut self, concluded: Vec<Late>) {
        self.under_way.settle();
        for late in concluded {
            if self.late.len() < LATE_MAX {
                self.late.push(late);
            } else {
                self.count_refused("late_outcome");
            }
        }
    }

    /// Puts the outcomes on record that the store did not take. They are kept until the next input shows that it did.
    pub(super) fn write_late_outcomes(&mut self, effects: &mut Effects) {
        let late = std::mem::take(&mut self.late);
        self.write_outcomes(&late, effects);
        self.resuming = late;
    }

    fn overtaken(&self, now: Now, entropy: &mut dyn Entropy, write: &Write, denial: &Denial) -> Draft {
        let target = write.targets.first().unwrap_or(self.me());
        let mut draft = self.write_draft(now, entropy, write, target, Outcome::Denied);
        draft.code = Some(denial.code);
        draft.detail = among(write.targets.len(), &denial.reason);
        draft
    }

    fn denials(&self, now: Now, entropy: &mut dyn Entropy, write: &Write, plan: &Plan) -> Vec<Draft> {
        let denial = |row: &Row| {
            let Decision::Deny(denial) = &row.decision else { return None };
            let mut draft = self.write_draft(now, entropy, write, &row.target, Outcome::Denied);
            draft.code = Some(denial.code);
            draft.detail = denial.reason.to_string();
            Some(draft)
        };
        plan.rows.iter().filter_map(denial).collect()
    }

    fn write_draft(
        &self,
        now: Now,
        entropy: &mut dyn Entropy,
        write: &Write,
        target: &RuntimeId,
        outcome: Outcome,
    ) -> Draft {
        let name = action::name(&write.action);
        Draft {
            target: target.clone(),
            request_id: Some(write.request_id.clone()),
            ..self.draft(now, entropy, &write.asker, &name, outcome)
        }
    }
}

/// Why a plan that was named is not carried out.
pub fn plan_overtaken() -> Denial {
    let reason = "a decision, a target or the request has changed since this plan was made, or it is too old";
    Denial::at_origin(Code::Conflict, "plan_hash", reason)
}

/// One record stands for all targets of a request that was refused as a whole, so that a refusal costs the same whatever it
/// names.
pub fn among(targets: usize, reason: &Reason) -> String {
    match targets {
        0 | 1 => reason.to_string(),
        several => format!("the first of {several} targets: {reason}"),
    }
}

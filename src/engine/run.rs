//! Work that is started here: runs of declared programs, and commands to the workload.
//!
//! A run is accepted in the transaction that answers for it, and begins only when that is durable. Its events and its end are
//! the run store's; the engine knows that it goes on, so that a start after a crash can end what nobody runs any more.

use std::sync::Arc;

use crate::domain::action::{CANCEL, Invocation};
use crate::domain::audit::{Draft, Outcome};
use crate::domain::code::Code;
use crate::domain::envelope::{Envelope, Response};
use crate::domain::id::Segment;
use crate::domain::identity::Actor;
use crate::domain::offer::WORKLOAD_COMMANDS;
use crate::domain::policy::{Denial, granted_role};
use crate::domain::preflight::{Asker, Profile};
use crate::domain::run::{AgentName, Instance, RunId};
use crate::domain::time::Now;
use crate::engine::effect::{Answer, Effect, Effects};
use crate::engine::input::Invoke;
use crate::engine::record::{Deed, OpenRun, Record, RequestKey};
use crate::engine::view::{Category, ClockState, Severity};
use crate::engine::{Engine, Entropy, Happening, audit_id};

/// Most runs that go on at once: each is a process or two, and a plant computer has few cores.
pub const RUNS_ACTIVE_MAX: usize = 128;

/// Most commands to the workload that are under way at once: they are carried out one after the other.
const DEEDS_MAX: usize = 32;

impl Engine {
    /// Carries out a command whose envelope was allowed. What acts on the outside begins once this is durable.
    pub(super) fn invoke(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        (envelope, invocation): (&Envelope, &Invocation),
        effects: &mut Effects,
    ) -> Result<Response, Denial> {
        let Invocation { command, params } = invocation;
        match command.as_str() {
            "ping" => Ok(Response::Pong),
            CANCEL => self.cancel(envelope, invocation, effects),
            name if WORKLOAD_COMMANDS.contains(&name) => self.command_workload(now, envelope, command, effects),
            _ => {
                let run = Start {
                    agent: AgentName::of_command(command),
                    instance: Instance::of_runtime(&self.me().name),
                    payload: object(params.iter()),
                    is_streamed: false,
                    actor: &envelope.actor,
                };
                let id = self.accept_run(now, entropy, run, effects)?;
                let summary = format!("{} started {command} as {id}", envelope.actor);
                self.tell_request(now, Category::Audit, envelope, summary);
                Ok(Response::Started { run: id })
            }
        }
    }

    /// Starts a run of a declared agent for a caller of this node.
    pub(super) fn start_run(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        (asker, invoke): (&Asker, Invoke),
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        if let Err((code, reason)) = self.check_start(asker, &invoke.agent) {
            self.count_refused(code.as_str());
            return Answer::Refused { code, reason };
        }
        let Invoke { agent, instance, payload, is_streamed } = invoke;
        let run = Start { agent: AgentName::of_agent(&agent), instance, payload, is_streamed, actor: &asker.actor };
        match self.accept_run(now, entropy, run, effects) {
            Err(denial) => Answer::Refused { code: denial.code, reason: denial.reason.to_string() },
            Ok(run) => {
                let mut draft = self.draft(now, entropy, asker, &format!("agent_invoke/{agent}"), Outcome::Applied);
                draft.detail = run.to_string();
                effects.audit(draft);
                Answer::RunAccepted(run)
            }
        }
    }

    fn check_start(&self, asker: &Asker, agent: &Segment) -> Result<(), (Code, String)> {
        if self.clock.state() == ClockState::Uncertain && self.settings.profile != Profile::Dev {
            let reason = "this runtime's clock is uncertain, so it grants nothing new";
            return Err((Code::ClockUncertain, reason.to_owned()));
        }
        let Some(declared) = self.settings.offer.agents.get(agent) else {
            return Err((Code::ContractViolation, format!("no agent {agent} is declared")));
        };
        let role = granted_role(&self.settings.grants, &asker.actor, asker.role, &self.me().site);
        if role < declared.role {
            let reason = format!("{agent} needs the role {}, {} has {role}", declared.role, asker.actor);
            return Err((Code::PermissionDenied, reason));
        }
        Ok(())
    }

    fn accept_run(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        start: Start<'_>,
        effects: &mut Effects,
    ) -> Result<RunId, Denial> {
        if let Some(fault) = &self.runs_fault {
            let reason = format!("no run can be kept until this runtime is started anew: {fault}");
            return Err(Denial::at_target(Code::StorageUnavailable, "runs", reason));
        }
        if RUNS_ACTIVE_MAX <= self.runs.len() {
            let reason = format!("{RUNS_ACTIVE_MAX} runs go on at this runtime already");
            return Err(Denial::at_target(Code::ServerBusy, "runs", reason));
        }
        let mut random = [0; 10];
        entropy.fill(&mut random);
        let run = OpenRun {
            run: RunId::new(now.wall, random),
            agent: start.agent,
            instance: start.instance,
            payload: start.payload,
            is_streamed: start.is_streamed,
            actor: start.actor.clone(),
            at: now.wall,
        };
        let (id, run) = (run.run, Arc::new(run));
        Arc::make_mut(&mut self.runs).insert(id, Arc::clone(&run));
        self.change();
        effects.persist(Record::Run(Arc::clone(&run)));
        effects.then(Effect::StartRun(run));
        Ok(id)
    }

    /// A run has ended, and its end is durable where its events are.
    pub(super) fn end_run(&mut self, run: RunId, effects: &mut Effects) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        if Arc::make_mut(&mut self.runs).remove(&run).is_some() {
            self.change();
            effects.persist(Record::RunClosed(run));
        }
        Answer::Recorded
    }

    /// What runs go on stays open: the next start gives them an end.
    pub(super) fn lose_runs(&mut self, now: Now, reason: String) -> Answer {
        if self.runs_fault.is_none() {
            let (category, runtime, severity) = (Category::Communication, self.me().clone(), Severity::Critical);
            let summary = format!("no run can be kept any more: {reason}");
            self.tell(now, Happening { category, runtime, request_id: None, summary, severity });
            self.runs_fault = Some(reason);
        }
        Answer::Recorded
    }

    /// Ends a run for whoever might have started it.
    fn cancel(&self, envelope: &Envelope, invocation: &Invocation, effects: &mut Effects) -> Result<Response, Denial> {
        let schema =
            |error: crate::domain::action::Error| Denial::at_target(Code::SchemaMismatch, "schema", error.to_string());
        let run = invocation.run().map_err(schema)?;
        let Some(open) = self.runs.get(&run) else {
            let reason = format!("no run {run} goes on at this runtime");
            return Err(Denial::at_target(Code::ContractViolation, "run", reason));
        };
        self.check_cancel(envelope, open)?;
        effects.then(Effect::CancelRun(run));
        Ok(Response::Cancelling { run })
    }

    /// A run is ended with the role that starting it takes. Another site, whose rules may let it cancel, ends its own runs
    /// alone.
    pub(super) fn check_cancel(&self, envelope: &Envelope, open: &OpenRun) -> Result<(), Denial> {
        let deny = |reason| Err(Denial::at_target(Code::PermissionDenied, "role", reason));
        let (run, actor, own) = (open.run, &envelope.actor, &self.me().site);
        if actor.site != *own || envelope.origin.site != *own {
            let is_theirs = open.actor.site == actor.site;
            return if is_theirs { Ok(()) } else { deny(format!("{run} was not started by site {}", actor.site)) };
        }
        let role = granted_role(&self.settings.grants, actor, envelope.role, own);
        let least = self.settings.offer.role_to_start(&open.agent);
        if least <= role {
            return Ok(());
        }
        deny(format!("ending {run} needs the role {least}, as starting it did, {actor} has {role}"))
    }

    fn command_workload(
        &mut self,
        now: Now,
        envelope: &Envelope,
        command: &Segment,
        effects: &mut Effects,
    ) -> Result<Response, Denial> {
        if DEEDS_MAX <= self.deeds.len() {
            let reason = format!("{DEEDS_MAX} commands wait for the workload already");
            return Err(Denial::at_target(Code::ServerBusy, "workload", reason));
        }
        let deed = Deed {
            key: RequestKey::of(envelope),
            origin: envelope.origin.clone(),
            is_verified: envelope.actor_verified,
            command: command.clone(),
            at: now.wall,
        };
        self.deeds.insert(deed.key.clone(), deed.clone());
        effects.persist(Record::Deed(deed.clone()));
        effects.then(Effect::Perform(Box::new(deed)));
        self.tell_request(now, Category::Audit, envelope, format!("{} told the workload to {command}", envelope.actor));
        Ok(Response::Commanded { command: command.clone() })
    }

    /// What became of a command to the workload: on record, and not open any more.
    pub(super) fn conclude_deed(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        (deed, result): (&Deed, Result<String, String>),
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        if self.deeds.remove(&deed.key).is_none() {
            return Answer::Recorded;
        }
        let (outcome, severity, detail) = match result {
            Ok(detail) => (Outcome::Applied, Severity::Info, detail),
            Err(detail) => (Outcome::Failed, Severity::Warning, detail),
        };
        let summary = format!("the workload's {}: {detail}", deed.command);
        effects.audit(Draft { outcome, detail, ..self.deed_draft(now, entropy, deed) });
        effects.persist(Record::DeedClosed(deed.key.clone()));
        let (runtime, request_id) = (self.me().clone(), Some(deed.key.request_id.clone()));
        self.tell(now, Happening { category: Category::Audit, runtime, request_id, summary, severity });
        Answer::Recorded
    }

    /// After a start: a command that was under way is not carried out a second time by itself (DESIGN, *Durability and cost of
    /// an action*). Runs that were open stay open until whoever has their events has given them an end.
    pub(super) fn close_interrupted_work(&mut self, now: Now, entropy: &mut dyn Entropy, effects: &mut Effects) {
        for deed in std::mem::take(&mut self.deeds).into_values() {
            effects.audit(Draft {
                outcome: Outcome::Unknown,
                code: Some(Code::Interrupted),
                detail: "this runtime stopped before it was carried out to the end".to_owned(),
                ..self.deed_draft(now, entropy, &deed)
            });
            effects.persist(Record::DeedClosed(deed.key));
        }
    }

    fn deed_draft(&self, now: Now, entropy: &mut dyn Entropy, deed: &Deed) -> Draft {
        Draft {
            audit_id: audit_id(now, entropy),
            at: now.wall,
            actor: deed.key.actor.to_string(),
            actor_verified: deed.is_verified,
            origin: deed.origin.clone(),
            action: format!("cmd_invoke/{}", deed.command),
            target: self.me().clone(),
            request_id: Some(deed.key.request_id.clone()),
            outcome: Outcome::Applied,
            code: None,
            detail: String::new(),
            policy_hash: self.settings.policy_hash,
        }
    }
}

/// A run to be accepted.
struct Start<'a> {
    agent: AgentName,
    instance: Instance,
    payload: String,
    is_streamed: bool,
    actor: &'a Actor,
}

/// Parameters as one JSON object. Their values are JSON texts already, and their names are quoted as JSON wants it.
fn object<'a>(params: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let fields: Vec<String> = params.map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", fields.join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

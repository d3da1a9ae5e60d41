//! "Would this be allowed now?": ordered checks, one decision per target, no effects.
//!
//! The order is fixed, so that a denial never depends on who happens to be up: shape, profile, actor and role, then per
//! target: known, transport security, policy, reachability last (DESIGN, *Preflight*). [`authorize`] is also what the target
//! asks before it acts.

use std::borrow::Cow;

use crate::domain::action::{self, Action, ActionKind, Invocation};
use crate::domain::code::Code;
use crate::domain::config;
use crate::domain::id::RuntimeId;
use crate::domain::identity::{Actor, Role};
use crate::domain::offer::{Known, WORKLOAD_COMMANDS};
use crate::domain::policy::{Decision, Denial, Policy, Question, Reason, Side, Stage, Verdict};
use crate::domain::projection::Lifecycle;
use crate::domain::time::Wall;

/// Most targets of one request (contract, *preflight*).
pub const TARGETS_MAX: usize = 1_000;

/// What the node is set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// One desk: loopback, no certificates needed.
    Dev,
    /// One plant: verified identities and TLS.
    Plant,
    /// Between plants: as `plant`, and every write to another runtime needs a rule.
    Wan,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Dev, Self::Plant, Self::Wan];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Plant => "plant",
            Self::Wan => "wan",
        }
    }
}

/// Who asks, as the credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The actor.
    pub actor: Actor,
    /// What the credential may do at most.
    pub role: Role,
    /// Whether the credential vouches for the actor.
    pub is_verified: bool,
}

/// One question about one target, for either decision point.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Who asks.
    pub asker: &'a Asker,
    /// What for.
    pub action: &'a Action,
    /// To whom.
    pub target: &'a RuntimeId,
    /// Through whom.
    pub origin: &'a RuntimeId,
    /// The rules of the site that is asked.
    pub policy: &'a Policy,
    /// That site's profile.
    pub profile: Profile,
    /// What is known here of the target's commands.
    pub offer: Known<'a>,
    /// When.
    pub now: Wall,
}

/// What this runtime knows of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its state; online for the own runtime.
    pub lifecycle: Lifecycle,
    /// Whether it advertises secure transport.
    pub is_secure: bool,
}

/// The answer for all targets, in request order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One row per target.
    pub rows: Vec<Row>,
}

/// The answer for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The target, qualified.
    pub target: RuntimeId,
    /// The decision.
    pub decision: Decision,
    /// What is known of the target; absent when it was never heard of.
    pub standing: Option<Standing>,
}

impl Plan {
    /// Whether all of it may happen.
    pub fn is_allowed(&self) -> bool {
        self.rows.iter().all(|row| row.decision.is_allowed())
    }

    /// The denial of the first denied target.
    pub fn first_denial(&self) -> Option<&Denial> {
        self.rows.iter().find_map(|row| match &row.decision {
            Decision::Deny(denial) => Some(denial),
            Decision::Allow { .. } => None,
        })
    }
}

/// The origin's decision about one target.
pub fn decide(case: Case<'_>, standing: Option<Standing>) -> Decision {
    match check(case, standing) {
        Ok(rule) => Decision::Allow { rule },
        Err(denial) => Decision::Deny(denial),
    }
}

fn check(case: Case<'_>, standing: Option<Standing>) -> Result<Cow<'static, str>, Denial> {
    let is_own = case.target == case.origin;
    let stage = Stage::Origin;
    check_role(case, stage)?;
    let Some(standing) = standing else {
        let reason = Reason::about(case.target, &["this runtime has never heard of ", ""]);
        return Err(Denial::at_origin(Code::PeerNotAvailable, "known", reason));
    };
    if case.profile != Profile::Dev && !is_own && !standing.is_secure {
        let around = &["", " does not advertise secure transport, which this profile demands"];
        let reason = Reason::about(case.target, around);
        return Err(Denial::at_origin(Code::NotConfigured, "transport", reason));
    }
    let rule = check_rules(case, Side::Outbound, stage)?;
    check_parameters(case, stage)?;
    if is_own { Ok(rule) } else { check_reach(case, standing).map(|()| rule) }
}

/// The decision by role, rules and parameters alone, at either end. Gives the rule that allows it.
pub fn authorize(case: Case<'_>, side: Side) -> Result<Cow<'static, str>, Denial> {
    let stage = side.stage();
    check_role(case, stage)?;
    let rule = check_rules(case, side, stage)?;
    check_parameters(case, stage).map(|()| rule)
}

fn check_role(case: Case<'_>, stage: Stage) -> Result<(), Denial> {
    if has_role(case, stage) {
        return Ok(());
    }
    let least = least_role(case);
    let code = match case.action.kind() {
        ActionKind::CfgApply => Code::AclDeniedCfgWrite,
        ActionKind::CmdInvoke | ActionKind::StatusRead => Code::PermissionDenied,
    };
    let what = action::name(case.action);
    let reason = format!("{what} needs the role {least}, {} has {}", case.asker.actor, case.asker.role);
    Err(Denial { code, reason: reason.into(), stage, rule: Cow::Borrowed("role") })
}

/// The built-in grant of a role, as decisions name it.
const fn allowed_by(role: Role) -> &'static str {
    match role {
        Role::Viewer => "role:viewer",
        Role::Operator => "role:operator",
        Role::Engineer => "role:engineer",
        Role::Admin => "role:admin",
    }
}

/// The least role for the action, as far as it is known at this end: a declared command's own role is in its runtime's file.
pub fn least_role(case: Case<'_>) -> Role {
    let declared = case.action.command().and_then(|name| case.offer.role_for(name));
    declared.unwrap_or_else(|| case.action.least_role())
}

/// Whether the asker's role suffices for the action at this end.
pub(super) fn has_role(case: Case<'_>, stage: Stage) -> bool {
    // A guest from another site keeps the role viewer; what its `accept_write` rules allow is decided by them.
    let is_ruled_by_accept_write = stage == Stage::Target && is_cross_site(case) && !case.action.kind().is_read();
    least_role(case) <= case.asker.role || is_ruled_by_accept_write
}

/// Whether the action leaves its site, by its actor or by its origin.
pub fn is_cross_site(case: Case<'_>) -> bool {
    // Both, so that nobody reaches another site by naming an actor of that site here.
    case.asker.actor.site != case.target.site || case.origin.site != case.target.site
}

fn check_rules(case: Case<'_>, side: Side, stage: Stage) -> Result<Cow<'static, str>, Denial> {
    let role = || Cow::Borrowed(allowed_by(case.asker.role));
    let list = side.list();
    if case.action.kind().is_read() {
        return Ok(role());
    }
    let question = Question { actor: &case.asker.actor, action: case.action, target: case.target, now: case.now };
    match case.policy.ask(side, question) {
        Verdict::Denied(rule) => {
            let why = rule.reason.as_deref().unwrap_or("no reason given");
            let reason = format!("{list} denies it: {why}");
            Err(Denial { code: Code::PermissionDenied, reason: reason.into(), stage, rule: rule.id.clone().into() })
        }
        Verdict::Allowed(rule) => Ok(rule.id.clone().into()),
        Verdict::Unmentioned if !is_ruled_by_role(case, side) => {
            let reason = format!("no {list} rule allows {} on {}", case.action.kind(), case.target);
            Err(Denial { code: Code::PermissionDenied, reason: reason.into(), stage, rule: Cow::Borrowed(list) })
        }
        Verdict::Unmentioned => Ok(role()),
    }
}

/// Whether the role alone lets it pass where no rule speaks of it.
pub(super) fn is_ruled_by_role(case: Case<'_>, side: Side) -> bool {
    let needs_rule = match side {
        Side::Inbound => is_cross_site(case),
        Side::Outbound => is_cross_site(case) || (case.profile == Profile::Wan && case.target != case.origin),
    };
    case.action.kind().is_read() || !needs_rule
}

fn check_parameters(case: Case<'_>, stage: Stage) -> Result<(), Denial> {
    let deny = |code, rule: &'static str, reason: String| {
        Err(Denial { code, reason: reason.into(), stage, rule: Cow::Borrowed(rule) })
    };
    match case.action {
        Action::StatusRead => Ok(()),
        Action::CfgApply(values) => match config::check(values) {
            Ok(()) => Ok(()),
            Err(error @ config::KeyError::FileOnly { .. }) => deny(Code::ContractViolation, "scope", error.to_string()),
            Err(error) => deny(Code::SchemaMismatch, "schema", error.to_string()),
        },
        Action::CmdInvoke(invocation) => match (case.offer.has_command(&invocation.command), invocation) {
            (Some(false), Invocation { command, .. }) if WORKLOAD_COMMANDS.contains(&command.as_str()) => {
                deny(Code::NotConfigured, "workload", format!("{command} acts on a workload, and none is configured"))
            }
            (Some(false), Invocation { command, .. }) => {
                deny(Code::ContractViolation, "command", format!("no command {command} is declared"))
            }
            // What is not known here, the target knows.
            (Some(true) | None, invocation) => match invocation.check() {
                Ok(()) => Ok(()),
                Err(error) => deny(Code::SchemaMismatch, "schema", error.to_string()),
            },
        },
    }
}

fn check_reach(case: Case<'_>, standing: Standing) -> Result<(), Denial> {
    let deny = |code, around| Err(Denial::at_origin(code, "reachable", Reason::about(case.target, around)));
    match standing.lifecycle {
        Lifecycle::Online => Ok(()),
        Lifecycle::Stale if case.action.kind().is_read() => Ok(()),
        Lifecycle::Stale => deny(Code::StaleData, &["", " has not been heard from recently enough for a write"]),
        Lifecycle::Partitioned => deny(Code::TargetUnreachable, &["", " is partitioned from this runtime"]),
        Lifecycle::Offline => deny(Code::TargetUnreachable, &["", " is offline"]),
    }
}

//! A site's allowlist: rules, the order-free matcher over them, and the decision it gives.
//!
//! Pure and total: every question has an answer, no rule order matters, deny beats allow, an empty list denies
//! (DESIGN, *Policy*). Outbound rules are asked at the origin, inbound rules at the target; a cross-site write needs both.

mod decide;
mod pattern;

use std::borrow::Cow;

use crate::domain::code::Code;
use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::Actor;
use crate::domain::time::Wall;

pub use decide::{Question, Side, Verdict};
pub use pattern::{Error as PatternError, Pattern};

/// Most rules in one direction: a list that a person can still review, and a bound on the work of one question.
pub const RULES_MAX: usize = 1_000;

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleEffect {
    /// Lets the action pass, unless another rule denies it.
    Allow,
    /// Refuses the action, whatever else matches.
    Deny,
}

/// One line of a policy. An absent pattern matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rule's name in decisions: its `id`, or its place such as `allow_write[2]`.
    pub id: String,
    /// Allow or deny.
    pub effect: RuleEffect,
    /// Which actions: `cfg_apply`, `cmd_invoke` or `cmd_invoke/<command>`.
    pub action: Pattern,
    /// Which actors, as `<site>/<principal>`.
    pub actor: Pattern,
    /// Which targets, as `<site>/<name>`.
    pub target: Pattern,
    /// Parameters that must be present with exactly these values, as canonical JSON texts by name.
    pub params: Vec<(String, String)>,
    /// Not before this moment.
    pub not_before: Option<Wall>,
    /// Not at or after this moment.
    pub not_after: Option<Wall>,
    /// Why the rule is there, for people.
    pub reason: Option<String>,
}

/// Both directions of one site's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Asked at the origin: what may leave this site.
    pub allow_write: Vec<Rule>,
    /// Asked at the target: what may come in from other sites.
    pub accept_write: Vec<Rule>,
}

/// Which decision point spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The runtime that was asked.
    Origin,
    /// The runtime that should act.
    Target,
}

impl Stage {
    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Target => "target",
        }
    }
}

/// The answer to one question about one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may happen; `rule` names what allows it.
    Allow {
        /// The rule or the built-in grant, such as `role:engineer`.
        rule: Cow<'static, str>,
    },
    /// It may not happen.
    Deny(Denial),
}

/// Why something may not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The stable code.
    pub code: Code,
    /// One sentence with the values that decided.
    pub reason: String,
    /// Who decided.
    pub stage: Stage,
    /// The rule that denied, or the check's name.
    pub rule: Cow<'static, str>,
}

impl Denial {
    /// A denial by the origin.
    pub fn at_origin(code: Code, rule: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), stage: Stage::Origin, rule: Cow::Borrowed(rule) }
    }

    /// A denial by the target.
    pub fn at_target(code: Code, rule: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), stage: Stage::Target, rule: Cow::Borrowed(rule) }
    }
}

impl Decision {
    /// Whether it may happen.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// Whether an actor's and a target's sites differ, which is what makes a write a cross-site write.
pub fn crosses_sites(actor_site: &SiteId, target: &RuntimeId) -> bool {
    *actor_site != target.site
}

/// An actor as rules name it.
pub fn actor_name(actor: &Actor) -> String {
    format!("{}/{}", actor.site, actor.principal)
}

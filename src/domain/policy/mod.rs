//! A site's allowlist: rules, the order-free matcher over them, and the decision it gives.
//!
//! Pure and total: every question has an answer, no rule order matters, deny beats allow, an empty list denies
//! (DESIGN, *Policy*). Outbound rules are asked at the origin, inbound rules at the target; a cross-site write needs both.

mod canonical;
mod cover;
mod decide;
pub mod explain;
mod pattern;
mod reason;
mod remedy;

use std::borrow::Cow;

use crate::domain::action::Action;
use crate::domain::code::Code;
use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::{Actor, Role};
use crate::domain::time::Wall;

pub use cover::Shadowed;
pub use decide::{Condition, Question, Side, Verdict};
pub use pattern::{Error as PatternError, Pattern};
pub use reason::Reason;
pub use remedy::{Change, Remedy, Step, unnameable};

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
    /// Parameters that must be present with exactly these values, as canonical JSON texts by name. Where there are any, an
    /// allow is for these alone: an action that has a further one is not what the rule was written for.
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

impl Policy {
    /// The rules of one direction.
    pub fn rules(&self, side: Side) -> &[Rule] {
        match side {
            Side::Inbound => &self.accept_write,
            Side::Outbound => &self.allow_write,
        }
    }

    /// The same, to change.
    pub fn rules_mut(&mut self, side: Side) -> &mut Vec<Rule> {
        match side {
            Side::Inbound => &mut self.accept_write,
            Side::Outbound => &mut self.allow_write,
        }
    }
}

impl Rule {
    /// The name that its author gave it; absent where it is called by its place, which another order would change.
    pub fn given_id(&self) -> Option<&str> {
        // A place has brackets, a given id never has.
        (!self.id.contains('[')).then_some(self.id.as_str())
    }
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
    pub reason: Reason,
    /// Who decided.
    pub stage: Stage,
    /// The rule that denied, or the check's name.
    pub rule: Cow<'static, str>,
}

impl Denial {
    /// A denial by the origin.
    pub fn at_origin(code: Code, rule: &'static str, reason: impl Into<Reason>) -> Self {
        Self { code, reason: reason.into(), stage: Stage::Origin, rule: Cow::Borrowed(rule) }
    }

    /// A denial by the target.
    pub fn at_target(code: Code, rule: &'static str, reason: impl Into<Reason>) -> Self {
        Self { code, reason: reason.into(), stage: Stage::Target, rule: Cow::Borrowed(rule) }
    }
}

impl Denial {
    /// What another site is told: the code and who decided. Which rule stands here, and why, is nobody's business there
    /// (DESIGN, *Policy*).
    pub fn for_another_site(self) -> Self {
        Self { reason: self.code.meaning().into(), rule: Cow::Borrowed("not_told"), ..self }
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

/// The role that counts at the target: the lesser of the asserted one and the least grant for the actor. Without a grant the
/// own site's word counts, and a guest of another site is a viewer (DESIGN, *Who is the actor*).
pub fn granted_role(grants: &[(Pattern, Role)], actor: &Actor, asserted: Role, own_site: &SiteId) -> Role {
    let name = actor_name(actor);
    let grant = grants.iter().filter(|(pattern, _)| pattern.matches(&name)).map(|(_, role)| *role).min();
    match grant {
        Some(role) => role.min(asserted),
        None if actor.site == *own_site => asserted,
        None => Role::Viewer.min(asserted),
    }
}

/// An action as rules name it: `cfg_apply` or `cmd_invoke/<command>`.
pub fn action_name(action: &Action) -> String {
    match action.command() {
        Some(command) => format!("{}/{command}", action.kind().as_str()),
        None => action.kind().as_str().to_owned(),
    }
}

/// An actor as rules name it.
pub fn actor_name(actor: &Actor) -> String {
    format!("{}/{}", actor.site, actor.principal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_site_is_told_neither_the_rule_nor_its_reason() {
        let told =
            Denial::at_target(Code::PermissionDenied, "own-rule", "the furnace burns".to_owned()).for_another_site();
        let meaning = Code::PermissionDenied.meaning();
        assert_eq!(told, Denial::at_target(Code::PermissionDenied, "not_told", meaning));
        let shown = format!("{told:?}");
        assert!(!shown.contains("own-rule") && !shown.contains("furnace"), "{shown}");
    }

    #[test]
    fn a_write_crosses_sites_where_actor_and_target_are_of_different_ones() {
        let target: RuntimeId = "a/r1".parse().expect("legal");
        let sites = ["a", "b"].map(|site| crosses_sites(&site.parse().expect("legal"), &target));
        assert_eq!(sites, [false, true]);
    }

    #[test]
    fn without_a_grant_the_own_site_is_believed_and_a_guest_only_views() {
        let grants = [("a/bob", Role::Operator), ("*/carol", Role::Engineer), ("b/*", Role::Operator)]
            .map(|(pattern, role)| (pattern.parse().expect("legal"), role));
        let own_site = "a".parse().expect("legal");
        for (actor, asserted, wanted) in [
            ("a/alice", Role::Admin, Role::Admin),
            ("c/alice", Role::Admin, Role::Viewer),
            ("a/bob", Role::Admin, Role::Operator),
            ("a/bob", Role::Viewer, Role::Viewer),
            ("c/carol", Role::Admin, Role::Engineer),
            ("b/carol", Role::Admin, Role::Operator),
        ] {
            let actor_id = format!("spiffe://trust/{actor}").parse().expect("legal");
            assert_eq!(granted_role(&grants, &actor_id, asserted, &own_site), wanted, "{actor} as {asserted}");
        }
    }
}

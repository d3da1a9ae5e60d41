//! Denials: what somebody's rule decided against, told apart from what merely failed.
//!
//! Whether a code is one says [`Code::is_denial`]. The others stand in the counters of outcomes alone.

use std::collections::BTreeMap;

use super::Metrics;
use crate::domain::code::Code;
use crate::domain::policy::{Decision, Stage};
use crate::domain::preflight::Plan;

/// Where on this node a denial is met with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In a dispatch that began here.
    Dispatch,
    /// In a question that began here: a preflight or a dry run.
    Preflight,
    /// At a route, before anybody has read what is asked.
    Route,
    /// In what another runtime asked of this one.
    Target,
}

impl Side {
    /// Every side, in alphabetical order of its text.
    pub const ALL: [Self; 4] = [Self::Dispatch, Self::Preflight, Self::Route, Self::Target];

    /// As the label says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dispatch => "dispatch",
            Self::Preflight => "preflight",
            Self::Route => "route",
            Self::Target => "target",
        }
    }
}

impl Metrics {
    /// Something was decided against, or failed: only the former is counted here.
    pub fn denied(&self, code: Code, stage: Stage, side: Side) {
        self.add_denials(code, stage, side, 1);
    }

    /// The targets that a plan denies.
    pub fn plan_denied(&self, plan: &Plan, side: Side) {
        if plan.is_allowed() {
            return;
        }
        // A plan has up to a thousand rows and few codes.
        let mut counts = BTreeMap::<(Code, Stage), u64>::new();
        for row in &plan.rows {
            if let Decision::Deny(denial) = &row.decision {
                let count = counts.entry((denial.code, denial.stage)).or_default();
                *count = count.saturating_add(1);
            }
        }
        for ((code, stage), count) in counts {
            self.add_denials(code, stage, side, count);
        }
    }

    fn add_denials(&self, code: Code, stage: Stage, side: Side, count: u64) {
        if code.is_denial() {
            let labels = [("code", code.as_str()), ("stage", stage.as_str()), ("side", side.as_str())];
            self.denials.get_or_create(&labels).inc_by(count);
        }
    }
}

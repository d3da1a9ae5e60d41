//! A snapshot and a request, and the plan: which decision each target gets, and which check speaks first.

use std::sync::Arc;

use serde::Deserialize;
use trust_runtime::domain::identity::IdentityKey;
use trust_runtime::domain::policy::{Decision, Stage};
use trust_runtime::domain::preflight::Asker;
use trust_runtime::engine::view::View;

use crate::case_file::{all, assert_none, toml};
use crate::world::{self, Known, action, now, parsed, policy, profile};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    snapshot: Snapshot,
    case: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    me: String,
    profile: String,
    #[serde(default)]
    policy: toml::Table,
    #[serde(default)]
    peer: Vec<Known>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    actor: String,
    role: String,
    action: String,
    #[serde(default)]
    params: toml::Table,
    /// Target and what must come of it, in order: `allow <rule>` or `<code> <check>`.
    plan: Vec<(String, String)>,
}

fn snapshot(from: &Snapshot) -> View {
    let me: trust_runtime::domain::id::RuntimeId = parsed(&from.me);
    let policy = policy(me.site.as_str(), &from.policy);
    let settings = world::settings(&from.me, profile(&from.profile), policy);
    let peers = from.peer.iter().map(|known| (parsed(&known.runtime), Arc::new(known.peer())));
    View { peers: peers.collect(), ..world::view(settings, IdentityKey::from_seed([1; 32]).fingerprint()) }
}

fn check(view: &View, row: &Row) -> Result<(), String> {
    let asker = Asker { actor: parsed(&row.actor), role: parsed(&row.role), is_verified: true };
    let action = action(&row.action, &row.params);
    let targets: Vec<_> = row.plan.iter().map(|(target, _)| parsed(target)).collect();
    let plan = view.plan(&asker, &action, &targets, now());
    let got: Vec<(String, String)> = plan
        .rows
        .iter()
        .map(|row| {
            let said = match &row.decision {
                Decision::Allow { rule } => format!("allow {rule}"),
                Decision::Deny(denial) if denial.stage == Stage::Origin => format!("{} {}", denial.code, denial.rule),
                Decision::Deny(denial) => format!("not the origin's own: {denial:?}"),
            };
            (row.target.to_string(), said)
        })
        .collect();
    let is_allowed = got.iter().all(|(_, said)| said.starts_with("allow "));
    if plan.is_allowed() != is_allowed || plan.first_denial().is_none() != is_allowed {
        return Err("the plan as a whole says something else than its rows".to_owned());
    }
    if got == row.plan { Ok(()) } else { Err(format!("wanted {:?}, got {got:?}", row.plan)) }
}

#[test]
fn plans() {
    let mut wrong = Vec::new();
    for name in all("preflight", ".toml") {
        let file: File = toml(&name);
        let view = snapshot(&file.snapshot);
        let rows = file.case.iter().filter_map(|row| Some((row, check(&view, row).err()?)));
        wrong.extend(rows.map(|(row, fault)| format!("{name}, {}: {fault}", row.name)));
    }
    assert_none(&wrong);
}

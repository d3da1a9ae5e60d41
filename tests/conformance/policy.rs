//! Rules as a settings file has them, and the decision they give at either end.

use serde::Deserialize;
use trust_runtime::domain::offer::{Known, Offer};
use trust_runtime::domain::policy::Side;
use trust_runtime::domain::preflight::{self, Asker, Case};
use trust_runtime::domain::time::Wall;

use crate::case_file::{all, assert_none, toml};
use crate::world::{NOW_MS, action, parsed, policy, profile};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The site whose rules these are.
    site: String,
    /// `dev`, `plant` or `wan`.
    profile: String,
    policy: toml::Table,
    case: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// `origin` asks `allow_write`, `target` asks `accept_write`.
    at: String,
    actor: String,
    #[serde(default = "engineer")]
    role: String,
    /// Through whom; at the origin this is the runtime that is asked.
    origin: String,
    action: String,
    #[serde(default)]
    params: toml::Table,
    target: String,
    #[serde(default = "now_ms")]
    now_ms: u64,
    /// `allow` or `deny`.
    expect: String,
    /// The code of a denial.
    code: Option<String>,
    /// The rule or check that decided.
    rule: String,
}

fn engineer() -> String {
    "engineer".to_owned()
}

fn now_ms() -> u64 {
    NOW_MS
}

fn check(file: &File, row: &Row) -> Result<(), String> {
    let policy = policy(&file.site, &file.policy);
    let asker = Asker { actor: parsed(&row.actor), role: parsed(&row.role), is_verified: true };
    let (action, target, origin) = (action(&row.action, &row.params), parsed(&row.target), parsed(&row.origin));
    let offer = Offer::default();
    let case = Case {
        asker: &asker,
        action: &action,
        target: &target,
        origin: &origin,
        policy: &policy,
        profile: profile(&file.profile),
        offer: Known::Own(&offer),
        now: Wall::from_millis(row.now_ms),
    };
    let side = match row.at.as_str() {
        "origin" => Side::Outbound,
        "target" => Side::Inbound,
        other => panic!("no end {other}"),
    };
    let (expect, code, rule) = match preflight::authorize(case, side) {
        Ok(rule) => ("allow", None, rule),
        Err(denial) => ("deny", Some(denial.code.to_string()), denial.rule),
    };
    if (expect, &code, &*rule) == (row.expect.as_str(), &row.code, row.rule.as_str()) {
        return Ok(());
    }
    Err(format!("wanted {} {:?} by {}, got {expect} {code:?} by {rule}", row.expect, row.code, row.rule))
}

#[test]
fn policies() {
    let mut wrong = Vec::new();
    for name in all("policy", ".toml") {
        let file: File = toml(&name);
        let rows = file.case.iter().filter_map(|row| Some((row, check(&file, row).err()?)));
        wrong.extend(rows.map(|(row, fault)| format!("{name}, {}: {fault}", row.name)));
    }
    assert_none(&wrong);
}

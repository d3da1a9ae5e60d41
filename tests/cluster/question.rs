//! What the tests ask of nodes: bodies of the action routes, and what stands in their answers.

use serde_json::{Value as Json, json};

use crate::harness::Running;
use crate::http::Answer;

/// Who asks in every test.
pub(crate) const ACTOR: &str = "spiffe://trust/default-site/engineer-1";

pub(crate) const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";
pub(crate) const DISPATCH: &str = "/api/runtime-cloud/actions/dispatch";

/// A read of the status of others.
pub(crate) fn read(via: &str, id: &str, targets: &[&str]) -> Json {
    action(via, id, targets, "status_read", json!({}))
}

/// A write that shows: each change of a live setting raises the target's revision by one. How often it probes is changed by so
/// little that nothing else does.
pub(crate) fn write(via: &str, id: &str, targets: &[&str], more: u64) -> Json {
    action(via, id, targets, "cfg_apply", json!({ "params": { "mesh.timing.probe_ms": 1_000 + more } }))
}

/// A write without any effect but its record.
pub(crate) fn ping(via: &str, id: &str, targets: &[&str]) -> Json {
    action(via, id, targets, "cmd_invoke", json!({ "command": "ping" }))
}

/// A command by its name.
pub(crate) fn command(via: &str, id: &str, target: &str, command: &str, params: &Json) -> Json {
    action(via, id, &[target], "cmd_invoke", json!({ "command": command, "params": params }))
}

fn action(via: &str, id: &str, targets: &[&str], kind: &str, payload: Json) -> Json {
    json!({
        "api_version": "1.0",
        "request_id": id,
        "connected_via": via,
        "target_runtimes": targets,
        "actor": ACTOR,
        "action_type": kind,
        "payload": payload,
    })
}

/// A body with one more field.
pub(crate) fn with(mut body: Json, name: &str, value: impl Into<Json>) -> Json {
    body[name] = value.into();
    body
}

/// One target's result.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) target: String,
    pub(crate) ok: bool,
    pub(crate) code: String,
    pub(crate) audit_id: String,
    pub(crate) revision: Option<u64>,
    pub(crate) text: String,
}

/// The results of a dispatch, in their order. No result at all, only a plan that denies, is given as the plan's rows.
pub(crate) fn outcomes(answer: &Answer) -> Vec<Outcome> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let rows = ["/results", "/preflight/decisions"].map(|place| answer.body.pointer(place).and_then(Json::as_array));
    let rows = rows.into_iter().flatten().find(|rows| !rows.is_empty());
    rows.unwrap_or_else(|| panic!("neither results nor decisions: {}", answer.text)).iter().map(outcome).collect()
}

fn outcome(row: &Json) -> Outcome {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    Outcome {
        target: text("runtime_id"),
        ok: row["ok"].as_bool().or_else(|| row["allowed"].as_bool()).unwrap_or_default(),
        code: text("denial_code"),
        audit_id: text("audit_id"),
        revision: row.pointer("/response/applied_revision").and_then(Json::as_u64),
        text: row.to_string(),
    }
}

impl Running {
    /// The value of one series of its metrics; 0 where it is not there yet.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text);
        let found = answer.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.map_or(0.0, |number| number.parse().expect("a number"))
    }

    /// Dispatches to one target, and gives its outcome.
    #[track_caller]
    pub(crate) fn dispatch_one(&self, body: &Json) -> Outcome {
        outcomes(&self.post(DISPATCH, body)).into_iter().next().expect("one target, one outcome")
    }

    /// The revision of this node's configuration, asked of itself.
    #[track_caller]
    pub(crate) fn revision(&self) -> u64 {
        let answer = self.post(DISPATCH, &read(self.name(), "revision", &[self.name()]));
        let revision = answer.body.pointer("/results/0/response/config_revision").and_then(Json::as_u64);
        revision.unwrap_or_else(|| panic!("no revision: {}", answer.text))
    }

    /// What this node has on record under a request id, oldest first.
    #[track_caller]
    pub(crate) fn records(&self, request_id: &str) -> Vec<Json> {
        let answer = self.get(&format!("/api/runtime-cloud/audit?request_id={request_id}"));
        let mut records = answer.body["records"].as_array().cloned().unwrap_or_else(|| panic!("{}", answer.text));
        records.reverse();
        records
    }

    /// How often a request was carried out here.
    #[track_caller]
    pub(crate) fn applied(&self, request_id: &str) -> usize {
        let is_here = |record: &&Json| record["target"] == self.name() && record["outcome"] == "applied";
        self.records(request_id).iter().filter(is_here).count()
    }
}

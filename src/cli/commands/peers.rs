//! `peers`: who is on the mesh, and whom this node trusts.

use serde_json::{Value as Json, json};

use crate::cli::args::{Peers, Reach};
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output;

/// Lists, approves or forgets.
pub async fn run(command: &Peers) -> Result<(), Failure> {
    match command {
        Peers::List(reach) => list(reach).await,
        Peers::Approve { runtime, fingerprint, reach } => {
            let mut body = json!({ "api_version": "1.0", "runtime_id": runtime });
            if let (Some(fingerprint), Some(fields)) = (fingerprint, body.as_object_mut()) {
                fields.insert("fingerprint".to_owned(), Json::from(fingerprint.as_str()));
            }
            change(reach, "peers-approve", &body, &format!("{runtime} is trusted from now on")).await
        }
        Peers::Forget { runtime, reach } => {
            let body = json!({ "api_version": "1.0", "runtime_id": runtime });
            change(reach, "peers-forget", &body, &format!("{runtime} is forgotten; its next word pins its key anew"))
                .await
        }
    }
}

async fn change(reach: &Reach, verb: &str, body: &Json, done: &str) -> Result<(), Failure> {
    let answer = Client::reach(reach)?.post(&format!("/api/runtime-cloud/control/{verb}"), body).await?;
    if reach.json { output::json(&answer) } else { output::line(done) }
}

async fn list(reach: &Reach) -> Result<(), Failure> {
    let state = Client::reach(reach)?.get("/api/runtime-cloud/state").await?;
    let nodes = state.pointer("/topology/nodes").cloned().unwrap_or_else(|| Json::Array(Vec::new()));
    if reach.json {
        return output::json(&nodes);
    }
    let fields =
        ["runtime_id", "lifecycle_state", "health_state", "trust_state", "config_state", "version", "fingerprint"];
    let rows = nodes.as_array().into_iter().flatten();
    let rows = rows.map(|node| fields.map(|name| output::field(node, name))).collect();
    output::table(["RUNTIME", "LIFECYCLE", "HEALTH", "TRUST", "CONFIG", "VERSION", "FINGERPRINT"], rows)
}

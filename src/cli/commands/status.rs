//! `status` and `ctl status`: how a running node does.

use serde_json::Value as Json;

use crate::cli::args::Reach;
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output;

/// Shows who the node is, how it does, and what it sees.
pub async fn run(reach: &Reach) -> Result<(), Failure> {
    let client = Client::reach(reach)?;
    let state = client.get("/api/runtime-cloud/state").await?;
    let health = client.get("/healthz").await?;
    if reach.json {
        return output::json(&serde_json::json!({ "context": state.get("context"), "health": health }));
    }
    let context = state.get("context").unwrap_or(&Json::Null);
    let me = output::field(context, "connected_via");
    let nodes = state.pointer("/topology/nodes").and_then(Json::as_array);
    let is = |node: &&Json, lifecycle: &str| output::field(node, "lifecycle_state") == lifecycle;
    let online = nodes.map_or(0, |nodes| nodes.iter().filter(|node| is(node, "online")).count());
    let own = nodes.and_then(|nodes| nodes.iter().find(|node| output::field(node, "runtime_id") == me));
    let own = own.unwrap_or(&Json::Null);
    output::line(&format!("runtime      {me} (site {})", output::field(own, "site")))?;
    output::line(&format!("profile      {}", output::field(context, "profile")))?;
    output::line(&format!("role         {}", output::field(context, "role")))?;
    output::line(&format!("health       {}", output::field(own, "health_state")))?;
    output::line(&format!("fingerprint  {}", output::field(own, "fingerprint")))?;
    let identity = health.pointer("/subsystems/identity/detail").and_then(Json::as_str);
    if let Some((_, renewal)) = identity.and_then(|detail| detail.split_once("; the certificate ")) {
        output::line(&format!("certificate  {renewal}"))?;
    }
    output::line(&format!("version      {}", output::field(own, "version")))?;
    output::line(&format!("online       {online} of {} known runtimes", nodes.map_or(0, Vec::len)))
}

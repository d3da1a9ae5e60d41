//! `ctl`: status, live settings, stop.

use serde_json::{Value as Json, json};

use crate::cli::args::{Ctl, Reach};
use crate::cli::client::Client;
use crate::cli::commands::status;
use crate::cli::exit::{self, Exit, Failure};
use crate::cli::output;

/// Controls one node.
pub async fn run(command: &Ctl) -> Result<(), Failure> {
    match command {
        Ctl::Status(reach) => status::run(reach).await,
        Ctl::ConfigGet { key, reach } => config_get(key.as_deref(), reach).await,
        Ctl::ConfigSet { key, value, reach } => config_set(key, value, reach).await,
        Ctl::Reload(reach) => reload(reach).await,
        Ctl::Shutdown(reach) => control(reach, "shutdown", "stopping").await,
        Ctl::TimeReset(reach) => control(reach, "time-reset", "the clock is accepted as it is").await,
    }
}

async fn control(reach: &Reach, verb: &str, done: &str) -> Result<(), Failure> {
    let path = format!("/api/runtime-cloud/control/{verb}");
    let answer = Client::reach(reach)?.post(&path, &json!({ "api_version": "1.0" })).await?;
    if reach.json { output::json(&answer) } else { output::line(done) }
}

async fn reload(reach: &Reach) -> Result<(), Failure> {
    let path = "/api/runtime-cloud/control/reload";
    let answer = Client::reach(reach)?.post(path, &json!({ "api_version": "1.0" })).await?;
    let rows = |name: &str| answer.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
    let rejected = rows("rejected");
    if reach.json {
        output::json(&answer)?;
    } else {
        let lines = |title: &str, rows: &[Json]| match rows {
            [] => Ok(()),
            rows => {
                rows.iter().try_for_each(|it| output::line(&format!("{title} {}", it.as_str().unwrap_or_default())))
            }
        };
        lines("applied      ", &rows("applied"))?;
        lines("at restart   ", &rows("needs_restart"))?;
        if rejected.is_empty() && rows("applied").is_empty() && rows("needs_restart").is_empty() {
            output::line("nothing has changed")?;
        }
    }
    if rejected.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = rejected.iter().map(|it| output::field(it, "reason")).collect();
    let message = format!("what was in force stays, because of:\n{}", reasons.join("\n"));
    Err(Failure::new(Exit::Configuration, message))
}

async fn config_get(key: Option<&str>, reach: &Reach) -> Result<(), Failure> {
    let config = Client::reach(reach)?.get("/api/runtime-cloud/config").await?;
    let values = config.get("reported").cloned().unwrap_or(Json::Null);
    let shown = match key {
        None => values,
        Some(key) => values.get(key).cloned().ok_or_else(|| Failure::failed(format!("{key}: no such live setting")))?,
    };
    if reach.json {
        return output::json(&shown);
    }
    match shown.as_object() {
        Some(fields) => {
            fields.iter().try_for_each(|(name, _)| output::line(&format!("{name} = {}", output::field(&shown, name))))
        }
        None => output::line(&shown.as_str().map_or_else(|| shown.to_string(), str::to_owned)),
    }
}

/// A live setting is changed in the same way as from anywhere else: by a dispatched `cfg_apply`, here to the node itself.
async fn config_set(key: &str, value: &str, reach: &Reach) -> Result<(), Failure> {
    let client = Client::reach(reach)?;
    let state = client.get("/api/runtime-cloud/state").await?;
    let me = state.pointer("/context/connected_via").and_then(Json::as_str).unwrap_or_default();
    let actor = state.pointer("/context/identity").and_then(Json::as_str).unwrap_or_default();
    let value = crate::cli::explanation::typed(value);
    let body = json!({
        "api_version": "1.0",
        "request_id": format!("ctl-{}", request_suffix()?),
        "connected_via": me,
        "target_runtimes": [me],
        "actor": actor,
        "action_type": "cfg_apply",
        "payload": { "params": { key: value } },
    });
    let answer = client.post("/api/runtime-cloud/actions/dispatch", &body).await?;
    if reach.json {
        output::json(&answer)?;
    }
    let denial = answer.pointer("/results/0").filter(|result| result.get("denial_code").is_some());
    let denial = denial.or_else(|| answer.get("preflight").filter(|plan| plan.get("denial_code").is_some()));
    match denial {
        Some(denial) => {
            let code = output::field(denial, "denial_code");
            Err(Failure::new(exit::of_code(&code), format!("{code}: {}", output::field(denial, "denial_reason"))))
        }
        None if answer.get("ok") == Some(&Json::Bool(true)) && !reach.json => output::line(&format!("{key} is set")),
        None if answer.get("ok") == Some(&Json::Bool(true)) => Ok(()),
        None => Err(Failure::new(Exit::Failed, "the node did not say why it refused")),
    }
}

fn request_suffix() -> Result<String, Failure> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

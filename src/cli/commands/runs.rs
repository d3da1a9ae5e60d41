//! `runs`: what goes on and went on, from any node by a run's bare id.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::cli::args::Reach;
use crate::cli::client::Client;
use crate::cli::exit::{self, Exit, Failure};
use crate::cli::output;
use crate::cli::run_args::{EventFormat, Runs};
use crate::domain::run::RunId;

/// How often a stream that broke off is asked for again without one event in between.
const TRIES_MAX: u32 = 3;

/// How long before the first time; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(250);

/// A line longer than any event: whoever sends one is no node.
const LINE_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Lists, shows, follows or cancels.
pub async fn run(command: &Runs) -> Result<(), Failure> {
    match command {
        Runs::List { status, agent, limit, reach } => list(status.as_deref(), agent.as_deref(), *limit, reach).await,
        Runs::Show { run, reach } => show(named(run)?, reach).await,
        Runs::Tail { run, after, format, reach } => {
            let format = if reach.json { EventFormat::Json } else { *format };
            tail(named(run)?, *after, format, reach).await
        }
        Runs::Cancel { run, reach } => cancel(named(run)?, reach).await,
    }
}

fn named(text: &str) -> Result<RunId, Failure> {
    text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{text}: {error}")))
}

async fn list(status: Option<&str>, agent: Option<&str>, limit: u32, reach: &Reach) -> Result<(), Failure> {
    let filters = [("status", status), ("agentName", agent)];
    // Neither a status nor an agent's name has a character that a query would have to escape.
    let is_plain = |text: &str| text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._~".contains(&it));
    let mut path = format!("/runs?limit={limit}");
    for (name, value) in filters.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        if !is_plain(value) {
            return Err(Failure::new(Exit::Usage, format!("{value}: not a {name}")));
        }
        path.push_str(&format!("&{name}={value}"));
    }
    let page = Client::reach_admin(reach)?.get(&path).await?;
    if reach.json {
        return output::json(&page);
    }
    let items = page.get("items").and_then(Json::as_array).cloned().unwrap_or_default();
    let row = |run: &Json| {
        ["runId", "agentName", "instanceId", "status", "startedAt", "durationMs"].map(|name| output::field(run, name))
    };
    let header = ["RUN", "AGENT", "INSTANCE", "STATUS", "STARTED", "MS"];
    output::table(header, items.iter().map(row).collect())
}

async fn show(run: RunId, reach: &Reach) -> Result<(), Failure> {
    let record = Client::reach(reach)?.get(&format!("/runs/{run}")).await?;
    if reach.json {
        output::json(&record)?;
    } else {
        for name in
            ["runId", "agentName", "instanceId", "status", "startedAt", "endedAt", "durationMs", "result", "error"]
        {
            if record.get(name).is_some() {
                output::line(&format!("{name:<12} {}", output::field(&record, name)))?;
            }
        }
    }
    ended(record.get("isError"))
}

/// A run that ended with an error is this command's failure, said by its number alone: the text is in the data.
fn ended(is_error: Option<&Json>) -> Result<(), Failure> {
    match is_error {
        Some(Json::Bool(true)) => Err(Failure::new(Exit::Failed, "")),
        Some(_) | None => Ok(()),
    }
}

/// Where a reader stands in a run.
struct Place {
    last: Option<u64>,
    end: Option<Json>,
}

async fn tail(run: RunId, after: Option<u64>, format: EventFormat, reach: &Reach) -> Result<(), Failure> {
    let client = Client::reach(reach)?;
    let path = format!("/runs/{run}/stream");
    let mut place = Place { last: after, end: None };
    let mut tries = 0;
    loop {
        let before = place.last;
        if let Some(response) = client.follow(&path, place.last).await? {
            read(response, &mut place, format).await?;
            if let Some(end) = &place.end {
                return ended(end.get("isError"));
            }
            // Nothing came, and it broke off in good order: there is nothing behind the place that was asked for.
            let record = client.get(&format!("/runs/{run}")).await?;
            if place.last == before && record.get("endedAt").is_some() {
                return ended(record.get("isError"));
            }
        }
        tries = if place.last == before { tries } else { 0 };
        if TRIES_MAX <= tries {
            return Err(Failure::new(Exit::Unreachable, format!("{run}: the stream broke off {TRIES_MAX} times")));
        }
        tokio::time::sleep(PAUSE.saturating_mul(2_u32.saturating_pow(tries))).await;
        tries = tries.saturating_add(1);
    }
}

/// Prints what comes, until it ends or breaks off.
async fn read(mut response: reqwest::Response, place: &mut Place, format: EventFormat) -> Result<(), Failure> {
    let mut buffer = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.iter().position(|it| *it == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            take(line.trim_ascii(), place, format)?;
        }
        if LINE_BYTES_MAX < buffer.len() {
            return Err(Failure::failed("wanted lines of JSON, got one without an end"));
        }
    }
    Ok(())
}

fn take(line: &[u8], place: &mut Place, format: EventFormat) -> Result<(), Failure> {
    if line.is_empty() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(line);
    let event: Json =
        serde_json::from_str(&text).map_err(|error| Failure::failed(format!("wanted lines of JSON: {error}")))?;
    if let Some(error) = event.get("error").filter(|_| event.get("type").is_none()) {
        let kind = output::field(error, "type");
        let exit = match kind.as_str() {
            "run_owner_unreachable" => Exit::Unreachable,
            "storage_unavailable" => Exit::TimedOut,
            _ => Exit::Failed,
        };
        return Err(Failure::new(exit, format!("{kind}: {}", output::field(error, "message"))));
    }
    let index = event.get("eventIndex").and_then(Json::as_u64);
    // After a reconnect nothing is printed twice, whatever the other side sends.
    if index.is_some_and(|index| place.last.is_some_and(|last| index <= last)) {
        return Ok(());
    }
    match format {
        EventFormat::Json => output::json(&event)?,
        EventFormat::Ndjson => output::line(&text)?,
        EventFormat::Pretty => output::line(&pretty(&event))?,
    }
    place.last = index.or(place.last);
    if event.get("type").and_then(Json::as_str) == Some("run_end") {
        place.end = Some(event);
    }
    Ok(())
}

fn pretty(event: &Json) -> String {
    let mut rest = event.clone();
    if let Some(fields) = rest.as_object_mut() {
        for name in ["type", "runId", "eventIndex", "timestamp"] {
            fields.remove(name);
        }
    }
    let text = match event.get("message").or_else(|| event.get("text")) {
        Some(Json::String(text)) => text.escape_debug().to_string(),
        Some(_) | None => rest.to_string(),
    };
    let [at, kind] = ["timestamp", "type"].map(|name| output::field(event, name));
    format!("{at} {kind:<16} {text}")
}

/// A run is cancelled as anything is done to a runtime: by a dispatched command to the one that has it.
async fn cancel(run: RunId, reach: &Reach) -> Result<(), Failure> {
    let client = Client::reach(reach)?;
    let (_, owner) = client.get_with(&format!("/runs/{run}"), "x-trust-run-owner").await?;
    let owner = owner.ok_or_else(|| Failure::failed("the node does not say which runtime has the run"))?;
    let state = client.get("/api/runtime-cloud/state").await?;
    let of_context = |name: &str| state.pointer(&format!("/context/{name}")).and_then(Json::as_str).unwrap_or_default();
    let body = json!({
        "api_version": "1.0",
        "request_id": format!("cancel-{run}-{}", std::process::id()),
        "connected_via": of_context("connected_via"),
        "target_runtimes": [owner],
        "actor": of_context("identity"),
        "action_type": "cmd_invoke",
        "payload": { "command": "cancel", "params": { "run_id": run.to_string() } },
    });
    let answer = client.post("/api/runtime-cloud/actions/dispatch", &body).await?;
    if reach.json {
        output::json(&answer)?;
    }
    let is_done = answer.get("ok") == Some(&Json::Bool(true));
    if is_done {
        return if reach.json { Ok(()) } else { output::line(&format!("{run} is being cancelled")) };
    }
    let refusal = |pointer: &str| answer.pointer(pointer).and_then(Json::as_str);
    let of = |name: &str| refusal(&format!("/results/0/{name}")).or_else(|| refusal(&format!("/preflight/{name}")));
    let code = of("denial_code").unwrap_or("failed");
    Err(Failure::new(exit::of_code(code), format!("{code}: {}", of("denial_reason").unwrap_or("not cancelled"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_says_why_it_ends_ends_with_the_number_of_that() {
        let heard = |kind: &str| {
            let line = format!(r#"{{"error":{{"type":"{kind}","message":"why","details":""}}}}"#);
            let mut place = Place { last: Some(3), end: None };
            take(line.as_bytes(), &mut place, EventFormat::Ndjson).expect_err("an end")
        };
        for (kind, exit) in [
            ("run_owner_unreachable", Exit::Unreachable),
            ("storage_unavailable", Exit::TimedOut),
            ("run_not_found", Exit::Failed),
        ] {
            let failure = heard(kind);
            assert_eq!((failure.exit, failure.message), (exit, format!("{kind}: why")));
        }
    }
}

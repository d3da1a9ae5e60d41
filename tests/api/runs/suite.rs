//! The lines of the contract on runs as data: each case names its lines, asks over HTTP alone, and says what must come.
//!
//! `TRUST_RUNS_BASE` and `TRUST_RUNS_ADMIN` (host and port each), with `TRUST_RUNS_MOUNT`, point the suite to a running node that declares the agents of
//! the fixture; without them it brings its own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value as Json;

use super::http::{Heard, ask, frames};
use super::{AGENTS, Served, serve};
use crate::fleet::TOKEN;
use crate::sockets::PATIENCE;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    lines: Vec<String>,
    says: String,
    step: Vec<Step>,
}

/// One request and what must come. `{name}` stands for what an earlier step of the case has kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Method, path and query.
    ask: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    /// So many times.
    #[serde(default = "once")]
    times: usize,
    /// Again and again until it comes.
    #[serde(default)]
    until: bool,
    status: u16,
    /// Exactly these headers; an empty text means none.
    #[serde(default)]
    header: BTreeMap<String, String>,
    /// Values at JSON pointers.
    #[serde(default)]
    json: BTreeMap<String, Json>,
    /// Pointers at which nothing is.
    #[serde(default)]
    absent: Vec<String>,
    /// Texts that are in the body.
    #[serde(default)]
    holds: Vec<String>,
    /// Texts that are not.
    #[serde(default)]
    lacks: Vec<String>,
    /// The lengths of lists at pointers.
    #[serde(default)]
    length: BTreeMap<String, usize>,
    /// The members of the object at the root, all of them.
    members: Option<Vec<String>>,
    /// The types of events of a stream, in order; `x*3` for three of them.
    events: Option<Vec<String>>,
    /// The id of its first event.
    first: Option<u64>,
    /// The whole body.
    text: Option<String>,
    /// What later steps need, by JSON pointer or as `header:name`.
    #[serde(default)]
    keep: BTreeMap<String, String>,
}

fn once() -> usize {
    1
}

fn filled(text: &str, kept: &BTreeMap<String, String>) -> String {
    kept.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

impl Step {
    async fn take(&self, served: &Served, kept: &mut BTreeMap<String, String>) -> Result<(), String> {
        let (method, path) = self.ask.split_once(' ').expect("method and path");
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), filled(value, kept))).collect();
        if self.body.is_some() && !self.headers.contains_key("content-type") {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        if self.admin && !self.headers.contains_key("authorization") {
            headers.push(("authorization".to_owned(), format!("Bearer {TOKEN}")));
        }
        headers.retain(|(_, value)| value != "none");
        let authority = if self.admin { &served.admin } else { &served.base };
        let body = self.body.as_ref().map(|body| filled(body, kept));
        let heard = ask(authority, method, &filled(path, kept), &headers, body.as_deref()).await;
        self.check(&heard, kept).map_err(|fault| {
            let shown: String = heard.body.chars().take(600).collect();
            format!("{}: {fault}\n  {} {:?}\n  {shown}", self.ask, heard.status, heard.headers)
        })?;
        for (name, at) in &self.keep {
            let value = match at.strip_prefix("header:") {
                Some(header) => heard.headers.get(header).cloned(),
                None => heard.json().pointer(at).and_then(Json::as_str).map(str::to_owned),
            };
            kept.insert(name.clone(), value.ok_or_else(|| format!("{}: nothing to keep at {at}", self.ask))?);
        }
        Ok(())
    }

    fn check(&self, heard: &Heard, kept: &BTreeMap<String, String>) -> Result<(), String> {
        let wanted = |is: bool, what: String| if is { Ok(()) } else { Err(what) };
        wanted(heard.status == self.status, format!("wanted {}", self.status))?;
        for (name, value) in &self.header {
            let value = Some(filled(value, kept)).filter(|it| !it.is_empty());
            wanted(heard.headers.get(name) == value.as_ref(), format!("wanted {name}: {value:?}"))?;
        }
        for (at, value) in &self.json {
            let value: Json = serde_json::from_str(&filled(&value.to_string(), kept)).expect("JSON");
            wanted(heard.json().pointer(at) == Some(&value), format!("wanted {value} at {at:?}"))?;
        }
        for at in &self.absent {
            wanted(heard.json().pointer(at).is_none(), format!("wanted nothing at {at}"))?;
        }
        for (at, length) in &self.length {
            let found = heard.json().pointer(at).and_then(Json::as_array).map(Vec::len);
            wanted(found == Some(*length), format!("wanted {length} at {at}, got {found:?}"))?;
        }
        if let Some(members) = &self.members {
            let found: BTreeSet<_> = heard.json().as_object().expect("an object").keys().cloned().collect();
            wanted(found == members.iter().cloned().collect(), format!("wanted {members:?}, got {found:?}"))?;
        }
        for text in &self.holds {
            wanted(heard.body.contains(&filled(text, kept)), format!("wanted {text:?} in it"))?;
        }
        for text in &self.lacks {
            wanted(!heard.body.contains(&filled(text, kept)), format!("wanted no {text:?} in it"))?;
        }
        wanted(self.text.as_ref().is_none_or(|text| *text == heard.body), "wanted another body".to_owned())?;
        self.check_events(heard)
    }

    fn check_events(&self, heard: &Heard) -> Result<(), String> {
        let Some(events) = &self.events else { return Ok(()) };
        let expected: Vec<String> = events
            .iter()
            .flat_map(|it| {
                let (name, count) = it.split_once('*').unwrap_or((it, "1"));
                vec![name.to_owned(); count.parse().expect("a number")]
            })
            .collect();
        let found = frames(&heard.body);
        let names: Vec<_> = found.iter().map(|frame| frame.event.clone()).collect();
        if names != expected {
            return Err(format!("wanted {expected:?}, got {names:?}"));
        }
        for (number, frame) in (self.first.unwrap_or(0)..).zip(&found) {
            let data: Json = serde_json::from_str(&frame.data).expect("JSON on one line");
            let is_own = frame.event == "error" || data["eventIndex"] == number && data["type"] == frame.event.as_str();
            if frame.id != number.to_string() || !is_own {
                return Err(format!("wanted event {number}, got {frame:?}"));
            }
        }
        Ok(())
    }
}

async fn run_case(case: &Case, served: &Served) -> Result<(), String> {
    let mount = std::env::var("TRUST_RUNS_MOUNT").unwrap_or_else(|_| "/fleet/admin".to_owned());
    let mut kept = BTreeMap::from([("admin".to_owned(), mount)]);
    for step in &case.step {
        for _ in 0..step.times {
            let trying = async {
                loop {
                    match step.take(served, &mut kept).await {
                        Err(_) if step.until => tokio::task::yield_now().await,
                        taken => return taken,
                    }
                }
            };
            tokio::time::timeout(PATIENCE, trying).await.map_err(|_late| format!("{}: not in time", step.ask))??;
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_line_of_the_contract_holds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/cases/runs");
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the cases") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let File { case: cases } = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in &cases {
            let served = serve(|_| {}).await;
            count += 1;
            if let Err(fault) = run_case(case, &served).await {
                failed.push(format!("{} {:?}: {fault}", case.says, case.lines));
            }
        }
    }
    assert!(failed.is_empty() && 0 < count, "{} of {count}:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(AGENTS.len(), 7);
}

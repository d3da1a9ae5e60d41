//! The lines of the contract on runs as data: each case names its lines, asks over HTTP alone, and says what must come. It is
//! asked of whatever serves: a node in this process, or a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use super::http::{Heard, ask, frames};

/// How long one step may take, however often it is repeated: programs are started by it.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Between two looks at what has not come yet.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The programs of the contract's fixture, by the names of their agents, and one that returns nothing. Only those with the
/// mark are started over HTTP.
pub(crate) const AGENTS: [(&str, &str, bool); 7] = [
    ("big", "big.py", true),
    ("boom", "boom.py", true),
    ("hello", "hello.sh", true),
    ("many", "many.py", true),
    ("nothing", "nothing.sh", true),
    ("offline", "hello.sh", false),
    ("slow", "slow.py", true),
];

/// Where the two listeners of a node are.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Host and port of the public one.
    pub(crate) base: String,
    /// Those of the admins' one.
    pub(crate) admin: String,
    /// What stands before its paths.
    pub(crate) mount: String,
    /// An operator's token that opens it.
    pub(crate) token: String,
    /// An operator's token that opens the public one.
    pub(crate) public: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) lines: Vec<String>,
    pub(crate) says: String,
    /// Why no real node can show it, if so.
    pub(crate) double: Option<String>,
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
    async fn take(&self, target: &Target, kept: &mut BTreeMap<String, String>) -> Result<(), String> {
        let (method, path) = self.ask.split_once(' ').expect("method and path");
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), filled(value, kept))).collect();
        if self.body.is_some() && !self.headers.contains_key("content-type") {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        if self.admin && !self.headers.contains_key("authorization") {
            headers.push(("authorization".to_owned(), format!("Bearer {}", target.token)));
        }
        headers.retain(|(_, value)| value != "none");
        let authority = if self.admin { &target.admin } else { &target.base };
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

impl Case {
    /// Takes every step, one after the other, on a node that has seen nothing yet.
    pub(crate) async fn run(&self, target: &Target) -> Result<(), String> {
        let Target { mount, token, public, .. } = target;
        let known = [("admin", mount), ("token", token), ("public", public)];
        let mut kept: BTreeMap<_, _> = known.map(|(name, value)| (name.to_owned(), value.clone())).into();
        for step in &self.step {
            for _ in 0..step.times {
                let trying = async {
                    loop {
                        match step.take(target, &mut kept).await {
                            // waits: what another process does is seen by looking again.
                            Err(_) if step.until => tokio::time::sleep(LOOK_EVERY).await,
                            taken => return taken,
                        }
                    }
                };
                tokio::time::timeout(STEP_MAX, trying)
                    .await
                    .map_err(|_late| format!("{}: not in time", step.ask))??;
            }
        }
        Ok(())
    }
}

/// The cases of one file, or of all where none is named.
pub(crate) fn cases(only: Option<&str>) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/cases/runs");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("the cases").map(|it| it.expect("a file").path()).collect();
    paths.sort();
    paths.retain(|path| only.is_none_or(|name| path.ends_with(name)));
    let all: Vec<_> = paths
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).expect("text");
            toml::from_str::<File>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).case
        })
        .collect();
    assert!(!all.is_empty(), "no cases in {only:?}");
    all
}

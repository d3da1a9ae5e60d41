//! Join tokens at the authority and at whoever joins: made, bound, used up once, and the answer checked.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::authority::{Authority, seconds};
use super::{disk, hand_out, is_own, list, request, say, say_issued};
use crate::cli::args::JoinToken as Command;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::domain::id::Segment;
use crate::domain::identity::join::{JoinToken, Kept};
use crate::domain::identity::{Fingerprint, Subject, SubjectName, words};
use crate::domain::time::{Millis, Wall};

pub(super) const FILE: &str = "join-tokens.json";
/// Most tokens that are kept: a list that a person can still review.
const TOKENS_MAX: usize = 256;
/// Longest token or proof file, in bytes.
const BYTES_MAX: u64 = 4_096;
/// The pattern of any name.
const ANY: &str = "*";

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    /// A hash of the secret: what is kept opens nothing but proofs.
    kept: String,
    /// `node` or `actor`.
    kind: String,
    /// One name, or `*`.
    name: String,
    created: u64,
    until: u64,
    /// The fingerprint of the key that used it up.
    redeemed_by: Option<String>,
    /// When it was taken back, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<u64>,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Redeemed,
    Revoked,
    Expired,
}

impl Row {
    /// What was done with it counts for more than what the clock says.
    const fn state(&self, now: u64) -> State {
        if self.redeemed_by.is_some() {
            State::Redeemed
        } else if self.revoked.is_some() {
            State::Revoked
        } else if self.until <= now {
            State::Expired
        } else {
            State::Open
        }
    }
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redeemed => "redeemed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// What travels with a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    id: String,
    proof: String,
}

/// `identity join-token`.
pub(super) fn run(command: &Command, now: Wall) -> Result<(), Failure> {
    match command {
        Command::Create { ca, node, actor, minutes } => {
            let (kind, name) = match (node, actor) {
                (Some(name), _) => ("node", name),
                (None, Some(name)) => ("actor", name),
                (None, None) => return Err(Failure::new(Exit::Usage, "wanted --node or --actor")),
            };
            create(&Authority::open(&ca.ca)?, (kind, name), *minutes, ca.json, now)
        }
        Command::List { ca } => show(&Authority::open(&ca.ca)?, ca.json, now),
        Command::Revoke { ca, id } => revoke(&Authority::open(&ca.ca)?, id, ca.json, now),
    }
}

fn create(
    authority: &Authority,
    (kind, name): (&str, &str),
    minutes: u32,
    as_json: bool,
    now: Wall,
) -> Result<(), Failure> {
    if name != ANY && name.parse::<Segment>().is_err() {
        let message = format!("--{kind} {name:?}: wanted a name of site {}, or * for any", authority.site);
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut rows = read(authority)?;
    // What is over, used up or revoked is kept as long as there is room for it.
    while TOKENS_MAX <= rows.len() {
        let Some(old) = rows.iter().position(|row| row.state(seconds(now)) != State::Open) else {
            let message = format!("there are {TOKENS_MAX} open tokens: wait until some are over");
            return Err(Failure::new(Exit::Conflict, message));
        };
        rows.remove(old);
    }
    let pin = authority.anchors_print()?;
    let token = JoinToken::new(u32::from_be_bytes(random()?), random()?, pin);
    let until = now.plus(Millis::from_secs(u64::from(minutes).saturating_mul(60)));
    rows.push(Row {
        id: token.id(),
        kept: Fingerprint(token.kept().0).to_string(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        created: seconds(now),
        until: seconds(until),
        redeemed_by: None,
        revoked: None,
    });
    write(authority, &rows)?;
    let shown = list::shown(until)?;
    say(
        as_json,
        &json!({ "id": token.id(), "token": token.compose(), "kind": kind, "name": name, "until": shown }),
        &[
            format!("token        {}", token.compose()),
            format!("for          one {kind} {name} of site {}, until {shown}", authority.site),
            format!("authority    {}", words::spoken(&pin)),
            "next         bring it to the node by another way than the request: `identity enrol --join-token`"
                .to_owned(),
        ],
    )
}

fn show(authority: &Authority, as_json: bool, now: Wall) -> Result<(), Failure> {
    let state = |row: &Row| row.state(seconds(now)).word();
    let rows = read(authority)?;
    if as_json {
        let rows: Vec<_> = rows
            .iter()
            .map(|it| json!({ "id": it.id, "kind": it.kind, "name": it.name, "state": state(it), "redeemed_by": it.redeemed_by }))
            .collect();
        return output::json(&json!(rows));
    }
    rows.iter().try_for_each(|it| output::line(&format!("{} {:<8} {} {}", it.id, state(it), it.kind, it.name)))
}

/// Takes a token back. Under the folder's lock it is used or revoked, never both.
fn revoke(authority: &Authority, id: &str, as_json: bool, now: Wall) -> Result<(), Failure> {
    let mut rows = read(authority)?;
    let Some(row) = rows.iter_mut().find(|row| row.id == id) else {
        let message = format!("no join token has the id {id:?}: `identity join-token list` shows those there are");
        return Err(Failure::failed(message));
    };
    if let Some(key) = &row.redeemed_by {
        let message = format!("token {id} was used already: shut its key out with `identity ban --key {key}`");
        return Err(Failure::new(Exit::Conflict, message));
    }
    // One that is over is marked too: a clock that is set back must not open it again.
    let is_new = row.revoked.is_none();
    row.revoked.get_or_insert(seconds(now));
    write(authority, &rows)?;
    let state = if is_new { "is revoked" } else { "was revoked already" };
    say(as_json, &json!({ "id": id, "revoked": true, "is_new": is_new }), &[format!("token {id} {state}")])
}

/// On the node: binds a request to the token. Gives the proof's file.
pub(super) fn bind(token: &JoinToken, request: &Path) -> Result<PathBuf, Failure> {
    let proof = token.kept().proof(disk::read(request)?.as_bytes());
    let proof = Proof { id: token.id(), proof: Fingerprint(proof).to_string() };
    let path = request.with_extension("join");
    let text = serde_json::to_string(&proof).map_err(|error| Failure::failed(error.to_string()))?;
    disk::write(&path, text.as_bytes(), disk::PUBLIC)?;
    Ok(path)
}

/// At the authority: uses the token up, durably, and only then issues.
pub(super) fn redeem(
    authority: &Authority,
    path: &Path,
    asked: &request::Request,
    life: Millis,
    (out, as_json): (&Path, bool),
    now: Wall,
) -> Result<(), Failure> {
    is_own(authority, &asked.subject)?;
    let proof = path.with_extension("join");
    let mut rows = read(authority)?;
    let row = admitted(&mut rows, &disk::read(&proof)?, &disk::read(path)?, &asked.subject, now)
        .map_err(|reason| Failure::new(Exit::Denied, format!("{}: {reason}", proof.display())))?;
    row.redeemed_by = Some(asked.fingerprint.to_string());
    write(authority, &rows)?;
    let issued = authority.issue(&asked.subject, &asked.names, &asked.key, life, now)?;
    let files = hand_out(authority, &asked.subject, &issued, out)?;
    output::note(&format!("words        {}: what the node shows", words::spoken(&asked.fingerprint)));
    say_issued(as_json, authority, &issued, &files)
}

/// The open token that this request proves, for this subject.
fn admitted<'a>(
    rows: &'a mut [Row],
    proof: &str,
    request: &str,
    subject: &Subject,
    now: Wall,
) -> Result<&'a mut Row, &'static str> {
    let unproven = "the proof is not of an open token for this request";
    let proof: Proof =
        serde_json::from_str(proof).map_err(|_any_fault| "wanted a proof as `identity enrol` makes it")?;
    let row = rows.iter_mut().find(|row| row.id == proof.id).ok_or(unproven)?;
    let given: Fingerprint = proof.proof.parse().map_err(|_any_fault| unproven)?;
    let kept: Fingerprint = row.kept.parse().map_err(|_any_fault| unproven)?;
    if !Kept(kept.0).proves(request.as_bytes(), &given.0) {
        return Err(unproven);
    }
    let (kind, name) = match &subject.name {
        SubjectName::Runtime(name) => ("node", name),
        SubjectName::Actor(name) => ("actor", name),
    };
    match row.state(seconds(now)) {
        State::Redeemed => Err("the token was used already"),
        State::Revoked => Err("the token was revoked"),
        State::Expired => Err("the token is over"),
        State::Open if row.kind == kind && (row.name == ANY || row.name == name.as_str()) => Ok(row),
        State::Open => Err("the token is for another kind or name"),
    }
}

/// Reads a token from its file, or from standard input.
pub(super) fn read_token(path: &Path) -> Result<JoinToken, Failure> {
    let mut text = String::new();
    if path == Path::new("-") {
        let read = std::io::stdin().take(BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    } else {
        text = disk::read_secret(path)?;
    }
    text.trim().parse().map_err(|error| Failure::new(Exit::Usage, format!("--join-token: {error}")))
}

fn read(authority: &Authority) -> Result<Vec<Row>, Failure> {
    let path = authority.folder.join(FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let wrong = |error: serde_json::Error| Failure::new(Exit::Configuration, format!("{}: {error}", path.display()));
    serde_json::from_str(&disk::read(&path)?).map_err(wrong)
}

fn write(authority: &Authority, rows: &[Row]) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(rows).map_err(|error| Failure::failed(error.to_string()))?;
    disk::write(&authority.folder.join(FILE), format!("{text}\n").as_bytes(), disk::SECRET)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("the system's random bytes: {error}")))?;
    Ok(bytes)
}

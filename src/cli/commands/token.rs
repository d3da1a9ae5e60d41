//! `token`: makes, lists and revokes a project's bearer tokens, in its files, whether its node runs or not.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::cli::exit::{Exit, Failure};
use crate::cli::token_args::{Token, TokenCreate};
use crate::cli::{environment, output};
use crate::domain::identity::Role;
use crate::domain::identity::token::{self, Audience, TokenId, TokenRecord};
use crate::domain::time::{Millis, Wall};
use crate::node::clock::{self, Clock};
use crate::settings::{self, Settings, tokens};

/// How often a new id may already be taken before something else must be wrong.
const ID_TRIES: usize = 8;

/// Creates, lists or revokes.
pub fn run(command: &Token) -> Result<(), Failure> {
    match command {
        Token::Create(command) => create(command),
        Token::List { project, json } => list(project, *json),
        Token::Revoke { id, project, json } => revoke(*id, project, *json),
    }
}

/// The project's settings and its state folder.
fn open(project: &Path) -> Result<(Settings, PathBuf), Failure> {
    let settings = settings::load(project, environment())
        .map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))?;
    let folder = project.join(&settings.store.path);
    std::fs::create_dir_all(&folder).map_err(|error| Failure::failed(format!("{}: {error}", folder.display())))?;
    Ok((settings, folder))
}

fn create(command: &TokenCreate) -> Result<(), Failure> {
    if command.audience == Audience::Admin && command.role < Role::Operator {
        return Err(Failure::new(
            Exit::Usage,
            "wanted the role operator or more: the admin listener lets nobody else in",
        ));
    }
    let (settings, folder) = open(&command.project)?;
    let site = settings.site();
    let name = if command.actor.contains('/') { command.actor.clone() } else { format!("{site}/{}", command.actor) };
    let actor = name.parse().map_err(|error| Failure::new(Exit::Usage, format!("--actor {name:?}: {error}")))?;
    let created = Clock::start().now().wall;
    let life = |days| Millis::from_hours(u64::from(days).saturating_mul(24));
    let secret = clock::random();
    let (record, text) = tokens::change(&folder, site, |records| {
        let id = free_id(records)?;
        let text = token::compose(id, &secret);
        let record = TokenRecord {
            id,
            digest: token::digest(text.as_bytes()),
            role: command.role,
            audience: command.audience,
            actor,
            created,
            expires: command.expires_days.map(|days: u16| created.plus(life(days))),
            note: command.note.clone(),
        };
        records.push(record.clone());
        Ok((record, text))
    })
    .map_err(failure)?;
    show_new(&record, &text, command.json)
}

fn free_id(records: &[TokenRecord]) -> Result<TokenId, tokens::Error> {
    let draw = || TokenId::from_bits(u32::from_be_bytes(clock::random()));
    let free = (0..ID_TRIES).map(|_| draw()).find(|id| records.iter().all(|record| record.id != *id));
    free.ok_or_else(|| tokens::Error::Refused("no free token id was found; try again".to_owned()))
}

/// The only time that the token is seen.
fn show_new(record: &TokenRecord, text: &str, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let mut shown = describe(record, None);
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("token".to_owned(), Json::from(text));
        }
        return output::json(&shown);
    }
    output::note(&format!(
        "token {} for {} as {}, {} listener: keep it now, it is not shown again",
        record.id, record.actor, record.role, record.audience
    ));
    output::line(text)
}

fn list(project: &Path, as_json: bool) -> Result<(), Failure> {
    let (settings, folder) = open(project)?;
    let held = tokens::load(&folder, settings.site()).map_err(failure)?;
    let uses = tokens::uses(&folder);
    let now = Clock::start().now().wall;
    let rows: Vec<_> = held.records().map(|record| (record, uses.get(&record.id).copied())).collect();
    if as_json {
        return output::json(&rows.iter().map(|(record, used)| describe(record, *used)).collect());
    }
    let row = |(record, used): &(&TokenRecord, Option<Wall>)| {
        let expires = match record.expires {
            None => "never".to_owned(),
            Some(end) if end <= now => format!("{} (expired)", settings::moment_text(end)),
            Some(end) => settings::moment_text(end),
        };
        let used = used.map_or_else(|| "-".to_owned(), settings::moment_text);
        [
            record.id.to_string(),
            record.role.to_string(),
            record.audience.to_string(),
            record.actor.to_string(),
            expires,
            used,
            record.note.clone(),
        ]
    };
    output::table(["ID", "ROLE", "AUDIENCE", "ACTOR", "EXPIRES", "LAST USED", "NOTE"], rows.iter().map(row).collect())
}

fn revoke(id: TokenId, project: &Path, as_json: bool) -> Result<(), Failure> {
    let (settings, folder) = open(project)?;
    tokens::change(&folder, settings.site(), |records| {
        let before = records.len();
        records.retain(|record| record.id != id);
        if records.len() < before {
            return Ok(());
        }
        Err(tokens::Error::Refused(format!("no token has the id {id}; `token list` shows those there are")))
    })
    .map_err(failure)?;
    if as_json {
        return output::json(&json!({ "id": id.to_string(), "revoked": true }));
    }
    output::line(&format!("token {id} is revoked; a running node takes that up within a second"))
}

fn describe(record: &TokenRecord, used: Option<Wall>) -> Json {
    let mut shown = json!({
        "id": record.id.to_string(),
        "role": record.role.as_str(),
        "audience": record.audience.as_str(),
        "actor": record.actor.to_string(),
        "created_ns": record.created.0,
        "note": record.note,
    });
    if let Some(fields) = shown.as_object_mut() {
        let moments = [("expires_ns", record.expires), ("last_used_ns", used)];
        fields.extend(moments.into_iter().filter_map(|(name, at)| Some((name.to_owned(), Json::from(at?.0)))));
    }
    shown
}

fn failure(error: tokens::Error) -> Failure {
    let exit = match &error {
        tokens::Error::Content { .. } | tokens::Error::Exposed { .. } => Exit::Configuration,
        tokens::Error::File { .. } | tokens::Error::Refused(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

//! What peers and this runtime said to the heads of each other's logs, read from outside without a running node.

use std::path::Path;

use rusqlite::params;

use super::file::{self, Name};
use crate::domain::audit::witness::Head;
use crate::domain::audit::{Countersigner, Held, NoteError, Source, Verifier};
use crate::domain::id::RuntimeId;
use crate::engine::record::{Countersigned, Record};
use crate::store::Error;
use crate::wire::record::{self, COUNTERSIGNED, HEAD};

/// The words of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// What peers said to the own log.
    pub countersigned: Vec<Countersigned>,
    /// The newest head of each peer's log.
    pub heads: Vec<(RuntimeId, Head)>,
}

/// Reads them. The node may be running or not.
pub fn read_words(folder: &Path) -> Result<Words, Error> {
    let folder = folder
        .canonicalize()
        .map_err(|error| Error::Unreadable { place: folder.display().to_string(), reason: error.to_string() })?;
    let path = folder.join(Name::Control.as_str());
    let connection = file::open_reader(&folder, Name::Control)?;
    let read = || {
        let mut statement =
            connection.prepare("SELECT kind, key, body FROM fact WHERE kind IN (?1, ?2) ORDER BY key")?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        statement.query_map(params![COUNTERSIGNED, HEAD], row)?.collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows: Vec<(String, String, String)> = read().map_err(|error| super::error::opening(&path, error))?;
    let mut words = Words::default();
    for (kind, key, body) in rows {
        let unreadable = |error: record::Error| {
            let place = path.display().to_string();
            Error::Unreadable { place, reason: error.to_string() }
        };
        match record::decode(&kind, &key, &body).map_err(unreadable)? {
            Record::Countersigned(word) => words.countersigned.push(*word),
            Record::Head { runtime, head } => words.heads.push((runtime, *head)),
            Record::Boot { .. }
            | Record::ClockMark { .. }
            | Record::CountersignedForgotten { .. }
            | Record::Deed(_)
            | Record::DeedClosed(_)
            | Record::DroppedUntil { .. }
            | Record::HeadForgotten { .. }
            | Record::Intent(_)
            | Record::IntentClosed(_)
            | Record::Overlay(_)
            | Record::Peer(_)
            | Record::PeerForgotten { .. }
            | Record::Receipt(_)
            | Record::ReceiptDropped(_)
            | Record::Run(_)
            | Record::RunClosed(_) => {}
        }
    }
    Ok(words)
}

/// What peers said, as far as it is evidence.
#[derive(Default)]
pub(super) struct Evidence {
    pub(super) held: Vec<Held>,
    /// Who has countersigned, and how many records.
    pub(super) countersigned: Vec<(String, u64)>,
}

/// What peers said to the checkpoints of this key. A peer's own key counts by what is known of it from elsewhere, if it is.
pub(super) fn held(folder: &Path, key: &Verifier, witnesses: &[Verifier]) -> Result<Evidence, Error> {
    let mut evidence = Evidence::default();
    for word in read_words(folder)?.countersigned {
        let is_by_another = |note: &str| matches!(key.open(note), Err(NoteError::Unsigned(_)));
        if !word.note.is_empty() && !is_by_another(&word.note) {
            let held = Held::read(Source::Own, &word.note, key);
            let size = held.checkpoint.as_ref().ok().map(|it| it.size);
            match (check(&word, witnesses), size) {
                (Ok(()), Some(size)) => evidence.countersigned.push((word.witness.to_string(), size)),
                (Ok(()), None) => {}
                (Err(reason), _) => {
                    evidence.held.push(Held { source: Source::Own, checkpoint: Err(reason) });
                }
            }
            evidence.held.push(held);
        }
        if let Some(refused) = word.refused.filter(|it| !is_by_another(&it.held)) {
            let source = Source::Elsewhere(format!("the head that {} keeps", word.witness));
            evidence.held.push(Held::read(source, &refused.held, key));
        }
    }
    Ok(evidence)
}

fn check(word: &Countersigned, witnesses: &[Verifier]) -> Result<(), String> {
    let named = crate::domain::audit::log_name(&word.witness);
    let given: Countersigner = word.key.parse().map_err(|error: NoteError| error.to_string())?;
    let known = witnesses.iter().find(|it| it.name() == named).map(Verifier::countersigner);
    let key = known.unwrap_or(given);
    match key.countersigned(&word.note) {
        Ok(Some(_)) if key.name() == named => Ok(()),
        Ok(_) => Err(format!("the countersignature of {} is by another key than its own", word.witness)),
        Err(error) => Err(format!("the countersignature of {}: {error}", word.witness)),
    }
}

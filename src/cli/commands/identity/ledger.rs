//! Everything an authority has issued, one JSON line each: written and durable before the certificate is handed out.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::commands::identity::disk;
use crate::cli::exit::{Exit, Failure};
use crate::node::draft;

/// One certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The serial number in hexadecimal digits.
    pub(super) serial: String,
    /// The SPIFFE ID.
    pub(super) id: String,
    /// Which of the authority's keys has signed it.
    pub(super) generation: u32,
    /// When it was issued, in Unix seconds.
    pub(super) issued: u64,
    /// Its last second, in Unix seconds.
    pub(super) not_after: u64,
    /// SHA-256 of the certificate.
    pub(super) certificate: String,
    /// SHA-256 of the public key.
    pub(super) key: String,
}

/// The file of an authority's folder.
#[derive(Debug)]
pub(super) struct Ledger(PathBuf);

impl Ledger {
    pub(super) fn of(folder: &Path) -> Self {
        Self(folder.join("issued.jsonl"))
    }

    /// All entries, the oldest first. A last line without an end was never handed out and does not count.
    pub(super) fn read(&self) -> Result<Vec<Entry>, Failure> {
        if !self.0.exists() {
            return Ok(Vec::new());
        }
        let text = disk::read_long(&self.0)?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _torn)| whole);
        let lines = whole.lines().enumerate();
        lines.map(|(index, line)| self.parse(index.saturating_add(1), line)).collect()
    }

    fn parse(&self, number: usize, line: &str) -> Result<Entry, Failure> {
        serde_json::from_str(line).map_err(|error| {
            let message = format!("{}:{number}: {error}: restore the file from a backup", self.0.display());
            Failure::new(Exit::Configuration, message)
        })
    }

    /// Adds an entry. It is durable when this returns.
    pub(super) fn append(&self, entry: &Entry) -> Result<(), Failure> {
        let mut line = serde_json::to_string(entry).map_err(|error| Failure::failed(error.to_string()))?;
        line.push('\n');
        self.write(line.as_bytes()).map_err(|error| disk::fault(&self.0, &error))
    }

    fn write(&self, line: &[u8]) -> std::io::Result<()> {
        let bytes = match std::fs::read(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        // What a crash has left of a line goes: its certificate was never handed out.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(disk::SECRET).open(&self.0)?;
        file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(line)?;
        file.sync_all()?;
        draft::sync_folder(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(serial: &str) -> Entry {
        let (id, hex) = ("spiffe://trust/s/a".to_owned(), "00".repeat(32));
        Entry {
            serial: serial.to_owned(),
            id,
            generation: 1,
            issued: 1,
            not_after: 2,
            certificate: hex.clone(),
            key: hex,
        }
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_replaced_by_the_next_one() {
        let folder = tempfile::tempdir().expect("folder");
        let ledger = Ledger::of(folder.path());
        assert_eq!(ledger.read().map_err(|it| it.message), Ok(Vec::new()));
        ledger.append(&entry("01")).expect("written");
        let path = folder.path().join("issued.jsonl");
        let mut text = std::fs::read_to_string(&path).expect("read");
        text.push_str("{\"serial\":\"02");
        std::fs::write(&path, text).expect("written");
        assert_eq!(ledger.read().map_err(|it| it.message), Ok(vec![entry("01")]));
        ledger.append(&entry("03")).expect("written");
        assert_eq!(ledger.read().map_err(|it| it.message), Ok(vec![entry("01"), entry("03")]));
    }

    /// Regression: beyond 2 MiB nothing could be renewed any more.
    #[test]
    fn a_list_of_years_is_read_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let ledger = Ledger::of(folder.path());
        ledger.append(&entry("01")).expect("written");
        let path = folder.path().join("issued.jsonl");
        let line = std::fs::read_to_string(&path).expect("read");
        std::fs::write(&path, line.repeat(10_000)).expect("written");
        assert_eq!(ledger.read().map(|entries| entries.len()).map_err(|it| it.message), Ok(10_000));
        ledger.append(&entry("02")).expect("written");
        assert_eq!(ledger.read().map(|entries| entries.len()).map_err(|it| it.message), Ok(10_001));
    }

    #[test]
    fn a_whole_line_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let ledger = Ledger::of(folder.path());
        ledger.append(&entry("01")).expect("written");
        let path = folder.path().join("issued.jsonl");
        let text = std::fs::read_to_string(&path).expect("read");
        std::fs::write(&path, format!("{text}nonsense\n{text}")).expect("written");
        let failure = ledger.read().expect_err("refused");
        assert!(failure.exit == Exit::Configuration && failure.message.contains("issued.jsonl:2:"), "{failure}");
    }
}

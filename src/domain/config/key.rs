//! The table of settings that the API knows: name, type, and whether a change takes effect at once.
//!
//! Names are those of runtime.toml without `runtime.`, cloud keys under `runtime_cloud.` (contract, *Config*).

use std::collections::BTreeMap;

use crate::domain::config::Value;
use crate::domain::text::shown_in_part;

/// What a setting's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number between these bounds, both included.
    Int {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// One of these texts.
    OneOf(&'static [&'static str]),
}

/// When and where a setting can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Takes effect at once, through the API or the file.
    Live,
    /// Lives in runtime.toml and takes effect at the next start.
    Restart,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name in the API.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// When a change takes effect.
    pub scope: Scope,
}

const fn live(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, scope: Scope::Live }
}

/// Settings that `cfg_apply` can change now, in alphabetical order.
pub const KEYS: &[Key] = &[
    live("log.level", Kind::OneOf(&["trace", "debug", "info", "warn", "error"])),
    live("mesh.timing.partition_ms", Kind::Int { min: 200, max: 600_000 }),
    live("mesh.timing.period_ms", Kind::Int { min: 50, max: 60_000 }),
    live("mesh.timing.probe_ms", Kind::Int { min: 50, max: 60_000 }),
    live("mesh.timing.stale_ms", Kind::Int { min: 100, max: 300_000 }),
    live("store.read_audit_max_mb", Kind::Int { min: 1, max: 65_536 }),
    live("store.receipts_kept_h", Kind::Int { min: 1, max: 8_760 }),
    live("store.runs_kept", Kind::Int { min: 1, max: 100_000 }),
    live("store.runs_max_mb", Kind::Int { min: 128, max: 1_048_576 }),
];

/// Settings that exist in runtime.toml and cannot be changed while the node runs.
const RESTART: &[&str] = &[
    "admin.enabled",
    "admin.listen",
    "bundle.version",
    "control.auth_token",
    "control.mode",
    "discovery.advertise",
    "discovery.enabled",
    "discovery.host_group",
    "discovery.interfaces",
    "discovery.service_name",
    "identity.anchors",
    "identity.authority",
    "identity.grant",
    "identity.key_path",
    "identity.mapping",
    "identity.renew_from",
    "identity.site",
    "identity.source",
    "identity.svid_path",
    "identity.trust_domain",
    "log.format",
    "mesh.auth_token",
    "mesh.connect",
    "mesh.enabled",
    "mesh.listen",
    "mesh.partner",
    "mesh.plugin_versions",
    "mesh.publish",
    "mesh.role",
    "mesh.subscribe",
    "mesh.timing.lease_ms",
    "mesh.tls",
    "mesh.zenohd_version",
    "resource.name",
    "runtime_cloud.links.transports",
    "runtime_cloud.profile",
    "runtime_cloud.wan.accept_write",
    "runtime_cloud.wan.allow_write",
    "runtime_cloud.wan.test",
    "store.path",
    "store.witness_every_s",
    "store.witnesses",
    "time.source",
    "tls.ca_path",
    "tls.cert_path",
    "tls.key_path",
    "tls.mode",
    "tls.require_remote",
    "web.auth",
    "web.enabled",
    "web.hosts",
    "web.listen",
    "web.tls",
];

/// First segments that name programs: they live in the file only (DESIGN, *What cfg_apply may touch*).
const PROGRAMS: &[&str] = &["agent", "command", "workload"];

/// How much of a key that is not ours a refusal repeats.
const NAME_CHARS_MAX: usize = 128;

/// Why a key or its value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such setting.
    #[error("{key}: no such setting; the nearest is {nearest}")]
    Unknown {
        /// The beginning of the key given.
        key: String,
        /// The known key with the fewest differing characters.
        nearest: &'static str,
    },
    /// The setting lives in the file.
    #[error("{key}: is set in runtime.toml and takes effect at the next start")]
    FileOnly {
        /// The beginning of the key given.
        key: String,
    },
    /// The value has the wrong type or is out of bounds.
    #[error("{key}: wanted {wanted}, got {got}")]
    Value {
        /// The key given.
        key: String,
        /// What would be accepted.
        wanted: String,
        /// What was given.
        got: String,
    },
    /// Two settings that contradict each other once applied.
    #[error("{key}: {reason}")]
    Contradiction {
        /// The key that is at fault.
        key: &'static str,
        /// Both values and the rule between them.
        reason: String,
    },
}

/// Whether changing this key takes an admin (contract, *Protected keys*).
pub fn is_protected(key: &str) -> bool {
    // What is kept of the past is evidence, and receipts are what keeps a write from being carried out twice.
    const PREFIXES: &[&str] = &["identity.", "tls.", "admin.", "store."];
    const NAMES: &[&str] = &[
        "control.auth_token",
        "control.mode",
        "mesh.auth_token",
        "mesh.connect",
        "mesh.listen",
        "mesh.tls",
        "runtime_cloud.links.transports",
        "runtime_cloud.profile",
        "runtime_cloud.wan.accept_write",
        "runtime_cloud.wan.allow_write",
        "web.auth",
        "web.hosts",
        "web.listen",
        "web.tls",
    ];
    NAMES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Finds a live setting by name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Checks every key and value of a write; the first fault refuses all of it.
pub fn check(values: &BTreeMap<String, Value>) -> Result<(), Error> {
    values.iter().try_for_each(|(key, value)| check_one(key, value))
}

fn check_one(name: &str, value: &Value) -> Result<(), Error> {
    let Some(key) = find(name) else {
        return Err(refuse_name(name));
    };
    match (key.kind, value) {
        (Kind::Int { min, max }, Value::Int(number)) if (min..=max).contains(number) => Ok(()),
        (Kind::OneOf(texts), Value::Text(text)) if texts.contains(&text.as_str()) => Ok(()),
        (kind, value) => Err(Error::Value { key: name.to_owned(), wanted: kind.wanted(), got: shown(value) }),
    }
}

fn refuse_name(name: &str) -> Error {
    let first = name.split('.').next().unwrap_or_default();
    if RESTART.contains(&name) || PROGRAMS.contains(&first) {
        return Error::FileOnly { key: shown_in_part(name, NAME_CHARS_MAX) };
    }
    let nearest = KEYS.iter().map(|key| key.name).min_by_key(|known| distance(known, name)).unwrap_or_default();
    Error::Unknown { key: shown_in_part(name, NAME_CHARS_MAX), nearest }
}

impl Kind {
    /// What would be accepted, for an error message.
    pub fn wanted(self) -> String {
        match self {
            Self::Int { min, max } => format!("a whole number from {min} to {max}"),
            Self::OneOf(texts) => format!("one of {}", texts.join(", ")),
        }
    }
}

fn shown(value: &Value) -> String {
    format!("{} ({})", value.type_name(), shown_in_part(&value.to_string(), 64))
}

/// Levenshtein distance over at most 64 characters, for "did you mean".
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().take(64).enumerate() {
        let mut diagonal = index;
        let mut last = index.saturating_add(1);
        for (cell, to) in row.iter_mut().zip(std::iter::once(None).chain(right.iter().map(Some))) {
            let Some(to) = to else {
                *cell = last;
                continue;
            };
            let replaced = diagonal.saturating_add(usize::from(from != *to));
            diagonal = *cell;
            last = replaced.min(cell.saturating_add(1)).min(last.saturating_add(1));
            *cell = last;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, value: Value) -> Result<(), Error> {
        check(&BTreeMap::from([(key.to_owned(), value)]))
    }

    #[test]
    fn values_are_held_to_their_type_and_bounds() {
        assert_eq!(write("log.level", Value::Text("debug".into())), Ok(()));
        assert_eq!(write("mesh.timing.period_ms", Value::Int(50)), Ok(()));
        assert!(write("mesh.timing.period_ms", Value::Int(49)).is_err());
        assert!(write("mesh.timing.period_ms", Value::Int(60_001)).is_err());
        assert!(write("log.level", Value::Bool(true)).is_err());
        assert!(write("log.level", Value::Text("loud".into())).is_err());
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_a_file_key_says_so() {
        let error = write("log.levl", Value::Text("debug".into())).expect_err("unknown");
        assert_eq!(error, Error::Unknown { key: "log.levl".into(), nearest: "log.level" });
        assert!(matches!(write("web.listen", Value::Int(1)), Err(Error::FileOnly { .. })));
        assert!(matches!(write("workload.program", Value::Int(1)), Err(Error::FileOnly { .. })));
    }

    #[test]
    fn whoever_sets_how_long_evidence_is_kept_is_an_admin() {
        let protected: Vec<_> = KEYS.iter().map(|key| key.name).filter(|name| is_protected(name)).collect();
        let of_store = |name: &&str| name.starts_with("store.");
        assert_eq!(protected, KEYS.iter().map(|key| key.name).filter(of_store).collect::<Vec<_>>());
        assert_eq!(protected.len(), 4);
    }

    #[test]
    fn the_distance_is_the_number_of_edits() {
        for (left, right, edits) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("abc", "abc", 0)]
        {
            assert_eq!(distance(left, right), edits, "{left} {right}");
        }
    }
}

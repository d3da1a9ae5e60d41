//! This node's own runtime.toml: read as a whole, valid as a whole, or refused with everything that is wrong.
//!
//! `key` is the one table of keys; `raw` is the file as it stands; `walk` holds one against the other; `environment` lays
//! the variables over it; `build` turns it into [`Settings`]. Nothing here reads a clock or the process's environment,
//! and no setting has a default that is not in the table of keys.

mod build;
mod concern;
mod environment;
mod exposure;
mod federation;
mod inert;
mod key;
mod kind;
mod listeners;
mod partners;
mod place;
mod problem;
mod profile;
mod programs;
mod question;
mod raw;
mod reading;
mod reference;
mod reload;
mod rule_text;
mod rules;
mod scaffold;
mod secret;
mod table;
pub mod tokens;
mod valid;
mod walk;
mod when;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;

pub use environment::{PREFIX as ENVIRONMENT_PREFIX, variable};
pub use key::{Applies, KEYS, Key, find};
pub use kind::{Kind, NotAVersion, Version};
pub use place::Place;
pub use problem::{PROBLEMS_MAX, Problem, Problems};
pub use profile::{Precondition, TOKEN_CHARS_MIN};
pub use question::actor;
pub use raw::FILE_BYTES_MAX;
pub use reading::{Reading, Tested, Unmet, Warning};
pub use reference::reference;
pub use reload::Changes;
pub use rule_text::{ListForm, change_text, rule_text};
pub use scaffold::{Error as ScaffoldError, Scaffold, legal_name, scaffold};
pub use secret::Secret;
pub use valid::{
    Admin, Agent, Anchor, BundleEndpoint, BundlePartner, Command, Control, ControlMode, Discovery, EffectClass,
    Endpoint, EndpointProof, Grant, Identity, IdentitySource, Link, Log, LogFormat, LogLevel, Mapping, Mesh, MeshRole,
    Partner, Profile, RestartRule, Scouting, Settings, Store, TimeSource, Timing, Tls, TlsMode, Transport, UnknownWord,
    Web, WebAuth, Workload,
};

pub use when::{moment, text as moment_text};

use problem::Faults;
use raw::At;
use reading::File;

/// The name of the settings file in the project folder.
pub const FILE_NAME: &str = "runtime.toml";

/// Loads the project's settings with the environment over them.
pub fn load(project: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Settings, Problems> {
    read_project(project, environment, Unmet::Refuse).map(|reading| reading.settings)
}

/// Loads the project's settings together with what a person may want to know about their text.
pub fn read_project(
    project: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    unmet: Unmet,
) -> Result<Reading, Problems> {
    let path = project.join(FILE_NAME);
    let shown = path.display().to_string();
    let (bytes, exposure) = read_file(&path).map_err(|error| {
        let suggestion = (error.kind() == std::io::ErrorKind::NotFound)
            .then(|| format!("trust-runtime play --project {} makes one", project.display()));
        Problems::of_file(&shown, format!("wanted a readable file, got: {error}"), suggestion)
    })?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => reading::read(text, File { name: &shown, exposure }, &legal_name(project), environment, unmet),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let mut faults = Faults::default();
            let at = error.valid_up_to();
            faults.push(&At::Bytes(at..at.saturating_add(1)), "", "wanted UTF-8 text, got other bytes from here on");
            Err(faults.into_problems(&shown, std::str::from_utf8(valid).unwrap_or_default()))
        }
    }
}

/// Reads settings from a text. `default_name` is the runtime's name where the text gives none.
pub fn parse(
    text: &str,
    file_name: &str,
    default_name: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, Problems> {
    let file = File { name: file_name, exposure: None };
    reading::read(text, file, default_name, environment, Unmet::Refuse).map(|reading| reading.settings)
}

/// At most one byte more than is accepted, so that a device or a growing file cannot fill the memory; and why the file is
/// no place for a secret, if it is none.
fn read_file(path: &Path) -> std::io::Result<(Vec<u8>, Option<String>)> {
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let file = std::fs::File::open(path)?;
    let exposure = exposure::of_file(path, &file.metadata()?);
    file.take(limit).read_to_end(&mut bytes)?;
    Ok((bytes, exposure))
}

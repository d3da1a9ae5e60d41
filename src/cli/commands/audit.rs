//! `audit`: the chains of a project, read from its files alone, whether its node runs or not.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::args::Audit;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{environment, output};
use crate::node::archive;
use crate::settings;

/// Verifies or exports.
pub fn run(command: &Audit) -> Result<(), Failure> {
    match command {
        Audit::Verify { project, json } => verify(project, *json),
        Audit::Export { project, json: _ } => archive::export(&folder(project), output::line),
    }
}

/// The state folder that the project's settings name; the default one where the settings cannot be read.
fn folder(project: &Path) -> PathBuf {
    let path = settings::load(project, environment()).map(|settings| settings.store.path);
    project.join(path.unwrap_or_else(|_| PathBuf::from("state")))
}

fn verify(project: &Path, as_json: bool) -> Result<(), Failure> {
    let findings = archive::verify(&folder(project))?;
    if as_json {
        let chains: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "chain": finding.chain, "ok": finding.is_whole, "verdict": finding.text }))
            .collect();
        output::json(&json!({ "ok": findings.iter().all(|finding| finding.is_whole), "chains": chains }))?;
    } else {
        findings.iter().try_for_each(|finding| output::line(&format!("{}: {}", finding.chain, finding.text)))?;
    }
    match findings.iter().find(|finding| !finding.is_whole) {
        None => Ok(()),
        Some(broken) => Err(Failure::new(Exit::Failed, format!("the chain of {} is broken", broken.chain))),
    }
}

//! `audit`: the chains of a project, read from its files alone, whether its node runs or not.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::cli::args::Audit;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{environment, output};
use crate::domain::audit::{Fault, Verdict};
use crate::node::archive::{self, Against, Finding};
use crate::settings;

/// Verifies or exports.
pub fn run(command: &Audit) -> Result<(), Failure> {
    match command {
        Audit::Verify { project, checkpoints, key, json } => {
            let against = Against { checkpoints: checkpoints.clone(), key: key.clone() };
            verify(project, &against, *json)
        }
        Audit::Export { project, checkpoints: Some(into), json } => export_checkpoint(project, into, *json),
        Audit::Export { project, checkpoints: None, json: _ } => archive::export(&folder(project), output::line),
    }
}

fn export_checkpoint(project: &Path, into: &Path, as_json: bool) -> Result<(), Failure> {
    let kept = archive::export_checkpoint(&folder(project), into)?;
    let kept =
        kept.ok_or_else(|| Failure::failed("this log has no checkpoint yet: its node makes one when it starts"))?;
    if as_json {
        return output::json(&json!({ "checkpoint": kept.checkpoint, "heads": kept.heads }));
    }
    std::iter::once(&kept.checkpoint).chain(&kept.heads).try_for_each(|path| output::line(&path.display().to_string()))
}

/// The state folder that the project's settings name; the default one where the settings cannot be read.
fn folder(project: &Path) -> PathBuf {
    let path = settings::load(project, environment()).map(|settings| settings.store.path);
    project.join(path.unwrap_or_else(|_| PathBuf::from("state")))
}

fn verify(project: &Path, against: &Against, as_json: bool) -> Result<(), Failure> {
    let findings = archive::verify(&folder(project), against)?;
    if as_json {
        let chains: Vec<_> = findings.iter().map(chain_json).collect();
        output::json(&json!({ "ok": findings.iter().all(Finding::is_whole), "chains": chains }))?;
    } else {
        findings.iter().try_for_each(show)?;
    }
    match findings.iter().find(|finding| finding.is_broken()) {
        None => Ok(()),
        Some(broken) => Err(Failure::new(Exit::Failed, format!("the chain of {} is broken", broken.chain))),
    }
}

fn show(finding: &Finding) -> Result<(), Failure> {
    output::line(&format!("{}: {}", finding.chain, finding.text))?;
    for (name, verdict) in finding.verdicts() {
        let (answer, text) = match verdict {
            Verdict::Holds(text) => ("holds".to_owned(), text),
            Verdict::Unproven(text) => ("unproven".to_owned(), text),
            Verdict::Broken { fault: Fault::Damaged, text, .. } => ("BROKEN (damaged)".to_owned(), text),
            Verdict::Broken { fault, record, text } => {
                (format!("BROKEN ({} at record {record})", fault.as_str()), text)
            }
        };
        output::line(&format!("  {name:<12} {answer}: {text}"))?;
    }
    match &finding.key {
        Some(key) => output::line(&format!("  {:<12} {}", "public key", key.display())),
        None => Ok(()),
    }
}

fn chain_json(finding: &Finding) -> Json {
    let mut chain = json!({
        "chain": finding.chain,
        "ok": finding.is_whole(),
        "verdict": finding.text,
    });
    let mut put = |name: &str, value: Json| {
        if let Some(fields) = chain.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    for (name, verdict) in finding.verdicts() {
        put(
            name,
            match verdict {
                Verdict::Holds(text) => json!({ "verdict": "holds", "text": text }),
                Verdict::Unproven(text) => json!({ "verdict": "unproven", "text": text }),
                Verdict::Broken { fault, record, text } => {
                    // A damaged file names none.
                    let record = (*fault != Fault::Damaged).then_some(record);
                    json!({ "verdict": "broken", "fault": fault.as_str(), "record": record, "text": text })
                }
            },
        );
    }
    if finding.is_checked {
        put("first", Json::from(finding.rotated.saturating_add(1)));
        put("rotated", Json::from(finding.rotated));
    }
    if let Some(key) = &finding.key {
        put("public_key", Json::from(key.display().to_string()));
    }
    chain
}

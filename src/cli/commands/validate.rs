//! `validate`: is runtime.toml right, and what it names? Needs no running node and touches nothing.

use std::error::Error;
use std::io;

use serde_json::json;

use crate::cli::args::Validate;
use crate::cli::exit::{Exit, Failure};
use crate::cli::explanation::place;
use crate::cli::{environment, output};
use crate::node::{KeyError, certificates};
use crate::settings;

/// Reports all problems at once, or what still keeps the node from serving in its profile. What is not there yet is no fault.
pub fn run(command: &Validate) -> Result<(), Failure> {
    let reading = settings::read_project(&command.project, environment(), settings::Unmet::Refuse);
    let warnings = reading.as_ref().map(|reading| reading.warnings.clone()).unwrap_or_default();
    let missing = reading.as_ref().map(|reading| reading.missing.clone()).unwrap_or_default();
    let loaded = reading.map(|reading| reading.settings);
    let files = loaded.as_ref().map(|settings| certificates::faults(&command.project, settings)).unwrap_or_default();
    let (absent, wrong): (Vec<_>, Vec<_>) = files.iter().partition(|fault| is_absent(fault));
    if command.json {
        let problems = loaded.as_ref().err().map(|problems| json!(problems.problems));
        let missing: Vec<_> = missing.iter().map(|it| json!({ "setting": it.setting, "reason": it.reason })).collect();
        let files = absent.iter().map(|it| (it, false)).chain(wrong.iter().map(|it| (it, true)));
        let files: Vec<_> = files.map(|(it, there)| json!({ "reason": it.to_string(), "is_there": there })).collect();
        let warnings: Vec<_> =
            warnings.iter().map(|it| json!({ "place": place(&it.place), "message": it.message })).collect();
        let is_valid = loaded.is_ok() && wrong.is_empty();
        output::json(&json!({
            "ok": is_valid,
            "problems": problems.unwrap_or_else(|| json!([])),
            "files": files,
            "missing": missing,
            "warnings": warnings,
        }))?;
        return if is_valid { Ok(()) } else { Err(Failure::new(Exit::Configuration, "")) };
    }
    let settings = loaded.map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))?;
    if wrong.is_empty() {
        output::line(&format!("{}: valid, profile {}", settings.runtime_id, settings.profile))?;
    }
    warn(&warnings);
    let missing = missing.iter().map(|it| format!("{}: {}", it.setting, it.reason));
    for missing in missing.chain(absent.iter().map(ToString::to_string)) {
        output::note(&format!("before this node can serve: {missing}"));
    }
    refuse(&wrong)
}

/// Names the files that are there and that a start would not take.
fn refuse(wrong: &[&KeyError]) -> Result<(), Failure> {
    let count = match wrong.len() {
        0 => return Ok(()),
        1 => "1 fault in a file".to_owned(),
        more => format!("{more} faults in files"),
    };
    let listed: String = wrong.iter().map(|fault| format!("\n  {fault}")).collect();
    Err(Failure::new(Exit::Configuration, format!("{count} that runtime.toml names:{listed}")))
}

/// Whether it is that a file is not there.
fn is_absent(fault: &KeyError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(fault);
    while let Some(at) = cause {
        if at.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::NotFound) {
            return true;
        }
        cause = at.source();
    }
    false
}

/// Says what is no fault and still deserves a word.
pub(crate) fn warn(warnings: &[settings::Warning]) {
    for warning in warnings {
        let text = format!("warning: {}: {}\n{}", warning.place, warning.message, warning.place.excerpt());
        output::note(text.trim_end());
    }
}

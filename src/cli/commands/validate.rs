//! `validate`: is runtime.toml right? Needs no running node and touches nothing.

use serde_json::json;

use crate::cli::args::Validate;
use crate::cli::exit::{Exit, Failure};
use crate::cli::explanation::place;
use crate::cli::{environment, output};
use crate::settings;

/// Reports all problems at once, or what still keeps the node from serving in its profile.
pub fn run(command: &Validate) -> Result<(), Failure> {
    let reading = settings::read_project(&command.project, environment(), settings::Unmet::Refuse);
    let warnings = reading.as_ref().map(|reading| reading.warnings.clone()).unwrap_or_default();
    let missing = reading.as_ref().map(|reading| reading.missing.clone()).unwrap_or_default();
    let loaded = reading.map(|reading| reading.settings);
    if command.json {
        let problems = loaded.as_ref().err().map(|problems| json!(problems.problems));
        let missing: Vec<_> = missing.iter().map(|it| json!({ "setting": it.setting, "reason": it.reason })).collect();
        let warnings: Vec<_> =
            warnings.iter().map(|it| json!({ "place": place(&it.place), "message": it.message })).collect();
        output::json(&json!({
            "ok": loaded.is_ok(),
            "problems": problems.unwrap_or_else(|| json!([])),
            "missing": missing,
            "warnings": warnings,
        }))?;
        return loaded.map(|_settings| ()).map_err(|_reported| Failure::new(Exit::Configuration, ""));
    }
    let settings = loaded.map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))?;
    output::line(&format!("{}: valid, profile {}", settings.runtime_id, settings.profile))?;
    warn(&warnings);
    for missing in missing {
        output::note(&format!("before this node can serve: {}: {}", missing.setting, missing.reason));
    }
    Ok(())
}

/// Says what is no fault and still deserves a word.
pub(crate) fn warn(warnings: &[settings::Warning]) {
    for warning in warnings {
        let text = format!("warning: {}: {}\n{}", warning.place, warning.message, warning.place.excerpt());
        output::note(text.trim_end());
    }
}

//! `validate`: is runtime.toml right? Needs no running node and touches nothing.

use serde_json::json;

use crate::cli::args::Validate;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{environment, output};
use crate::settings;

/// Reports all problems at once, or what still keeps the node from serving in its profile.
pub fn run(command: &Validate) -> Result<(), Failure> {
    let loaded = settings::load(&command.project, environment());
    if command.json {
        let problems = loaded.as_ref().err().map(|problems| json!(problems.problems));
        let missing: Vec<_> = loaded.iter().flat_map(settings::preconditions).collect();
        let missing: Vec<_> = missing.iter().map(|it| json!({ "setting": it.setting, "reason": it.reason })).collect();
        output::json(
            &json!({ "ok": loaded.is_ok(), "problems": problems.unwrap_or_else(|| json!([])), "missing": missing }),
        )?;
        return loaded.map(|_settings| ()).map_err(|_reported| Failure::new(Exit::Configuration, ""));
    }
    let settings = loaded.map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))?;
    output::line(&format!("{}: valid, profile {}", settings.runtime_id, settings.profile))?;
    for missing in settings::preconditions(&settings) {
        output::note(&format!("before this node can serve: {}: {}", missing.setting, missing.reason));
    }
    Ok(())
}

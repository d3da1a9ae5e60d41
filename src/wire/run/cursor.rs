//! Where the pages of lists begin, as text that a client passes back and does not read.
//!
//! What cannot be read is no fault: the first page is given (contract, RR-75).

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use super::moment::{iso, read_iso};
use crate::domain::run::{AgentName, Instance, RunId};
use crate::domain::time::Wall;

/// Written without padding, read with or without.
const ENGINE: GeneralPurpose = {
    let config = GeneralPurposeConfig::new().with_encode_padding(false);
    GeneralPurpose::new(&URL_SAFE, config.with_decode_padding_mode(DecodePaddingMode::Indifferent))
};

/// Between agent and instance: neither can hold it.
const SEPARATOR: char = '\0';

#[derive(Serialize, Deserialize)]
struct RunCursorBody {
    s: String,
    r: String,
}

/// The place behind a run that began at a moment, of which the whole milliseconds count.
pub fn run_cursor(started: Wall, run: RunId) -> String {
    let body = RunCursorBody { s: iso(started), r: run.to_string() };
    // Two texts have a form.
    ENGINE.encode(serde_json::to_string(&body).unwrap_or_default())
}

/// The place that a text names, if it names one.
pub fn read_run_cursor(text: &str) -> Option<(Wall, RunId)> {
    let body: RunCursorBody = serde_json::from_slice(&ENGINE.decode(text).ok()?).ok()?;
    Some((read_iso(&body.s)?, body.r.parse().ok()?))
}

/// The place behind an instance.
pub fn instance_cursor(agent: &AgentName, instance: &Instance) -> String {
    ENGINE.encode(format!("{agent}{SEPARATOR}{instance}"))
}

/// The place that a text names, if it names one.
pub fn read_instance_cursor(text: &str) -> Option<(AgentName, Instance)> {
    let text = String::from_utf8(ENGINE.decode(text).ok()?).ok()?;
    let (agent, instance) = text.split_once(SEPARATOR)?;
    Some((agent.parse().ok()?, instance.parse().ok()?))
}

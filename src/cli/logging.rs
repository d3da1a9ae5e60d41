//! Where log lines go: standard error, as text or JSON, with a level that can change while the node runs.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::cli::exit::Failure;
use crate::node::assemble::LogLevel;
use crate::settings::{Log, LogFormat};

/// Starts logging. Gives what changes the level.
pub(super) fn start(log: Log) -> Result<LogLevel, Failure> {
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter(log.level.as_str()));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match log.format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| Failure::failed(format!("log: {error}")))?;
    Ok(Box::new(move |level| {
        // The handle dies with the process only.
        if handle.reload(self::filter(level)).is_err() {
            tracing::warn!(level, "the log level could not be changed");
        }
    }))
}

/// The part of the mesh library that is heard from errors up: its queries warn of every answer that is late or missing, which a
/// node that is away or a mesh that is overloaded causes by the thousand.
const HEARD_FROM_ERRORS: &str = "zenoh::net::routing::dispatcher::queries";

/// Our own lines at the level; the mesh library's only from warnings up, because its details drown everything.
fn filter(level: &str) -> EnvFilter {
    let library = if matches!(level, "error") { "error" } else { "warn" };
    EnvFilter::new(format!("{library},{HEARD_FROM_ERRORS}=error,trust_runtime={level}"))
}

//! `play`: the node itself, from an empty folder or an existing project, until it is told to stop.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::args::Play;
use crate::cli::client::READY_FILE;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{environment, logging, output};
use crate::node::assemble::{self, Running};
use crate::node::{Error, StoreError};
use crate::settings::{self, Settings};

/// How long the whole stop may take. Its steps have bounds of their own, of which this is the sum; it holds whatever blocks.
const STOP_MAX: Duration = Duration::from_millis(4_800);

/// Runs until a signal or `ctl shutdown`; a second signal ends the process at once.
pub async fn run(command: &Play) -> Result<(), Failure> {
    let project = &command.project;
    let made = settings::scaffold(project).map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    let settings = load(project)?;
    let set_level = logging::start(settings.log)?;
    let mut signals = Signals::listen()?;
    let mut hangup = listen(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let running =
        assemble::run(project, &settings, environment().collect(), set_level, stop).await.map_err(start_failure)?;
    if let Some(path) = &made.settings_written {
        output::note(&format!("made {}", path.display()));
    }
    greet(project, &settings, &running);
    let ready = write_ready(project, command.ready_file.as_deref(), &settings, &running);
    let outcome = match ready {
        Ok(()) => {
            tokio::select! {
                () = signals.next() => {}
                () = running.stopping() => {}
                () = reload_on_hangup(&running, &mut hangup) => {}
            }
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    output::note("stopping; a second signal ends at once");
    stop_within_bounds(running, &mut signals).await;
    // Whoever reads the file next must not find a node that is gone; a file that cannot be removed is only stale.
    drop(std::fs::remove_file(project.join(READY_FILE)));
    outcome
}

/// Stops on a task of its own, so that whatever blocks there keeps nobody from looking at the clock and at the signals.
async fn stop_within_bounds(running: Running, signals: &mut Signals) {
    let stopped = tokio::runtime::Handle::current().spawn(running.shutdown());
    tokio::select! {
        ended = tokio::time::timeout(STOP_MAX, stopped) => match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the stop broke off"),
            Err(_elapsed) => tracing::error!("the stop took too long and was broken off"),
        },
        () = signals.next() => output::note("ended at once; what was in flight is recorded as unknown at the next start"),
    }
}

fn load(project: &Path) -> Result<Settings, Failure> {
    let reading = settings::read_project(project, environment(), settings::Unmet::Refuse)
        .map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))?;
    super::validate::warn(&reading.warnings);
    let (settings, missing) = (reading.settings, reading.missing);
    if missing.is_empty() {
        return Ok(settings);
    }
    let lines: Vec<_> = missing.iter().map(|it| format!("{}: {}", it.setting, it.reason)).collect();
    let message = format!("this node cannot serve in profile {} yet:\n  {}", settings.profile, lines.join("\n  "));
    Err(Failure::new(Exit::Configuration, message))
}

fn start_failure(error: Error) -> Failure {
    let exit = match &error {
        Error::Web { .. } | Error::Mesh(_) | Error::Key(_) | Error::Token(_) | Error::Tokens(_) => Exit::Configuration,
        Error::Store(StoreError::InUse { .. }) => Exit::Conflict,
        Error::Store(_) | Error::Recover(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// What a person wants to know first, and what to type next.
fn greet(project: &Path, settings: &Settings, running: &Running) {
    let folder = project.display();
    output::note(&format!("runtime      {} (profile {})", settings.runtime_id, settings.profile));
    output::note(&format!("fingerprint  {}", assemble::spoken(&running.fingerprint)));
    if running.is_new_identity {
        output::note("             a new identity: its key is state/identity.key, keep it with your backups");
    }
    output::note(&format!("mesh         {}", running.mesh.join(", ")));
    output::note(&format!("web          {}", running.web.as_deref().unwrap_or("not served")));
    if let Some(admin) = &running.admin {
        output::note(&format!("admin        {admin}"));
    }
    output::note(&format!("next         trust-runtime status --project {folder}"));
    output::note(&format!("             trust-runtime peers list --project {folder}"));
    output::note(&format!("             trust-runtime audit verify --project {folder}"));
}

fn write_ready(
    project: &Path,
    ready_file: Option<&Path>,
    settings: &Settings,
    running: &Running,
) -> Result<(), Failure> {
    let ready = json!({
        "runtime_id": settings.runtime_id.to_string(),
        "web": running.web,
        "admin": running.admin,
        "web_key": running.web_key.map(|key| key.to_string()),
        "mesh": running.mesh,
        "fingerprint": running.fingerprint.to_string(),
        "boot_id": running.boot,
        "pid": std::process::id(),
    });
    let own = project.join(READY_FILE);
    for path in std::iter::once(own.as_path()).chain(ready_file) {
        write_whole(path, &ready.to_string())
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

/// Readers see the whole file or none.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, text)?;
    std::fs::rename(&draft, path)
}

/// SIGHUP means "read your files again". Never resolves.
async fn reload_on_hangup(running: &Running, hangup: &mut Signal) {
    while hangup.recv().await.is_some() {
        running.reload().await;
    }
    std::future::pending().await
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("signals: {error}")))
}

/// The signals that mean "stop".
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}

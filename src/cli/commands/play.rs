//! `play`: the node itself, from an empty folder or an existing project, until it is told to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::args::Play;
use crate::cli::client::READY_FILE;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{environment, logging, output};
use crate::domain::identity::Fingerprint;
use crate::node::assemble::{self, Running};
use crate::node::{Error, NoteKey, StoreError};
use crate::settings::{self, Settings};

/// How long the whole stop may take. Its steps have bounds of their own, of which this is the sum; it holds whatever blocks.
const STOP_MAX: Duration = Duration::from_millis(4_800);

/// Runs until a signal or `ctl shutdown`; a second signal ends the process at once. A start is finished before either counts.
pub async fn run(command: &Play) -> Result<(), Failure> {
    let project = &command.project;
    let made = settings::scaffold(project).map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    let settings = load(project)?;
    let set_level = logging::start(settings.log)?;
    // Heard from now on, also by a process that has no default for them, as the first of a container: what comes during the start
    // stops the node once it has started.
    let mut signals = Signals::listen()?;
    let mut hangup = listen(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let ready_files = Ready::of(project, command.ready_file.as_deref());
    let outside = (set_level, ready_files.note_key());
    let running =
        assemble::run(project, &settings, environment().collect(), outside, stop).await.map_err(start_failure)?;
    if let Some(path) = &made.settings_written {
        output::note(&format!("made {}", path.display()));
    }
    greet(project, &settings, &running);
    let ready = ready_files.write(&settings, &running);
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

/// The files that say where the node is reached, and by which key the project's own command line knows it.
#[derive(Clone)]
struct Ready(Vec<PathBuf>);

impl Ready {
    fn of(project: &Path, further: Option<&Path>) -> Self {
        Self(std::iter::once(project.join(READY_FILE)).chain(further.map(Path::to_owned)).collect())
    }

    fn write(&self, settings: &Settings, running: &Running) -> Result<(), Failure> {
        let mut key = running.web_key();
        loop {
            self.write_with(key, settings, running)?;
            // One that changed before there was a file to note it in.
            let now = running.web_key();
            if now == key {
                return Ok(());
            }
            key = now;
        }
    }

    fn write_with(&self, key: Option<Fingerprint>, settings: &Settings, running: &Running) -> Result<(), Failure> {
        let ready = json!({
            "runtime_id": settings.runtime_id.to_string(),
            "web": running.web,
            "admin": running.admin,
            "web_key": key.map(|key| key.to_string()),
            "mesh": running.mesh,
            "fingerprint": key.unwrap_or(running.fingerprint).to_string(),
            "boot_id": running.boot,
            "pid": std::process::id(),
        });
        for path in &self.0 {
            write_whole(path, &ready.to_string())
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// Keeps the key in them up to date while the node runs.
    fn note_key(&self) -> NoteKey {
        let files = self.clone();
        Arc::new(move |key| files.0.iter().for_each(|path| replace_key(path, &key.to_string())))
    }
}

/// Nothing is done where there is no such file: it is written once the node serves.
fn replace_key(path: &Path, key: &str) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    let Ok(mut ready) = serde_json::from_str::<Json>(&text) else { return };
    for name in ["web_key", "fingerprint"] {
        if let Some(place) = ready.get_mut(name).filter(|place| place.is_string()) {
            *place = key.into();
        }
    }
    if let Err(error) = write_whole(path, &ready.to_string()) {
        tracing::warn!(path = %path.display(), %error, "the new key was not noted");
    }
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

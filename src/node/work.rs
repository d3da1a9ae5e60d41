//! The node's own work: the launcher of its programs, and the supervisor of its workload from the start to the stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::domain::workload::Restart;
use crate::node::clock::{Clock, random};
use crate::settings::{self, RestartRule};
use crate::workload::supervisor::{Checks, Handle, Plan, Supervisor, Surroundings, supervise};
use crate::workload::{Launcher, Program};

/// The file of the workload's output in the state folder.
const LOG_FILE: &str = "workload.log";

/// How long the workload may take to end: the three seconds before it is killed, and a little. It ends beside the other steps
/// of a stop, which take longer together.
const END_MAX: Duration = Duration::from_millis(3_400);

/// The workload before the node serves.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) handle: Handle,
    supervisor: Supervisor,
}

impl Work {
    /// What the settings say, if they name a program. Nothing runs yet.
    pub(super) fn of(settings: &settings::Settings, folder: &Path, launcher: Arc<dyn Launcher>) -> Option<Self> {
        let workload = settings.workload.as_ref()?;
        let plan = plan(workload, folder);
        let clock = Clock::start();
        let outside = Surroundings {
            launcher,
            now: Arc::new(move || clock.now()),
            chance: Arc::new(|| u32::from_ne_bytes(random())),
        };
        let (handle, supervisor) = supervise(plan, outside);
        Some(Self { handle, supervisor })
    }

    /// Starts the workload; it ends when the node begins to stop.
    pub(super) fn begin(self, stop: CancellationToken) -> JoinHandle<()> {
        tokio::runtime::Handle::current().spawn(self.supervisor.run(stop))
    }
}

/// Waits until the workload has ended, within its bound. What is left then ends with this process.
pub(super) async fn ended(work: Option<JoinHandle<()>>) {
    let Some(work) = work else { return };
    if tokio::time::timeout(END_MAX, work).await.is_err() {
        tracing::warn!("the workload did not end in time; its guard ends it");
    }
}

fn plan(workload: &settings::Workload, folder: &Path) -> Plan {
    let program = Program {
        path: workload.program.clone(),
        args: workload.args.clone(),
        env: workload.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
        dir: workload.dir.clone(),
    };
    // In the same surroundings as what it looks at.
    let health = workload.health.split_first().map(|(path, args)| Program {
        path: path.into(),
        args: args.to_vec(),
        ..program.clone()
    });
    let restart = match workload.restart {
        RestartRule::Always => Restart::Always,
        RestartRule::Never => Restart::Never,
        RestartRule::OnFailure => Restart::OnFailure,
    };
    Plan { program, health, restart, log: folder.join(LOG_FILE), checks: Checks::default() }
}

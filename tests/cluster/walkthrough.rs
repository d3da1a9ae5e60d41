//! The guides, carried out as they stand: their `sh run` blocks in one shell, from the top to the bottom, each compared
//! with the `text expect` block behind it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{PROGRAM, program};
use crate::watch::try_until;

const QUICKSTART: &str = "docs/guides/RUNTIME_CLOUD_QUICKSTART.md";
const IDENTITY: &str = "docs/guides/RUNTIME_CLOUD_IDENTITY.md";
const PROFILES: &str = "docs/guides/RUNTIME_CLOUD_PROFILE_COOKBOOK.md";
const FEDERATION: &str = "docs/guides/RUNTIME_CLOUD_FEDERATION_GUIDE.md";

/// The guide says ten minutes by hand; nobody waits for a reader here.
const WALK_MAX: Duration = Duration::from_secs(100);

#[test]
fn the_quickstart_works_as_it_stands() {
    check(QUICKSTART);
}

#[test]
fn the_guide_to_identities_works_as_it_stands() {
    check(IDENTITY);
}

#[test]
fn the_guide_to_profiles_works_as_it_stands() {
    check(PROFILES);
}

#[test]
fn the_guide_to_federation_works_as_it_stands() {
    check(FEDERATION);
}

/// The demo judges its own steps.
#[test]
fn the_fleet_of_five_works_as_it_stands() {
    let home = tempfile::tempdir().expect("a home");
    let script = format!("TRUST_RUNTIME_BIN='{PROGRAM}' examples/runtime_cloud/topology/start.sh --once");
    let finished = Walk::start(home.path(), &script).finish();
    let said = fs::read_to_string(home.path().join("said")).unwrap_or_default();
    assert!(finished && said.contains("All of it was as expected."), "the demo stops:\n{said}");
}

fn check(name: &str) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(repository.join(name)).expect(name);
    let steps = steps(&guide);
    assert!(steps.iter().any(|step| step.expected.is_some()), "{name} has blocks to run and to compare");
    let home = tempfile::tempdir().expect("a home");
    let walk = Walk::start(home.path(), &script(name, &steps, home.path()));
    let finished = walk.finish();
    let said = fs::read_to_string(home.path().join("said")).unwrap_or_default();
    assert!(finished, "the guide stops:\n{said}");
    for (number, step) in steps.iter().enumerate() {
        let Some(expected) = &step.expected else { continue };
        let shown = fs::read_to_string(home.path().join(format!("shown-{number}"))).expect("each block has run");
        assert_eq!(&shown, expected, "{name}:{}: the block above shows something else", step.line);
    }
}

/// A block to run.
#[derive(Debug)]
struct Step {
    line: usize,
    commands: String,
    expected: Option<String>,
}

fn steps(guide: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = guide.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: String =
            lines.by_ref().map(|(_, it)| it).take_while(|it| *it != "```").map(|it| format!("{it}\n")).collect();
        match (kind, steps.last_mut()) {
            ("sh run", _) => steps.push(Step { line: number + 1, commands: block, expected: None }),
            ("text expect", Some(step)) => step.expected = Some(block),
            _ => {}
        }
    }
    steps
}

/// All blocks as one script that stops at the first failure and says where.
fn script(name: &str, steps: &[Step], home: &Path) -> String {
    let mut script = "set -eu -o pipefail\n".to_owned();
    for (number, Step { line, commands, .. }) in steps.iter().enumerate() {
        let shown = home.join(format!("shown-{number}"));
        write!(script, "echo '{name}:{line}' >&2\nexec >'{}'\n{commands}", shown.display()).expect("into a string");
    }
    script
}

/// A shell and all that it starts.
struct Walk(std::process::Child);

impl Walk {
    fn start(home: &Path, script: &str) -> Self {
        let folder = Path::new(PROGRAM).parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let said = fs::File::create(home.join("said")).expect("a file");
        // The guide's ports are fixed: in a network of its own they are free, and nobody else is scouted. Needs root, as in CI.
        let mut command = Command::new("unshare");
        command.args(["--net", "bash", "-c", &format!("ip link set lo up\n{script}")]);
        for (name, _) in program().get_envs() {
            command.env_remove(name);
        }
        command.env("HOME", home).env("PATH", format!("{folder}:{path}")).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.stdin(std::process::Stdio::null()).stdout(said.try_clone().expect("a copy")).stderr(said);
        Self(command.process_group(0).spawn().expect("unshare is there"))
    }

    /// Whether it came to its end by itself and in time.
    fn finish(mut self) -> bool {
        let ended = || self.0.try_wait().expect("our child").ok_or_else(|| "it still runs".to_owned());
        try_until(WALK_MAX, ended).is_ok_and(|(status, _)| status.success())
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Everything that the shell started is in its group, which is ours alone.
        drop(Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).output());
        drop(self.0.wait());
    }
}

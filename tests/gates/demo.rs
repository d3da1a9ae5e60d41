//! The demos where something is in their way: a taken port, a node that says nothing, Ctrl+C, `kill -9`.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{executable, run};

const FLEET: &str = "examples/runtime_cloud/topology/start.sh";
const NODES: usize = 5;
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// In a network of its own, where the demo's fixed ports are free. Needs root, as in CI.
fn alone(words: &str, home: &TempDir) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "bash", "-c", &format!("ip link set lo up; exec {words}")]);
    command.current_dir(repository()).env("TMPDIR", home.path());
    command.env("TRUST_RUNTIME_BIN", env!("CARGO_BIN_EXE_trust-runtime"));
    command
}

#[test]
fn a_port_that_is_taken_is_named_before_anything_starts() {
    let home = TempDir::new().expect("a home");
    let program = "import socket, subprocess, sys\n\
        held = [socket.create_server(('127.0.0.1', port)) for port in (18093, 5215)]\n\
        sys.exit(subprocess.call(sys.argv[1:]))";
    let said = alone(&format!("python3 -c \"{program}\" {FLEET} --once"), &home).output().expect("it runs");
    let words = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{words}");
    assert!(words.contains("these ports of this machine are taken: 18093 5215"), "{words}");
    assert_eq!(fs::read_dir(home.path()).expect("a home").count(), 0, "it has left something");
}

/// The demo and all that it starts; nothing outlives the test.
struct Fleet {
    demo: Child,
    said: PathBuf,
}

impl Fleet {
    fn start(home: &TempDir) -> Self {
        Self::begin(FLEET, home)
    }

    /// Whatever starts the demo.
    fn begin(words: &str, home: &TempDir) -> Self {
        let said = home.path().join("said");
        let file = File::create(&said).expect("a file");
        let mut command = alone(words, home);
        command.stdin(Stdio::piped()).stdout(file.try_clone().expect("a copy")).stderr(file);
        Self { demo: command.process_group(0).spawn().expect("unshare is there"), said }
    }

    /// The nodes' processes, as the demo names them.
    fn nodes(&self) -> Vec<u32> {
        self.named("  process ")
    }

    fn named(&self, behind: &str) -> Vec<u32> {
        let said = fs::read_to_string(&self.said).expect("readable");
        said.lines().filter_map(|line| line.split_once(behind)?.1.parse().ok()).collect()
    }

    /// Everybody in the network of its own: the demo, its nodes, their programs, and who asks them.
    fn members(&self) -> Vec<u32> {
        let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = network(self.demo.id()).expect("it runs");
        let all = fs::read_dir("/proc").expect("the processes").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| network(*pid).as_ref() == Some(&own)).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for pid in self.nodes().into_iter().filter(|pid| is_node(*pid)) {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).output());
        }
        drop(self.demo.kill());
        drop(self.demo.wait());
    }
}

fn is_node(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|it| String::from_utf8_lossy(&it).contains("trust-runtime-demo."))
}

#[test]
fn ctrl_c_ends_the_demo_and_every_node_of_it() {
    let home = TempDir::new().expect("a home");
    let mut fleet = Fleet::start(&home);
    until("five nodes serve", || fleet.nodes().len() == NODES);
    let nodes = fleet.nodes();
    assert!(nodes.iter().all(|pid| is_node(*pid)), "{nodes:?}");
    // What a terminal does: to all of the group in front, of which the nodes are not.
    let group = format!("-{}", fleet.demo.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().expect("kill is there").success());
    until("the demo ends", || fleet.demo.try_wait().expect("our child").is_some());
    assert_eq!(fleet.demo.wait().expect("our child").code(), Some(0), "Ctrl+C is how it is meant to end");
    let left: Vec<_> = nodes.into_iter().filter(|pid| is_node(*pid)).collect();
    assert!(left.is_empty(), "{left:?} are still there");
    let kept = fs::read_dir(home.path()).expect("a home").count();
    assert_eq!(kept, 1, "what it said is all that is left");
}

/// And the next demo starts in the same network, where it needs the same ports.
#[test]
fn a_demo_that_is_killed_takes_everything_along_and_is_in_nobodys_way() {
    let home = TempDir::new().expect("a home");
    let twice = format!("bash -c '{FLEET} & echo \"first $!\"; wait; read -r; exec {FLEET}'");
    let mut fleet = Fleet::begin(&twice, &home);
    until("five nodes serve", || fleet.nodes().len() == NODES);
    let [first] = fleet.named("first ")[..] else { panic!("one was started") };
    let before = fleet.members();
    assert!(before.len() > NODES && before.contains(&first), "{before:?}");
    assert!(Command::new("kill").args(["-KILL", &first.to_string()]).status().expect("kill is there").success());
    until("nobody is left but the shell that started it", || fleet.members() == [fleet.demo.id()]);
    fleet.demo.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads");
    until("five more serve", || fleet.nodes().len() == 2 * NODES);
}

/// The kernel tells nobody of an end that was before the bond.
#[test]
fn what_a_script_begins_to_start_when_it_is_killed_does_not_start() {
    let home = TempDir::new().expect("a home");
    let text = format!(
        "#!/bin/bash\nset -eu\n. '{}'\nbound echo started &\nwait\n",
        repository().join("scripts/bound.sh").display()
    );
    let script = home.path().join("script");
    executable(&script, &text);
    run(&script, &[], &[]).is(0, &["started"]);
    let late = "#!/bin/bash\n\
        begun_by() { cut -d ' ' -f 4 /proc/$$/stat; }\n\
        kill -KILL \"$PPID\"\n\
        while [ \"$(begun_by)\" = \"$PPID\" ]; do sleep 0.01; done\n\
        PATH=\"${PATH#*:}\" exec setpriv \"$@\"\n";
    executable(&home.path().join("setpriv"), late);
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").expect("a path"));
    // It is over when nobody is left who could say something.
    let said = run(&script, &[], &[("PATH", Path::new(&path))]);
    assert!(said.code.is_none() && !said.out.contains("started"), "{said:#?}");
}

#[test]
fn no_script_starts_a_node_that_could_outlive_it() {
    let mut starts = 0;
    for folder in ["scripts", "scripts/security_gate", "examples/runtime_cloud/topology"] {
        let files = fs::read_dir(repository().join(folder)).expect(folder).flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|it| it == "sh")) {
            let text = fs::read_to_string(&file).expect("readable");
            for line in text.lines().filter(|line| line.contains(" play ") && line.ends_with('&')) {
                assert!(line.trim_start().starts_with("bound "), "{}: {line}", file.display());
                starts += 1;
            }
        }
    }
    assert_eq!(starts, 3, "the demos, the security gate, the check of the descriptions");
}

#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < WAIT_MAX, "not in time: {what}");
        // waits: for another process, whose state cannot be waited for.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Its connections are taken by the system; nobody reads them.
#[test]
fn a_node_that_says_nothing_ends_a_demo_in_time_and_with_its_own_code() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let home = TempDir::new().expect("a home");
    let script = home.path().join("demo");
    for question in ["post panel actions/dispatch '{}'", "get \"$(api panel)/state\""] {
        let text = format!(
            "#!/bin/bash\nset -euo pipefail\ndemo=topology deadline_s=1\nbase() {{ echo http://{address}; }}\n\
             . '{}'\nanswer=\"$({question})\"\necho went on\n",
            repository().join("scripts/demo.sh").display()
        );
        executable(&script, &text);
        let began = Instant::now();
        let said = run(&script, &[], &[]);
        said.is(1, &["topology: no answer within 1 s"]);
        assert!(!said.out.contains("went on") && began.elapsed() < WAIT_MAX / 2, "{said:#?}");
    }
}

#[test]
fn no_demo_asks_without_a_limit() {
    for demo in ["scripts/quickstart.sh", FLEET] {
        let text = fs::read_to_string(repository().join(Path::new(demo))).expect(demo);
        // What stands in the text for the reader is for the reader.
        let (code, _) = text.split_once("<<TEXT").expect("what to try");
        assert!(!code.lines().any(|line| line.contains("curl ")), "{demo} asks by curl itself, and not by `ask`");
    }
}

//! Real programs under real guards: nothing of them is left, whoever dies first.

// waits: only the programs of these tests sleep, until they are ended.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use trust_runtime::workload::memory::Script;
use trust_runtime::workload::{Exit, Launcher, Process, Program, StartError};

use crate::support::{Folder, PROGRAM, children, is_alive, is_suspended, parent, signal, until};
use crate::workload::contract::{Rig, holds, in_time};

/// The suite's programs as scripts.
struct Scripts(Folder);

impl Rig for Scripts {
    fn new() -> Self {
        Self(Folder::new())
    }

    fn launcher(&self) -> Arc<dyn Launcher> {
        Arc::new(self.0.launcher())
    }

    fn program(&self, script: Script) -> Program {
        let (name, text) = match script {
            Script::Ends(code) => (format!("ends-{code}"), format!("exit {code}")),
            Script::Echoes => ("echoes".to_owned(), "exec cat".to_owned()),
            Script::LeavesHolder => ("leaves-holder".to_owned(), "setsid sleep 600 & exec cat".to_owned()),
            Script::SaysBoth => ("both".to_owned(), "echo out; echo err >&2".to_owned()),
            Script::Waits => ("waits".to_owned(), "echo ready; while :; do sleep 60; done".to_owned()),
            Script::IsStubborn => {
                ("stubborn".to_owned(), "trap '' TERM; echo ready; while :; do sleep 60; done".to_owned())
            }
            Script::Talks(bytes) => (format!("talks-{bytes}"), format!("head -c {bytes} /dev/zero")),
            // Under a guard nobody is left who could hold it.
            Script::Counts => ("counts".to_owned(), "while :; do echo x; sleep 0.005; done".to_owned()),
        };
        self.0.sh(&name, &text)
    }

    fn missing(&self) -> Program {
        Program { path: "missing".into(), ..Program::default() }
    }

    fn is_running(&self, pid: u32) -> bool {
        is_alive(pid)
    }
}

holds!(super::Scripts);

/// Forks twice, leaves session and group, holds its output, and says both numbers.
const DAEMON: &str = "#!/usr/bin/env python3
import os, signal, sys, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(write, str(os.getpid()).encode())
        os.close(write)
        while True:
            time.sleep(60)
    os._exit(0)
os.close(write)
daemon = os.read(read, 32).decode()
print(os.getpid(), daemon, flush=True)
if len(sys.argv) > 1:
    time.sleep(600)
";

#[tokio::test]
async fn a_daemon_that_left_its_session_is_gone_when_the_program_has_ended() {
    let folder = Folder::new();
    let (process, mut lines, said) = folder.said(folder.script("daemon", DAEMON)).await;
    let daemon: u32 = said[1].parse().expect("a number");
    assert_eq!(in_time(process.ended).await, Exit::Code(0));
    assert!(!is_alive(daemon), "it outlived its program");
    // It held the stream open, so its end shows that it is gone too.
    assert_eq!(in_time(lines.next()).await.expect("readable"), None);
}

#[tokio::test]
async fn what_a_program_left_running_in_its_group_is_gone_too() {
    let folder = Folder::new();
    let (process, _lines, said) = folder.said(folder.sh("leaves", "sleep 600 & echo $!; exit 3")).await;
    let left: u32 = said[0].parse().expect("a number");
    assert_eq!(in_time(process.ended).await, Exit::Code(3));
    assert!(!is_alive(left), "it outlived its program");
}

#[tokio::test]
async fn a_family_that_forks_all_the_time_is_ended() {
    let folder = Folder::new();
    let text = "#!/usr/bin/env python3
import os, time
print(os.getpid(), flush=True)
end = time.time() + 60
while time.time() < end:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.02)
        else:
            os._exit(0)
    else:
        os.wait()
        time.sleep(0.002)
";
    let (process, mut lines, _) = folder.said(folder.script("forks", text)).await;
    tokio::task::yield_now().await;
    process.control.kill();
    assert!(matches!(in_time(process.ended).await, Exit::Signal(9)));
    assert_eq!(in_time(lines.next()).await.expect("readable"), None, "somebody still holds the stream");
}

/// Those that are started between the look for all and the signal to their parent are met by a further look alone.
#[tokio::test]
async fn a_family_that_grows_while_it_is_suspended_is_suspended_whole() {
    const ENOUGH: usize = 150;
    let folder = Folder::new();
    let text = "#!/usr/bin/env python3
import os, time
print(os.getpid(), flush=True)
for number in range(1500):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
time.sleep(60)
";
    let (process, _lines, said) = folder.said(folder.script("grows", text)).await;
    let program: u32 = said[0].parse().expect("a number");
    until("there are many of it", || ENOUGH <= children(program).len()).await;
    process.control.stop();
    until("its program is suspended", || is_suspended(program)).await;
    let family = children(program);
    assert!(family.len() < 1_500, "it was done with growing before: {}", family.len());
    until("all of it is suspended", || family.iter().all(|pid| is_suspended(*pid))).await;
    process.control.kill();
    assert!(matches!(in_time(process.ended).await, Exit::Signal(9)));
}

/// Starting another process takes long where there is much memory to share, and is finished before the signal takes effect: the
/// child appears after everybody was looked for.
#[tokio::test]
async fn a_child_that_was_being_started_is_suspended_too() {
    const ROUNDS: usize = 8;
    let folder = Folder::new();
    let text = "#!/usr/bin/env python3
import os, time
print(os.getpid(), flush=True)
much = b'x' * (256 << 20)
for number in range(4000):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os.waitpid(-1, os.WNOHANG)
time.sleep(60)
";
    let (process, _lines, said) = folder.said(folder.script("large", text)).await;
    let program: u32 = said[0].parse().expect("a number");
    for round in 1..=ROUNDS {
        let before = children(program).len();
        until("it starts others", || before < children(program).len()).await;
        process.control.stop();
        until("its program is suspended", || is_suspended(program)).await;
        let family = children(program);
        until(&format!("all of it is suspended, round {round}"), || family.iter().all(|pid| is_suspended(*pid))).await;
        process.control.resume();
    }
    process.control.kill();
    assert!(matches!(in_time(process.ended).await, Exit::Signal(9)));
}

#[tokio::test]
async fn a_killed_guard_takes_the_program_and_its_group_with_it() {
    let folder = Folder::new();
    let text = "sleep 600 & echo $$ $!; wait";
    let (process, _lines, said) = folder.said(folder.sh("guarded", text)).await;
    let [program, child]: [u32; 2] = [0, 1].map(|at| said[at].parse().expect("a number"));
    assert_eq!(program, process.pid);
    signal("KILL", parent(program));
    assert_eq!(in_time(process.ended).await, Exit::Lost);
    until("both are gone", || !is_alive(program) && !is_alive(child)).await;
}

#[tokio::test]
async fn signals_to_everybody_leave_the_end_to_the_node() {
    let folder = Folder::new();
    let (process, _lines, _) = folder.said(folder.sh("waits", "echo ready; exec sleep 600")).await;
    let guard = parent(process.pid);
    for name in ["TERM", "INT", "HUP", "QUIT"] {
        signal(name, guard);
    }
    process.control.terminate();
    assert_eq!(in_time(process.ended).await, Exit::Signal(15), "the guard was still there to say so");
}

#[tokio::test]
async fn nobody_outlives_a_node_that_is_killed() {
    let folder = Folder::new();
    let program = folder.script("daemon", DAEMON);
    // This very test again, as the node.
    let mut node = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "process::plays_a_node_until_it_is_killed", "--ignored", "--nocapture"])
        .env("PLAYED_FOLDER", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    assert_eq!(program.path.to_str(), Some("daemon"));
    let file = folder.path().join("said");
    until("the program runs", || fs::read_to_string(&file).is_ok_and(|it| it.ends_with('\n'))).await;
    let said = fs::read_to_string(&file).expect("it is there");
    let all: Vec<u32> = said.split_whitespace().map(|it| it.parse().expect("a number")).collect();
    let everybody = [all[0], all[1], parent(all[0])];
    assert!(everybody.into_iter().all(is_alive), "{everybody:?}");
    node.kill().expect("it is ours");
    node.wait().expect("it is ours");
    until("program, daemon and guard are gone", || !everybody.into_iter().any(is_alive)).await;
}

#[tokio::test]
#[ignore = "only as the node of the test above"]
async fn plays_a_node_until_it_is_killed() {
    let path = std::path::PathBuf::from(std::env::var_os("PLAYED_FOLDER").expect("given by the test above"));
    let launcher = trust_runtime::workload::process::Processes::guarded_by(PROGRAM.as_ref(), &path, std::env::vars());
    let program = Program { path: "daemon".into(), args: vec!["stay".to_owned()], ..Program::default() };
    let mut process = launcher.start(program, Vec::new()).await.expect("it starts");
    let mut buffer = vec![0; 256];
    let length = process.stdout.read(&mut buffer).await.expect("readable");
    fs::write(path.join("said.new"), &buffer[..length]).expect("writable");
    fs::rename(path.join("said.new"), path.join("said")).expect("writable");
    process.ended.await;
}

#[tokio::test]
async fn each_fault_of_a_program_names_its_path_and_the_remedy() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("folder")).expect("a folder");
    fs::write(folder.path().join("plain"), "#!/bin/sh\n").expect("a file");
    folder.script("noformat", "neither a binary nor a script");
    folder.script("headless", "#!/does/not/exist\n");
    let fine = folder.sh("fine", "exit 0");
    let at = |path: &str| Program { path: path.into(), ..Program::default() };
    for (program, named, remedy) in [
        (at("absent"), "absent", "put the program there"),
        (at("plain/absent"), "plain/absent", "was not started"),
        (at("folder"), "folder", "name the program in it"),
        (at("plain"), "plain", "chmod +x"),
        (at("noformat"), "noformat", "#!/bin/sh"),
        (at("headless"), "headless", "interpreter"),
        (Program { dir: Some("nowhere".into()), ..fine.clone() }, "nowhere", "make it"),
        (at("sh"), "sh", "no search path"),
    ] {
        let error = in_time(folder.start(program.clone())).await.expect_err("it cannot start").to_string();
        let path = folder.path().join(named).display().to_string();
        assert!(error.contains(&path) && error.contains(remedy), "{program:?}: {error}");
    }
    let unguarded = trust_runtime::workload::process::Processes::guarded_by("/absent".as_ref(), folder.path(), []);
    let error = unguarded.start(fine, Vec::new()).await.expect_err("there is no guard");
    assert!(matches!(error, StartError::Guard { .. }), "{error}");
}

#[tokio::test]
async fn a_program_gets_its_arguments_its_folder_and_no_other_variables() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    let mut program =
        folder.sh("tells", "printf '%s|' \"$0\" \"$@\"; pwd; env; cat; ls -l /proc/self/fd | tail -n +2 | wc -l");
    program.args = ["a b", "$HOME", "", "*"].map(str::to_owned).to_vec();
    program.dir = Some("sub".into());
    program.env = [("OWN", "x=y"), ("TZ", "CET")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut process = folder.start(program).await.expect("it starts");
    let mut text = String::new();
    process.stdout.read_to_string(&mut text).await.expect("readable");
    let lines: Vec<&str> = text.lines().collect();
    let here = folder.path().display();
    assert_eq!(lines[0], format!("{here}/tells|a b|$HOME||*|{here}/sub"));
    let mut names: Vec<&str> =
        lines[1..lines.len() - 1].iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    // The shell itself adds its folder.
    names.retain(|name| !["PWD", "OLDPWD", "_", "SHLVL"].contains(name));
    assert_eq!(names, ["OWN", "PATH", "TZ"], "{text}");
    assert!(text.contains("OWN=x=y\n") && text.contains("TZ=CET\n"), "{text}");
    // What this test itself inherited is seen by every child of it.
    let plain = Command::new("sh").args(["-c", "ls -l /proc/self/fd | tail -n +2 | wc -l"]).output().expect("sh");
    assert_eq!(lines[lines.len() - 1], String::from_utf8_lossy(&plain.stdout).trim(), "{text}");
}

#[tokio::test]
async fn starts_leave_no_descriptor_and_no_process_behind() {
    let folder = Folder::new();
    let program = folder.sh("short", "exit 0");
    let open = || fs::read_dir("/proc/self/fd").expect("the kernel's list").count();
    let children = || {
        let mine = std::process::id();
        let tasks = fs::read_dir(format!("/proc/{mine}/task")).expect("the kernel's list").flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        lists.map(|list| list.split_whitespace().count()).sum::<usize>()
    };
    let mut before = None;
    for round in 0..200 {
        let Process { ended, control, .. } = folder.start(program.clone()).await.expect("it starts");
        assert_eq!(ended.await, Exit::Code(0));
        drop(control);
        if round % 3 == 0 {
            folder.start(Program { path: "absent".into(), ..Program::default() }).await.expect_err("absent");
        }
        // The first start opens what the runtime keeps.
        before.get_or_insert_with(open);
    }
    assert_eq!(Some(open()), before);
    assert_eq!(children(), 0);
}

#[tokio::test]
async fn a_guard_started_by_hand_says_what_it_is() {
    let output = Command::new(PROGRAM).arg("__guard").stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("only a node starts a guard"), "{output:?}");
}

//! The command line against real nodes and real files: exit codes, JSON, and messages that name the fault.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::{Cluster, Running, SEEN_MAX, Setup, program, run_to_end};
use crate::question::{DISPATCH, write};

/// How long a command may take that only looks at files or asks one question.
const COMMAND_MAX: Duration = Duration::from_secs(10);

/// Four faults: a misspelt key, a wrong type, a value out of range, and an address that is none.
const FAULTY: &str = "[bundle]\nversion = 1\n\n[resource]\nname = \"a\"\n\n[runtime.web]\nlisten = \"nowhere\"\nenabld = true\n\n\
                      [runtime.mesh]\nenabled = \"yes\"\n\n[runtime.mesh.timing]\nperiod_ms = 1\n";

#[test]
fn validate_and_play_show_every_fault_at_once_and_start_nothing() {
    let cluster = Cluster::new();
    let project = cluster.project("a", &Setup::new());
    fs::write(project.join("runtime.toml"), FAULTY).expect("written");
    for verb in ["validate", "play"] {
        let refused = run(&[verb], &project);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        for fault in ["runtime.toml:8:", "runtime.toml:9:", "runtime.toml:12:", "runtime.toml:15:"] {
            assert!(said.contains(fault), "wanted {fault}: {said}");
        }
        assert!(said.contains("4 problems") && said.contains("enabled"), "{said}");
        assert!(
            said.lines().filter(|line| line.trim_start_matches([' ', '|']).starts_with('^')).count() >= 4,
            "{said}"
        );
    }
    assert!(!project.join("state").exists(), "nothing was made, so nothing was bound");

    let refused = run(&["validate", "--json"], &project);
    let problems = parse(&refused);
    assert_eq!((refused.status.code(), &problems["ok"]), (Some(3), &json!(false)));
    assert_eq!(problems["problems"].as_array().map(Vec::len), Some(4), "{problems}");
    assert_eq!(problems["problems"][1]["line"], 9);

    fs::write(project.join("runtime.toml"), "[bundle]\nversion = 1\n").expect("written");
    let valid = run(&["validate", "--json"], &project);
    assert_eq!((valid.status.code(), &parse(&valid)["ok"]), (Some(0), &json!(true)));
}

/// Two settings without effect: one that looks like protection, and one that does not.
const INERT: &str = "[runtime.time]\nsource = \"synchronised\"\n[runtime.mesh]\npublish = [\"a\"]\n";

/// The same settings in a file that has a section for the mesh already.
fn with_inert(settings: &str) -> String {
    let mesh = INERT.split("[runtime.mesh]\n").last().unwrap_or_default();
    let time = INERT.split("[runtime.mesh]").next().unwrap_or_default();
    format!("{}\n{time}", settings.replace("[runtime.mesh]\n", &format!("[runtime.mesh]\n{mesh}")))
}

#[test]
fn play_refuses_what_only_looks_like_protection_and_a_node_in_dev_warns_of_it() {
    let cluster = Cluster::new();
    let project = cluster.project("a", &Setup::new());
    let path = project.join("runtime.toml");
    let token = "auth_token = \"5d0c9b7e41f24a8e9c3b6f7a2d1e8c40\"";
    let text_of = |profile: &str| {
        format!(
            "[bundle]\nversion = 1\n[runtime.cloud]\nprofile = {profile:?}\n{}",
            INERT.replace("[runtime.time]", &format!("[runtime.control]\n{token}\n[runtime.time]"))
        )
    };
    fs::write(&path, text_of("plant")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode");
    let refused = run(&["play"], &project);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("\n  runtime.time.source: has no effect in this version: "), "{said}");
    let open = format!("{}: is open to others (mode 644); set its mode to 600", path.display());
    assert!(said.contains(&format!("\n  runtime.control.auth_token: {open}")), "{said}");
    assert!(
        said.contains("warning: ") && said.contains(": runtime.mesh.publish: has no effect in this version: "),
        "{said}"
    );

    fs::write(&path, text_of("dev")).expect("written");
    let valid = parse(&run(&["validate", "--json"], &project));
    assert_eq!((&valid["ok"], &valid["missing"]), (&json!(true), &json!([])));
    let warned: Vec<_> = valid["warnings"].as_array().into_iter().flatten().map(|it| it["message"].as_str()).collect();
    assert_eq!((warned.len(), warned[0]), (3, Some(format!("runtime.control.auth_token: {open}").as_str())), "{valid}");

    let mut node = cluster.play("b", Setup::new());
    node.kill();
    let settings = fs::read_to_string(node.project().join("runtime.toml")).expect("settings");
    fs::write(node.project().join("runtime.toml"), with_inert(&settings)).expect("written");
    node.restart();
    for setting in ["runtime.time.source", "runtime.mesh.publish"] {
        assert!(node.log().contains(&format!(": {setting}: has no effect in this version: ")), "{}", node.log());
    }
}

#[test]
fn every_documented_exit_code_is_reached() {
    let cluster = Cluster::new();
    let [a] = cluster.site(["a"]);
    let url = format!("http://{}", a.web());
    let token = cluster.folder().join("token");
    fs::write(&token, "trt_this-is-not-a-token-of-this-node-at-all-0").expect("written");
    let token = token.display().to_string();
    let code = |arguments: &[&str]| {
        let (output, _) = run_to_end(program().args(arguments), COMMAND_MAX);
        (output.status.code(), text(&output.stderr))
    };
    let project = a.project().display().to_string();
    let expect = |wanted: i32, arguments: &[&str]| {
        let (got, said) = code(arguments);
        assert_eq!(got, Some(wanted), "{arguments:?}: {said}");
        assert_eq!(said.is_empty(), wanted == 0, "a failure says why, a success nothing: {said}");
    };
    expect(0, &["status", "--project", &project]);
    expect(0, &["validate", "--project", &project]);
    expect(1, &["audit", "verify", "--project", &cluster.folder().join("nothing").display().to_string()]);
    expect(2, &["no-such-verb"]);
    expect(2, &["status"]);
    expect(4, &["status", "--url", "http://127.0.0.1:1"]);
    expect(4, &["peers", "list", "--project", &cluster.folder().join("nothing").display().to_string()]);
    expect(4, &["peers", "forget", "nobody", "--project", &project]);
    expect(5, &["status", "--url", &url, "--token-file", &token]);
    expect(5, &["ctl", "shutdown", "--url", &url]);
    assert_eq!(a.get("/readyz").status, 200, "whoever has no token cannot stop it");
    assert_eq!(code(&["--help"]).0, Some(0));
    assert_eq!(code(&["--version"]).0, Some(0));
}

#[test]
fn what_is_asked_as_json_is_json() {
    let cluster = Cluster::new();
    let [a, b] = cluster.site(["a", "b"]);
    assert!(a.dispatch_one(&write("a", "for-the-log", &["b"], 30)).ok);
    a.wait_until("its links are counted", SEEN_MAX, |a| {
        let health = a.get("/healthz");
        if health.text_at("/status") == "ok" { Ok(()) } else { Err(health.text) }
    });
    let ask = |node: &Running, arguments: &[&str]| {
        let output = node.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
        parse(&output)
    };
    for status in [ask(&a, &["status", "--json"]), ask(&a, &["ctl", "status", "--json"])] {
        assert_eq!((&status["context"]["connected_via"], &status["health"]["status"]), (&json!("a"), &json!("ok")));
    }
    let peers = ask(&a, &["peers", "list", "--json"]);
    let names: Vec<_> = peers.as_array().expect("a list").iter().map(|node| node["runtime_id"].clone()).collect();
    assert_eq!(names, [json!("a"), json!("b")]);
    let approved = ask(&a, &["peers", "approve", "b", "--fingerprint", b.fingerprint(), "--json"]);
    assert_eq!(approved["ok"], true);
    assert_eq!(a.peer("b").expect("listed")["trust_state"], "trusted");
    let set = ask(&a, &["ctl", "config-set", "log.level", "debug", "--json"]);
    assert_eq!(set["results"][0]["response"]["applied_revision"], 1, "{set}");
    let verified = ask(&a, &["audit", "verify", "--json"]);
    assert_eq!((&verified["ok"], &verified["chains"][0]["chain"]), (&json!(true), &json!("writes")));
    let exported = text(&a.command(&["audit", "export", "--json"]).stdout);
    let lines: Vec<Json> = exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["request_id"] == "for-the-log"), "{exported}");
    let stopping = ask(&a, &["ctl", "shutdown", "--json"]);
    assert_eq!(stopping["ok"], true);
}

#[test]
fn people_get_tables() {
    let cluster = Cluster::new();
    let [a, _b] = cluster.site(["a", "b"]);
    let table = text(&a.command(&["peers", "list"]).stdout);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.trim_start().starts_with("RUNTIME"), "{table}");
    assert!(table.contains("online") && table.contains("untrusted"), "{table}");
    let status = text(&a.command(&["status"]).stdout);
    assert!(status.contains("2 of 2 known runtimes"), "{status}");
}

#[test]
fn a_flipped_byte_in_the_audit_log_is_found_and_its_record_is_named() {
    let cluster = Cluster::new();
    let [mut a] = cluster.site(["a"]);
    for number in 0..5 {
        assert!(a.dispatch_one(&write("a", &format!("kept-{number}"), &["a"], 30 + number)).ok);
    }
    a.shutdown();
    let forged = cluster.project("forged", &Setup::new());
    copy_folder(&a.state_folder(), &forged.join("state"));
    assert!(run(&["audit", "verify"], &forged).status.success(), "the copy is as whole as the original");

    let database = rusqlite::Connection::open(forged.join("state/control.db")).expect("opens");
    let sql = "UPDATE audit SET body = replace(body, 'kept-2', 'kept-9') WHERE seq = 3";
    assert_eq!(database.execute(sql, []).expect("changed"), 1);
    drop(database);
    let found = run(&["audit", "verify"], &forged);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(text(&found.stdout).contains("writes: broken at record 3"), "{found:?}");
    let found = run(&["audit", "verify", "--json"], &forged);
    let verdict = parse(&found);
    assert_eq!((&verdict["ok"], &verdict["chains"][0]["ok"]), (&json!(false), &json!(false)));

    let database = rusqlite::Connection::open(forged.join("state/control.db")).expect("opens");
    database.execute("UPDATE audit SET body = replace(body, 'kept-9', 'kept-2')", []).expect("changed back");
    database.execute("DELETE FROM audit WHERE seq = 4", []).expect("removed");
    drop(database);
    let found = text(&run(&["audit", "verify"], &forged).stdout);
    assert!(found.contains("writes: broken at record 4"), "{found}");
}

#[test]
fn play_makes_a_project_of_an_empty_folder_and_serves_it() {
    let cluster = Cluster::new();
    let mut new = cluster.scaffold("line-1");
    assert_eq!(new.get("/readyz").status, 200);
    let settings = fs::read_to_string(new.project().join("runtime.toml")).expect("made");
    assert!(settings.contains("name = \"line-1\"") && settings.contains("# "), "{settings}");
    let greeting = new.log();
    for wanted in ["default-site/line-1", "profile dev", "a new identity", "made ", "trust-runtime status --project"] {
        assert!(greeting.contains(wanted), "wanted {wanted}: {greeting}");
    }
    assert_eq!(new.post(DISPATCH, &write("line-1", "first", &["line-1"], 30)).body["ok"], true);
    assert!(new.command(&["status"]).status.success());
    new.shutdown();
    // The second start finds everything in place.
    let known = new.fingerprint().to_owned();
    new.restart();
    assert_eq!((new.boot(), new.fingerprint()), (2, known.as_str()));
    assert_eq!(fs::read_to_string(new.project().join("runtime.toml")).expect("there"), settings, "never rewritten");
}

#[test]
fn completions_are_scripts_that_their_shell_accepts() {
    for shell in ["bash", "zsh", "fish"] {
        let (output, _) = run_to_end(program().args(["completions", shell]), COMMAND_MAX);
        let script = text(&output.stdout);
        assert!(output.status.success() && script.contains("config-set"), "{shell}: {output:?}");
        if shell == "bash" {
            // From a file: it is longer than an argument may be.
            let file = tempfile::NamedTempFile::new().expect("a file");
            fs::write(file.path(), &script).expect("written");
            let (checked, _) = run_to_end(std::process::Command::new("bash").arg("-n").arg(file.path()), COMMAND_MAX);
            assert!(checked.status.success(), "{checked:?}");
        }
    }
}

/// Runs a command on a project.
#[track_caller]
fn run(arguments: &[&str], project: &Path) -> Output {
    run_to_end(program().args(arguments).arg("--project").arg(project), COMMAND_MAX).0
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[track_caller]
fn parse(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

//! `policy explain` and `policy test` on real files: exit codes, places, and advice that works when it is followed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value as Json;

use crate::harness::{Cluster, Setup, program, run_to_end};

/// How long a command may take that only looks at files.
const COMMAND_MAX: Duration = Duration::from_secs(10);

/// Rules of a file whose first 17 lines are those of the harness.
const RULES: &str = "[runtime.cloud.wan]
allow_write = [
  { id = \"restart\", action = \"cmd_invoke/restart\", actor = \"default-site/alice\", target = \"south/*\" },
  { id = \"fire\", effect = \"deny\", action = \"*\", target = \"south/furnace\", reason = \"attended only\" },
]
accept_write = [{ id = \"in\", action = \"cmd_invoke/ping\", actor = \"south/*\" }]

[[runtime.cloud.wan.test]]
actor = \"default-site/alice\"
action = \"cmd_invoke/restart\"
target = \"south/line-1\"
expect = \"allow\"
";

fn project(cluster: &Cluster, rules: &str) -> PathBuf {
    let project = cluster.project("a", &Setup::new());
    let path = project.join("runtime.toml");
    let text = fs::read_to_string(&path).expect("written");
    fs::write(path, format!("{text}{rules}")).expect("written");
    project
}

fn run(project: &Path, arguments: &[&str]) -> Output {
    run_to_end(program().arg("policy").args(arguments).arg("--project").arg(project), COMMAND_MAX).0
}

fn explain(project: &Path, actor: &str, action: &str, rest: &[&str]) -> Output {
    run(project, &[&["explain", "--actor", actor, "--action", action], rest].concat())
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn advice_that_is_followed_works() {
    let cluster = Cluster::new();
    let project = project(&cluster, RULES);
    let ask = |rest: &[&str]| explain(&project, "default-site/bob", "cmd_invoke/ping", rest);
    let south = ["--target", "south/line-1", "--json"];
    let denied = ask(&south);
    assert_eq!(denied.status.code(), Some(5), "{denied:?}");
    let side = &json(&denied)["sides"][0];
    assert_eq!((&side["list"], &side["code"]), (&Json::from("allow_write"), &Json::from("permission_denied")));
    assert_eq!(side["near_misses"].as_array().map(Vec::len), Some(2), "{side}");
    let added = side["remedies"][0][0]["toml"].as_str().expect("a rule").to_owned();
    let elsewhere = side["elsewhere"]["toml"].as_str().expect("the other site's rule").to_owned();

    let path = project.join("runtime.toml");
    let file = fs::read_to_string(&path).expect("readable");
    fs::write(&path, file.replace("allow_write = [\n", &format!("allow_write = [\n  {added}\n"))).expect("written");
    let allowed = ask(&south);
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
    assert_eq!((&json(&allowed)["allowed"], text(&allowed.stderr)), (&Json::Bool(true), ""));
    // What the other site must have, in the other site's file.
    let other = cluster.project("line-1", &Setup::new());
    let path = other.join("runtime.toml");
    let file = fs::read_to_string(&path).expect("readable");
    let inbound = ["--side", "inbound"];
    fs::write(&path, format!("{file}\n[runtime.identity]\nsite = \"south\"\n")).expect("written");
    let denied = explain(&other, "default-site/bob", "cmd_invoke/ping", &inbound);
    assert_eq!(denied.status.code(), Some(5), "{denied:?}");
    fs::write(&path, format!("{file}\n[runtime.identity]\nsite = \"south\"\n{elsewhere}\n")).expect("written");
    let allowed = explain(&other, "default-site/bob", "cmd_invoke/ping", &inbound);
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
}

#[test]
fn people_are_shown_the_rule_and_its_line() {
    let cluster = Cluster::new();
    let project = project(&cluster, RULES);
    let line = |found: &str| {
        let file = fs::read_to_string(project.join("runtime.toml")).expect("readable");
        let number = file.lines().position(|line| line.contains(found)).expect("there") + 1;
        format!("runtime.toml:{number}:3")
    };
    let alice = |rest: &[&str]| {
        let output = explain(&project, "default-site/alice", "cmd_invoke/ping", rest);
        (output.status.code(), text(&output.stdout).to_owned())
    };
    let (code, said) = alice(&["--target", "south/line-1"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains(&format!("near miss: restart ({}", cluster.folder().join("a").display())), "{said}");
    assert!(said.contains(&line("\"restart\"")) && said.contains("^^^"), "{said}");
    assert!(said.contains("action wanted cmd_invoke/restart, got cmd_invoke/ping"), "{said}");
    assert!(said.contains("action = \"cmd_invoke/*\"") && said.contains("the other site decides too"), "{said}");
    let (code, said) = alice(&["--target", "south/furnace"]);
    assert_eq!(code, Some(5));
    assert!(said.contains("denied by fire") && said.contains("attended only"), "{said}");
    assert!(said.contains(&line("\"fire\"")), "{said}");
    let (code, said) = alice(&["--role", "viewer"]);
    assert_eq!(code, Some(5));
    assert!(said.contains("denied by role") && said.contains("a credential of the role operator"), "{said}");
    // The own runtime is origin and target.
    let (code, said) = alice(&[]);
    assert_eq!(code, Some(0));
    assert!(said.contains("outbound: allowed by role:engineer") && said.contains("inbound: allowed by"), "{said}");
}

#[test]
fn what_a_rule_does_not_name_is_said_and_an_offered_rule_is_for_the_question_alone() {
    let cluster = Cluster::new();
    let rule = "[[runtime.cloud.wan.allow_write]]\nid = \"level\"\naction = \"cfg_apply\"\ntarget = \"south/*\"\n\
                params = { \"log.level\" = \"debug\" }\n";
    let project = project(&cluster, rule);
    let ask = |action: &str, rest: &[&str]| {
        let rest = [&["--target", "south/line-1", "--role", "admin"], rest].concat();
        let people = explain(&project, "default-site/bob", action, &rest);
        let scripts = explain(&project, "default-site/bob", action, &[&rest[..], &["--json"]].concat());
        assert_eq!((people.status.code(), scripts.status.code()), (Some(5), Some(5)), "{people:?}");
        (text(&people.stdout).to_owned(), json(&scripts)["sides"][0].clone())
    };
    let (said, side) = ask("cfg_apply", &["--param", "log.level=debug", "--param", "store.runs_kept=9"]);
    assert!(
        said.contains("near miss: level (") && said.contains("params does not name store.runs_kept, got 9"),
        "{said}"
    );
    let [missed] = side["near_misses"][0]["failed"].as_array().expect("a list").as_slice() else { panic!("{side}") };
    assert_eq!(missed, &serde_json::json!({ "field": "params.store.runs_kept", "wanted": "nothing", "got": "9" }));
    // One rule, and it names both: no change of the other rule is offered.
    let [remedy] = side["remedies"].as_array().expect("a list").as_slice() else { panic!("{side}") };
    let step = &remedy[0];
    assert_eq!(
        (&step["takes_any_params"], &step["cannot_name"]),
        (&Json::Bool(false), &serde_json::json!([])),
        "{step}"
    );
    let added = step["toml"].as_str().expect("a rule");
    assert!(added.contains("params = { \"log.level\" = \"debug\", \"store.runs_kept\" = 9 }"), "{added}");
    assert_eq!(side["elsewhere"]["takes_any_params"], Json::Bool(false));
    assert!(!said.contains("it takes any"), "{said}");

    let (said, side) = ask("cmd_invoke/ping", &["--param", "n=1", "--param", "x=1.5"]);
    assert!(said.contains("it takes any: no rule can write the value of x\n"), "{said}");
    let step = &side["remedies"][0][0];
    assert_eq!(
        (&step["takes_any_params"], &step["cannot_name"]),
        (&Json::Bool(true), &serde_json::json!(["x"])),
        "{step}"
    );
    let (said, _) = ask("cmd_invoke/ping", &[]);
    assert!(said.contains("it names no parameter, so it takes any\n"), "{said}");
}

#[test]
fn what_cannot_be_asked_is_a_wrong_usage_and_a_wrong_file_a_wrong_configuration() {
    let cluster = Cluster::new();
    let project = project(&cluster, RULES);
    for (actor, action, rest) in [
        ("bob", "cmd_invoke/ping", &[] as &[&str]),
        ("spiffe://other/default-site/bob", "cmd_invoke/ping", &[]),
        ("default-site/bob", "cmd_invoke", &[]),
        ("default-site/bob", "cfg_apply", &[]),
        ("default-site/bob", "cfg_apply/x", &[]),
        ("default-site/bob", "reboot", &[]),
        ("default-site/bob", "status_read", &["--param", "a=1"]),
        ("default-site/bob", "cfg_apply", &["--param", "a"]),
        ("default-site/bob", "cfg_apply", &["--param", "a=1", "--param", "a=2"]),
        ("default-site/bob", "cmd_invoke/ping", &["--role", "king"]),
        ("default-site/bob", "cmd_invoke/ping", &["--at", "tomorrow"]),
        ("default-site/bob", "cmd_invoke/ping", &["--target", "a/b/c"]),
        ("default-site/bob", "cmd_invoke/ping", &["--side", "sideways"]),
        ("default-site/bob", "cmd_invoke/ping", &["--side", "inbound", "--target", "south/line-1"]),
    ] {
        let refused = explain(&project, actor, action, rest);
        assert_eq!(refused.status.code(), Some(2), "{actor} {action} {rest:?}: {refused:?}");
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty(), "{refused:?}");
    }
    fs::write(project.join("runtime.toml"), "[bundle]\nversion = 2\n").expect("written");
    for refused in [explain(&project, "default-site/bob", "status_read", &[]), run(&project, &["test"])] {
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(text(&refused.stderr).contains("runtime.toml:2:"), "{refused:?}");
    }
}

#[test]
fn time_parameters_and_role_are_part_of_the_question() {
    let cluster = Cluster::new();
    let rules = "[[runtime.cloud.wan.allow_write]]\naction = \"cfg_apply\"\ntarget = \"south/*\"\n\
                 params = { \"log.level\" = \"debug\" }\nnot_after = 2030-01-01T00:00:00Z\n";
    let project = project(&cluster, rules);
    let code = |rest: &[&str]| {
        let south = ["--target", "south/line-1"];
        explain(&project, "default-site/bob", "cfg_apply", &[&south, rest].concat()).status.code()
    };
    let debug = "log.level=debug";
    assert_eq!(code(&["--param", debug, "--at", "2029-12-31T23:59:59Z"]), Some(0));
    assert_eq!(code(&["--param", debug, "--at", "2030-01-01T00:00:00Z"]), Some(5));
    assert_eq!(code(&["--param", "log.level=warn", "--at", "2029-12-31T23:59:59Z"]), Some(5));
    assert_eq!(code(&["--param", debug, "--at", "2029-12-31T23:59:59Z", "--role", "operator"]), Some(5));
}

#[test]
fn the_tests_of_a_file_are_run_and_a_failing_one_is_shown() {
    let cluster = Cluster::new();
    let project = project(&cluster, RULES);
    let good = run(&project, &["test"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(text(&good.stdout).contains("1 of 1 tests hold") && text(&good.stdout).contains("rule restart allows it"));
    let path = project.join("runtime.toml");
    let file = fs::read_to_string(&path).expect("readable");
    fs::write(&path, file.replace("expect = \"allow\"", "expect = \"deny\"")).expect("written");
    let bad = run(&project, &["test"]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(text(&bad.stdout).contains("FAILED") && text(&bad.stdout).contains("wanted deny"), "{bad:?}");
    let bad = run(&project, &["test", "--json"]);
    let (code, answer) = (bad.status.code(), json(&bad));
    assert_eq!((code, &answer["ok"], &answer["tests"][0]["got"]), (Some(1), &Json::Bool(false), &Json::from("allow")));
    // A node refuses the same file, and why is still explained.
    let refused = run_to_end(program().arg("validate").arg("--project").arg(&project), COMMAND_MAX).0;
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let asked = explain(&project, "default-site/alice", "cmd_invoke/restart", &["--target", "south/line-1"]);
    assert!(text(&asked.stdout).contains("restart"), "{asked:?}");
}

#[test]
fn a_rule_that_never_decides_is_said_by_validate() {
    let cluster = Cluster::new();
    let project = project(&cluster, &RULES.replace("\"south/furnace\"", "\"*\"").replace("\"allow\"\n", "\"deny\"\n"));
    let said = run_to_end(program().arg("validate").arg("--project").arg(&project), COMMAND_MAX).0;
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(text(&said.stderr).contains("the rule restart never decides: the deny rule fire covers it"), "{said:?}");
}

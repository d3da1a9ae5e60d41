//! A run that began before all that are kept: whoever waits for it is told how it ended, and then it is gone.

use std::fs;

use serde_json::json;

use super::{await_numbers, await_status, invoke, kind, written};
use crate::harness::{Cluster, SEEN_MAX, Setup};
use crate::streams::Following;

/// Ends at once if it is to be short, and otherwise when it is let go twice: who follows at another node asks for each page, and
/// has to have asked behind its last word before it ends.
const LONG: &str = r#"#!/bin/sh
case "$(cat)" in *short*) exit 0 ;; esac
echo $$ >> started
while [ ! -e go ]; do sleep 0.05; done
echo bye
while [ ! -e end ]; do sleep 0.05; done
sleep 0.5
echo '{"type":"result","value":"long"}'
"#;

#[test]
fn who_waits_for_a_run_is_told_how_it_ended_though_it_is_forgotten_by_that() {
    let cluster = Cluster::new();
    let declared = written(&cluster, "long", LONG, 60_000);
    let a = cluster.play("a", Setup::new().with(format!("[runtime.store]\nruns_kept = 1\n\n{declared}")));
    let b = cluster.play("b", Setup::new().dialling(&a));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    let caller = a.send("/agents/long/i1", &json!({}));
    await_numbers(&a, "started", 1);
    let command = invoke(&a, "long", "long", &json!({}));
    await_numbers(&a, "started", 2);
    let followers = [&a, &b].map(|node| (node, Following::new(node, &command, None)));
    followers.iter().for_each(|(node, following)| following.until(node, 1));

    assert_eq!(a.post("/agents/long/i1", &json!("short")).status, 200);
    let short = invoke(&a, "short", "long", &json!({ "short": true }));
    await_status(&a, &short, "completed");
    fs::write(a.project().join("go"), "").expect("ours");
    followers.iter().for_each(|(node, following)| following.until(node, 2));
    fs::write(a.project().join("end"), "").expect("ours");

    let answer = caller.answer().expect("an answer");
    assert_eq!((answer.status, &answer.body["result"]), (200, &json!("long")), "{}", answer.text);
    for (node, following) in &followers {
        following.until(node, 3);
        let frames = following.frames();
        let kinds: Vec<_> = frames.iter().filter_map(|frame| frame.lines().next()).collect();
        assert_eq!(kinds, ["event: run_start", "event: log", "event: run_end"], "{frames:?}");
        assert!(frames.last().is_some_and(|frame| frame.contains(r#""result":"long""#)), "{frames:?}");
    }
    for run in [answer.text_at("/_meta/runId"), &command] {
        for (node, path) in [(&a, ""), (&a, "/events"), (&a, "/stream"), (&b, ""), (&b, "/events"), (&b, "/stream")] {
            let answer = node.get(&format!("/runs/{run}{path}"));
            assert_eq!((answer.status, kind(&answer)), (404, "run_not_found"), "{path}: {}", answer.text);
        }
        a.wait_until("it is said", SEEN_MAX, |a| {
            let said = |line: &&str| line.contains("forgotten by its own end") && line.contains(run);
            let lines: Vec<String> = a.log().lines().filter(said).map(str::to_owned).collect();
            match lines.as_slice() {
                [line] if line.contains("run_not_found") && line.contains("raise runtime.store.runs_kept") => Ok(()),
                _ => Err(format!("{lines:?}")),
            }
        });
    }
    assert_eq!(a.get(&format!("/runs/{short}")).body["status"], "completed", "it began later and stays");
}

//! Every way in which a run ends badly has a name, and leaves no process.

use serde_json::json;

use super::{all_events, assert_whole, await_gone, await_numbers, await_status, cancel, error, invoke, kind, written};
use crate::harness::{Cluster, Setup};

/// Hears no request to end, and neither does its child.
const STUBBORN: &str = "#!/bin/sh
trap '' TERM HUP INT
sleep 1000 &
echo \"$$ $!\" > stubborn.new
mv stubborn.new stubborn
echo ready
while :; do sleep 1000; done
";

#[test]
fn a_run_that_takes_too_long_is_ended_with_its_whole_group() {
    let cluster = Cluster::new();
    let node = cluster.play("a", Setup::new().with(written(&cluster, "stubborn", STUBBORN, 500)));
    // A caller who waits is told no more than that it failed.
    let answer = node.post("/agents/stubborn/i1", &json!({}));
    assert_eq!((answer.status, kind(&answer)), (500, "internal_error"), "{}", answer.text);
    let pids = await_numbers(&node, "stubborn", 2);
    await_gone(&node, &pids);
    let run = invoke(&node, "slow", "stubborn", &json!({}));
    let record = await_status(&node, &run, "errored");
    assert_eq!(error(&record), ("Timeout", "the run took longer than 500 ms"), "{record}");
    assert_whole(&all_events(&node, &run));
    await_gone(&node, &await_numbers(&node, "stubborn", 2));
}

#[test]
fn a_cancelled_run_that_does_not_obey_is_killed() {
    let cluster = Cluster::new();
    let node = cluster.play("a", Setup::new().with(written(&cluster, "stubborn", STUBBORN, 600_000)));
    let run = invoke(&node, "endless", "stubborn", &json!({}));
    let pids = await_numbers(&node, "stubborn", 2);
    cancel(&node, "cancel", &run);
    // Once more changes nothing, neither while it is ended nor afterwards.
    cancel(&node, "cancel-again", &run);
    let record = await_status(&node, &run, "errored");
    assert_eq!(error(&record).0, "Cancelled", "{record}");
    await_gone(&node, &pids);
    assert_whole(&all_events(&node, &run));
    cancel(&node, "cancel", &run);
}

#[test]
fn a_program_that_fails_or_cannot_start_says_how() {
    let cluster = Cluster::new();
    let declared = [
        written(&cluster, "fails", "#!/bin/sh\necho half; echo why >&2; exit 7\n", 60_000),
        written(&cluster, "dies", "#!/bin/sh\nkill -ABRT $$\n", 60_000),
        written(&cluster, "alien", "#!/no/such/interpreter\n", 60_000),
        written(&cluster, "deaf", "#!/bin/sh\nexec true\n", 60_000),
    ];
    let node = cluster.play("a", Setup::new().with(declared.concat()));
    for (name, wanted, said) in [
        ("fails", "ExitError", "ended with 7"),
        ("dies", "ExitError", "ended by signal 6"),
        ("alien", "StartError", "interpreter"),
    ] {
        let run = invoke(&node, name, name, &json!({}));
        let record = await_status(&node, &run, "errored");
        let (found, message) = error(&record);
        assert_eq!(found, wanted, "{record}");
        assert!(message.contains(said), "{record}");
        assert_whole(&all_events(&node, &run));
    }
    // Who does not read what it is given has not failed for that.
    let run = invoke(&node, "deaf", "deaf", &json!({ "text": "x".repeat(4_000) }));
    await_status(&node, &run, "completed");
}

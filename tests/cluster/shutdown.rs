//! How a node ends, and how it refuses to begin.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::harness::{Cluster, Running, SEEN_MAX, STOP_MAX, Setup, program, run_to_end};
use crate::question::{DISPATCH, outcomes, read, with, write};
use crate::watch::Stopwatch;

/// How long a program that cannot start may take to say so.
const REFUSED_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_stop_answers_what_is_in_flight_and_ends_with_zero() {
    let cluster = Cluster::new();
    let [mut a, b, c] = cluster.site(["a", "b", "c"]);
    c.stop();
    // One target never answers, the other one at once: the request is in flight for its whole budget.
    let in_flight = [read("a", "last-read", &["c", "b"]), write("a", "last-write", &["c", "b"], 30)]
        .map(|body| a.send(DISPATCH, &with(body, "query_budget_ms", 700)));
    await_asked(&b, &["last-read", "last-write"]);

    let watch = Stopwatch::start();
    a.signal("TERM");
    a.wait_until("it is not ready any more", SEEN_MAX, |a| match a.try_get("/readyz") {
        Ok(answer) if answer.status == 200 => Err("still ready".to_owned()),
        Ok(_) | Err(_) => Ok(()),
    });
    let unready = watch.elapsed();
    for sent in in_flight {
        let outcomes = outcomes(&sent.answer().expect("answered although the node is stopping"));
        assert_eq!(outcomes[0].code, "timeout", "{}", outcomes[0].text);
        assert!(outcomes[1].ok, "{}", outcomes[1].text);
    }
    let answered = watch.elapsed();
    let (status, _) = a.await_end(STOP_MAX);
    eprintln!("not ready after {unready:?}, answered after {answered:?}, ended after {:?}", watch.elapsed());
    assert_eq!(status.code(), Some(0), "{}", a.log());
    assert!(watch.elapsed() < STOP_MAX);
    assert!(unready < answered, "readiness goes before the work is done");
    a.verify_audit();
    assert_eq!(b.applied("last-write"), 1);
}

/// The budgets are longer than a stop may take. Nobody is cut off: every caller has a whole answer, and the record agrees.
#[test]
fn a_stop_answers_dispatches_that_would_wait_for_longer() {
    let cluster = Cluster::new();
    let [mut a, b, c] = cluster.site(["a", "b", "c"]);
    c.stop();
    let in_flight = [read("a", "long-read", &["c", "b"]), write("a", "long-write", &["c", "a", "b"], 30)]
        .map(|body| a.send(DISPATCH, &with(body, "query_budget_ms", 10_000)));
    await_asked(&b, &["long-read", "long-write"]);

    let watch = Stopwatch::start();
    a.signal("TERM");
    for sent in in_flight {
        let outcomes = outcomes(&sent.answer().expect("a whole answer although the node is stopping"));
        let (silent, others) = outcomes.split_first().expect("a result for each");
        assert!(others.iter().all(|outcome| outcome.ok), "{others:?}");
        assert_eq!((silent.target.as_str(), silent.code.as_str()), ("c", "timeout"), "{}", silent.text);
        assert!(silent.text.contains("before this runtime stopped"), "{}", silent.text);
    }
    let answered = watch.elapsed();
    let (status, _) = a.await_end(STOP_MAX);
    eprintln!("answered after {answered:?}, ended after {:?}", watch.elapsed());
    assert_eq!(status.code(), Some(0), "{}", a.log());
    assert!(answered < Duration::from_millis(1_200), "within what the listener waits: {answered:?}");
    assert!(watch.elapsed() < STOP_MAX);
    assert!(!a.log().contains("cut off"), "{}", a.log());
    a.verify_audit();
    a.restart();
    for id in ["long-read", "long-write"] {
        let of_c: Vec<_> = a.records(id).into_iter().filter(|record| record["target"] == "c").collect();
        let last = of_c.iter().find(|record| record["outcome"] != "intended").expect("on record");
        assert_eq!((&last["outcome"], &last["code"]), (&"unknown".into(), &"timeout".into()), "{last}");
        let concluded = of_c.iter().filter(|record| record["outcome"] != "intended").count();
        assert_eq!(concluded, 1, "once: {of_c:?}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let cluster = Cluster::new();
    let [mut a, b, c] = cluster.site(["a", "b", "c"]);
    c.stop();
    let _in_flight = a.send(DISPATCH, &with(write("a", "long", &["c", "b"], 30), "query_budget_ms", 10_000));
    await_asked(&b, &["long"]);
    a.signal("TERM");
    a.wait_until("it is stopping", SEEN_MAX, |a| {
        let log = a.log();
        if log.contains("a second signal ends at once") { Ok(()) } else { Err(log) }
    });
    a.signal("INT");
    let (status, took) = a.await_end(STOP_MAX);
    eprintln!("ended {took:?} after the second signal");
    // Without it what is in flight would be waited for.
    assert!(took < Duration::from_millis(1_000), "took {took:?}");
    assert_eq!(status.code(), Some(0));
    // What was cut off is said at the next start.
    a.restart();
    let last = a.records("long").into_iter().rfind(|record| record["target"] == "c").expect("on record");
    assert_eq!((&last["outcome"], &last["code"]), (&"unknown".into(), &"interrupted".into()), "{last}");
}

#[test]
fn ctl_shutdown_is_a_clean_stop_for_everyone() {
    let cluster = Cluster::new();
    let [mut a, b] = cluster.site(["a", "b"]);
    let output = a.command(&["ctl", "shutdown"]);
    assert!(output.status.success(), "{output:?}");
    let (status, took) = a.await_end(STOP_MAX);
    eprintln!("ended {took:?} after ctl shutdown");
    assert_eq!(status.code(), Some(0), "{}", a.log());
    b.await_lifecycle("a", "offline");
    let again = a.command(&["status"]);
    assert_eq!(again.status.code(), Some(4), "a node that is gone cannot be reached: {again:?}");
}

#[test]
fn a_second_play_on_the_same_project_is_refused_and_the_first_goes_on() {
    let cluster = Cluster::new();
    let [mut a] = cluster.site(["a"]);
    let (second, _) = run_to_end(program().args(["play", "--project"]).arg(a.project()), REFUSED_MAX);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(6), "{said}");
    assert!(said.contains("state/lock"), "{said}");
    assert!(a.dispatch_one(&write("a", "first", &["a"], 30)).ok);
    // Its own command line still finds it.
    assert!(a.command(&["status"]).status.success());
    a.shutdown();
    a.restart();
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_stays_behind() {
    let cluster = Cluster::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let project = cluster.project("a", &Setup::new());
    for variable in ["TRUST_RUNTIME__WEB__LISTEN", "TRUST_RUNTIME__MESH__LISTEN"] {
        let mut play = program();
        play.args(["play", "--project"]).arg(&project).env(variable, &address);
        let (refused, _) = run_to_end(&mut play, REFUSED_MAX);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        let setting = variable.replace("TRUST_RUNTIME__", "runtime.").replace("__", ".").to_lowercase();
        assert!(said.contains(&address) && said.contains(&setting), "wanted {setting} and {address}: {said}");
        assert!(!project.join("state/ready.json").exists(), "it never served");
    }
    // Neither the lock nor half a state is in the way of the next start.
    let a = cluster.play("a", Setup::new());
    assert_eq!(a.get("/readyz").status, 200);
}

/// Waits until the target that answers has the requests on record. Whoever is named before it has been asked by then.
#[track_caller]
fn await_asked(answering: &Running, ids: &[&str]) {
    for id in ids {
        answering.wait_until("it was asked", SEEN_MAX, |node| {
            if node.records(id).is_empty() { Err(format!("{id} is not on record")) } else { Ok(()) }
        });
    }
}

/// What a start is refused for says nothing of the files: the next one does not check them.
#[test]
fn a_start_that_is_refused_for_something_else_is_no_stop_that_was_not_clean() {
    let cluster = Cluster::new();
    let mut a = cluster.play("a", Setup::new());
    a.shutdown();
    let boot = a.boot();
    let state = a.state_folder();
    let words = [state.join("clean"), state.join("runs.clean")];
    assert!(words.iter().all(|word| word.exists()), "a clean stop");
    let key = state.join("identity.key");
    let good = fs::read(&key).expect("reads");
    fs::write(&key, "no key").expect("own file");
    a.launch();
    let (status, _) = a.await_end(SEEN_MAX);
    let said = a.log().lines().last().unwrap_or_default().to_owned();
    assert!(!status.success() && said.contains("identity.key"), "{}", a.log());
    assert!(words.iter().all(|word| word.exists()), "{}", a.log());
    // Nothing is begun either where it is the runs that cannot be read.
    fs::write(&key, good).expect("own file");
    let (runs, aside) = (state.join("runs.db"), state.join("runs.aside"));
    fs::rename(&runs, &aside).expect("own file");
    fs::write(&runs, "no database, and longer than the head of one: ".repeat(200)).expect("own file");
    a.launch();
    let (status, _) = a.await_end(SEEN_MAX);
    assert!(!status.success() && a.log().contains("runs.db"), "{}", a.log());
    assert!(words[0].exists(), "{}", a.log());
    fs::rename(&aside, &runs).expect("own file");
    a.restart();
    assert_eq!(a.boot(), boot + 1, "{}", a.log());
}

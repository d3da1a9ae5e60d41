//! A node whose machine has a wall clock ten years off, in a plant: it grants nothing, and harms nobody.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::harness::SEEN_MAX;
use crate::plant::{Desk, Plant, TOKEN, ask, outcome, ping};
use crate::watch::wait_until;

const ALICE: &str = "spiffe://trust/north/alice";

/// The actor of the token in the settings.
const ADMIN: &str = "spiffe://trust/north/admin";

/// The wall clock of one process, which a test moves. Only libfaketime does that without the whole machine.
#[derive(Debug)]
pub(crate) struct WallClock(PathBuf);

impl WallClock {
    /// It is kept in this file.
    pub(crate) fn at(file: PathBuf) -> Self {
        let clock = Self(file);
        clock.set("+0");
        clock
    }

    /// How far it is off. A reader must not find half of it.
    pub(crate) fn set(&self, offset: &str) {
        let beside = self.0.with_extension("new");
        fs::write(&beside, format!("{offset}\n")).expect("written");
        fs::rename(beside, &self.0).expect("in its place");
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.clone()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            // The other clock is nobody's to move, and a file's time is the machine's.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

/// Takes away what the library shares between the processes of a family, which one that was killed leaves behind.
pub(crate) fn forget(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // A process that ended by itself has left nothing.
        drop(fs::remove_file(Path::new("/dev/shm").join(name)));
    }
}

/// Where Debian's package puts it, on whatever processor.
pub(crate) fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a folder");
    let mut found = folders.filter_map(|it| Some(it.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    found.find(|it| Path::exists(it)).expect("libfaketime; install it, for example: sudo apt-get install libfaketime")
}

/// What the node answers to its own admin, whose token does not depend on any clock.
fn asked_as_admin(node: &Plant, desk: &Desk, path: &str, body: Option<&Json>) -> Json {
    let bearer = format!("authorization: Bearer {TOKEN}");
    let output = node.curl(&desk.anchors("north"), path, &["--header", &bearer], body);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_not_json| json!({ "curl": String::from_utf8_lossy(&output.stderr) }))
}

fn dispatched_as_admin(node: &Plant, desk: &Desk, body: &Json) -> String {
    outcome(&asked_as_admin(node, desk, "/api/runtime-cloud/actions/dispatch", Some(body)))
}

/// Three nodes of a plant, the third with a clock of its own.
struct World {
    desk: Desk,
    person: (String, String),
    clock: WallClock,
    a: Plant,
    b: Plant,
    c: Plant,
}

impl World {
    fn new() -> Self {
        let desk = Desk::new(&["north"]);
        let node = |name, dials: &[&Plant]| desk.play_with(("plant", "north", name), &["north"], dials, &[], "");
        let a = node("a", &[]);
        let b = node("b", &[&a]);
        let project = node("c", &[&a]).project.clone();
        let (clock, person) = (WallClock::at(desk.path("wall-clock")), desk.person("ca-north", "alice"));
        let c = Plant::start_with(None, project, &clock.environment());
        Self { desk, person, clock, a, b, c }
    }

    fn pings(&self, origin: &Plant, target: &str, id: &str) -> Json {
        origin.dispatch(&self.desk, "north", &self.person, &ping(origin, ALICE, target, id))
    }

    /// Asks again under another id until it is so: a peer may be seen a moment before its document is here.
    #[track_caller]
    fn pings_until(&self, origin: &Plant, target: &str, wanted: &str, id: &str) -> Json {
        let mut turn = 0;
        let (answer, _) = wait_until(&format!("{target} answers {wanted}"), SEEN_MAX, || {
            turn += 1;
            let answer = self.pings(origin, target, &format!("{id}-{turn}"));
            if outcome(&answer) == wanted { Ok(answer) } else { Err(answer.to_string()) }
        });
        answer
    }

    fn clock_of_c(&self) -> String {
        asked_as_admin(&self.c, &self.desk, "/healthz?verbose", None).to_string()
    }
}

fn a_clock_goes(offset: &str) {
    let world = World::new();
    let World { desk, clock, a, b, c, .. } = &world;
    world.pings_until(a, "c", "ok", "before");
    world.pings_until(c, "a", "ok", "back-before");

    clock.set(offset);
    wait_until("c doubts its clock", SEEN_MAX, || {
        let health = world.clock_of_c();
        if health.contains("went backwards or jumped ahead") { Ok(()) } else { Err(health) }
    });
    for (target, id) in [("c", "at-itself"), ("a", "at-another")] {
        assert_eq!(dispatched_as_admin(c, desk, &ping(c, ADMIN, target, id)), "clock_uncertain", "at {target}");
    }
    let read = ask(c, ADMIN, "c", "read", "status_read", &json!({}));
    assert_eq!(dispatched_as_admin(c, desk, &read), "ok", "reads go on");
    // By its clock no certificate holds, so its links are over. The others go on as before.
    a.sees("c", "lifecycle_state", "partitioned");
    assert_ne!(outcome(&world.pings(a, "c", "into-the-void")), "ok");
    assert_eq!(outcome(&world.pings(a, "b", "meanwhile")), "ok");
    b.sees("a", "lifecycle_state", "online");

    clock.set("+0");
    a.sees("c", "lifecycle_state", "online");
    let refused = world.pings_until(a, "c", "clock_uncertain", "still");
    assert_eq!(refused.pointer("/results/0/stage"), Some(&json!("target")), "{refused}");
    assert_eq!(dispatched_as_admin(c, desk, &ping(c, ADMIN, "a", "still-out")), "clock_uncertain");

    c.command(&["ctl", "time-reset"]);
    world.pings_until(a, "c", "ok", "after");
    world.pings_until(c, "a", "ok", "back-after");
}

#[test]
fn a_clock_ten_years_ahead_grants_nothing_and_harms_nobody() {
    a_clock_goes("+3650d");
}

#[test]
fn a_clock_ten_years_behind_grants_nothing_and_harms_nobody() {
    a_clock_goes("-3650d");
}

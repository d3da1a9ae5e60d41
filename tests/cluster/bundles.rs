//! Trust bundles between real nodes: fetched from a partner's endpoint, carried on a stick, and what an old one stops.

use std::fs;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::{SEEN_MAX, program, run_to_end};
use crate::plant::{COMMAND_MAX, Desk, Plant, ask, outcome, ping};
use crate::watch::wait_until;

/// The shortest time between two questions, and a little.
const POLLED_MAX: Duration = Duration::from_secs(20);

/// How long a bundle may go unconfirmed in these tests.
const AGE_MAX_S: u64 = 15;

const ALICE: &str = "spiffe://trust/north/alice";

/// The settings of a node whose rules let alice of north ping south.
fn settings(desk: &Desk, site: &str, name: &str, anchors: &[&str], dials: &[&str], partners: &str) -> String {
    let anchors: Vec<_> =
        anchors.iter().map(|it| format!("{{ site = {it:?}, path = {:?} }}", desk.anchors(it))).collect();
    let dials: Vec<_> = dials.iter().map(|it| format!("{it:?}")).collect();
    format!(
        "[bundle]\nversion = 1\n[resource]\nname = {name:?}\n\
         [runtime.identity]\nsite = {site:?}\nsource = \"files\"\nsvid_path = \"tls/node-{name}.pem\"\n\
         key_path = \"tls/node-{name}.key\"\nbans_path = {bans:?}\nanchors = [{anchors}]\n{partners}\n\
         [[runtime.identity.grant]]\nactor = \"north/alice\"\nrole = \"operator\"\n\
         [runtime.web]\nlisten = \"127.0.0.1:0\"\nauth = \"token\"\ntls = true\n\
         [runtime.tls]\nmode = \"self-managed\"\n[runtime.discovery]\nenabled = false\n\
         [runtime.mesh]\nlisten = \"127.0.0.1:0\"\nconnect = [{dials}]\n[runtime.cloud]\nprofile = \"dev\"\n\
         [[runtime.cloud.wan.allow_write]]\naction = \"cmd_invoke/ping\"\nactor = \"north/alice\"\ntarget = \"south/*\"\n\
         [[runtime.cloud.wan.accept_write]]\naction = \"cmd_invoke/ping\"\nactor = \"north/alice\"\n",
        bans = desk.bans(site).display(),
        anchors = anchors.join(", "),
        dials = dials.join(", "),
    )
}

fn play(desk: &Desk, site: &str, name: &str, text: &str) -> Plant {
    let project = desk.project(&format!("ca-{site}"), site, name, &[]);
    fs::write(project.join("runtime.toml"), text).expect("settings are written");
    Plant::start(project)
}

/// The same project once more, after its node has ended.
fn again(node: Plant, text: &str) -> Plant {
    let project = node.project.clone();
    drop(node);
    fs::remove_file(project.join("ready.json")).expect("it was ready");
    fs::write(project.join("runtime.toml"), text).expect("settings are written");
    Plant::start(project)
}

fn export(desk: &Desk, site: &str) -> String {
    let ca = desk.text(&format!("ca-{site}"));
    desk.identity(&["export-bundle", "--ca", &ca, "--refresh-hint-s", "5"]);
    desk.text(&format!("ca-{site}/bundle-{site}.json"))
}

/// What the node says of its partners to whoever may see it.
fn partners(desk: &Desk, site: &str, node: &Plant) -> Json {
    let token = fs::read_to_string(node.project.join("state/admin.token")).expect("a token");
    let bearer = format!("authorization: Bearer {}", token.trim());
    let output = node.curl(&desk.anchors(site), "/healthz", &["--header", &bearer], None);
    let health: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    health["subsystems"]["partners"].clone()
}

/// What is kept at a node of a partner's bundle.
fn kept(node: &Plant, site: &str) -> Json {
    let text = fs::read_to_string(node.project.join(format!("state/bundles/{site}.json"))).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Json::Null)
}

/// Alice at her node in north, with one request after the other.
struct Alice<'a> {
    desk: &'a Desk,
    person: (String, String),
    turn: std::cell::Cell<u32>,
}

impl<'a> Alice<'a> {
    fn of(desk: &'a Desk) -> Self {
        Self { desk, person: desk.person("ca-north", "alice"), turn: std::cell::Cell::new(0) }
    }

    fn id(&self) -> String {
        self.turn.set(self.turn.get() + 1);
        format!("turn-{}", self.turn.get())
    }

    fn reads(&self, at: &Plant, target: &str) -> String {
        let body = ask(at, ALICE, target, &self.id(), "status_read", &json!({}));
        outcome(&at.dispatch(self.desk, "north", &self.person, &body))
    }

    fn writes(&self, at: &Plant, target: &str) -> Json {
        at.dispatch(self.desk, "north", &self.person, &ping(at, ALICE, target, &self.id()))
    }

    #[track_caller]
    fn writes_until(&self, at: &Plant, target: &str, wanted: &str, stage: &str, deadline: Duration) {
        wait_until(&format!("a write to {target} is {wanted} at {stage}"), deadline, || {
            let answer = self.writes(at, target);
            let decided = answer.pointer("/results/0/stage").and_then(Json::as_str).unwrap_or("origin");
            if outcome(&answer) == wanted && decided == stage { Ok(()) } else { Err(answer.to_string()) }
        });
    }
}

fn endpoint(south: &Plant, runtime: &str) -> String {
    format!(
        "[[runtime.identity.partner]]\nsite = \"south\"\nbundle_endpoint = \"{}/api/runtime-cloud/bundle\"\n\
         endpoint_spiffe_id = \"spiffe://trust/south/runtime/{runtime}\"\nmax_age_s = {AGE_MAX_S}",
        south.web
    )
}

/// The whole life of a partner's bundle: fetched under the anchors known so far, changed, not confirmed any more, remembered.
#[test]
fn a_partners_change_of_authority_arrives_by_its_endpoint_and_its_silence_stops_writes() {
    let desk = Desk::new(&["north", "south"]);
    let bundle = format!("bundle_path = {:?}", export(&desk, "south"));
    let both = ["north", "south"];
    let south = play(&desk, "south", "s", &settings(&desk, "south", "s", &both, &[], &bundle));
    let by = |runtime: &str| settings(&desk, "north", "a", &both, &[&south.mesh], &endpoint(&south, runtime));
    let north = play(&desk, "north", "a", &by("other"));
    let alice = Alice::of(&desk);

    // Somebody else of the same site answers: its bundle is not taken, and nothing is written on the word of old anchors.
    wait_until("the wrong runtime is refused", SEEN_MAX, || {
        let log = fs::read_to_string(north.project.join("log")).unwrap_or_default();
        if log.contains("wanted runtime south/other") { Ok(()) } else { Err(log) }
    });
    assert_eq!(kept(&north, "south"), Json::Null);
    north.sees("south/s", "lifecycle_state", "online");
    alice.writes_until(&north, "south/s", "stale_data", "origin", SEEN_MAX);
    assert_eq!(alice.reads(&north, "south/s"), "ok");

    let north = again(north, &by("s"));
    north.sees("south/s", "lifecycle_state", "online");
    alice.writes_until(&north, "south/s", "ok", "target", POLLED_MAX);
    let first = kept(&north, "south");
    assert_eq!(partners(&desk, "north", &north)["status"], "ok");

    // South prepares its next key, and tells nobody but its own node.
    let ca = desk.text("ca-south");
    desk.identity(&["rotate", "prepare", "--ca", &ca]);
    export(&desk, "south");
    wait_until("both keys are known in north", POLLED_MAX, || {
        let now = kept(&north, "south");
        let keys = now.pointer("/bundle/keys").and_then(Json::as_array).map_or(0, Vec::len);
        let number = |it: &Json| it.pointer("/bundle/spiffe_sequence").and_then(Json::as_u64);
        let has_risen = number(&now) > number(&first);
        if keys == 2 && has_risen { Ok(()) } else { Err(now.to_string()) }
    });
    desk.identity(&["rotate", "activate", "--ca", &ca]);
    let south_t = play(&desk, "south", "t", &settings(&desk, "south", "t", &both, &[&north.mesh], ""));
    north.sees("south/t", "trust_state", "trusted");
    north.sees("south/t", "lifecycle_state", "online");
    alice.writes_until(&north, "south/t", "ok", "target", SEEN_MAX);

    // The endpoint goes away, and with it the confirmations. The other runtime of the site is there and is not written.
    drop(south);
    let patience = Duration::from_secs(AGE_MAX_S) + SEEN_MAX;
    alice.writes_until(&north, "south/t", "stale_data", "origin", patience);
    assert_eq!(alice.reads(&north, "south/t"), "ok", "reads go on");
    let shown = partners(&desk, "north", &north);
    assert_eq!(shown["status"], "degraded", "{shown}");
    let is_told = |it: &str| it.contains("s ago") && it.contains("no writes");
    assert!(shown["detail"].as_str().is_some_and(is_told), "{shown}");

    // A restart forgets neither the second key nor how old the bundle is.
    let text = fs::read_to_string(north.project.join("runtime.toml")).expect("text");
    let mesh = format!("\"{}\"", south_t.mesh);
    let connect = text.lines().find(|line| line.starts_with("connect")).expect("a line").to_owned();
    let north = again(north, &text.replace(&connect, &format!("connect = [{mesh}]")));
    north.sees("south/t", "lifecycle_state", "online");
    alice.writes_until(&north, "south/t", "stale_data", "origin", SEEN_MAX);
    assert_eq!(alice.reads(&north, "south/t"), "ok");
}

/// A node and its stick.
struct Stick<'a> {
    node: &'a Plant,
}

impl Stick<'_> {
    fn import(&self, file: &str, site: &str, words: Option<&str>) -> (i32, String) {
        let mut command = program();
        command.args(["identity", "import-bundle", file, "--site", site, "--project"]).arg(&self.node.project);
        command.args(words.map(|it| ["--fingerprint", it]).into_iter().flatten());
        let (output, _) = run_to_end(&mut command, COMMAND_MAX);
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[track_caller]
    fn refuses(&self, file: &str, site: &str, words: Option<&str>, code: i32, why: &str) {
        let before = kept(self.node, "north");
        let (got, said) = self.import(file, site, words);
        assert!(got == code && said.contains(why), "wanted {code} and {why:?}, got {got}: {said}");
        assert_eq!(kept(self.node, "north"), before, "nothing changed");
    }

    #[track_caller]
    fn takes(&self, file: &str, words: Option<&str>) {
        let (code, said) = self.import(file, "north", words);
        assert_eq!(code, 0, "{said}");
    }
}

fn words_of(desk: &Desk, site: &str, out: &str) -> String {
    let ca = desk.text(&format!("ca-{site}"));
    let mut command = program();
    command.args(["identity", "export-bundle", "--ca", &ca, "--out", out, "--json"]);
    let (output, _) = run_to_end(&mut command, COMMAND_MAX);
    let said: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    said["words"].as_str().expect("words").to_owned()
}

/// Between plants without a line for it: a signed file, a telephone, and after that signatures alone.
#[test]
fn a_bundle_on_a_stick_is_taken_by_words_once_and_then_by_signature() {
    let desk = Desk::new(&["north", "south", "false"]);
    let known = "[[runtime.identity.partner]]\nsite = \"north\"\n[[runtime.identity.partner]]\nsite = \"east\"";
    let south = play(&desk, "south", "s", &settings(&desk, "south", "s", &["south"], &[], known));
    let north = play(&desk, "north", "a", &settings(&desk, "north", "a", &["north", "south"], &[&south.mesh], ""));
    let (alice, stick) = (Alice::of(&desk), Stick { node: &south });
    north.sees("south/s", "lifecycle_state", "online");
    assert_eq!(south.peer("north/a"), Json::Null, "unknown until its bundle is there");

    let first = desk.text("first.json");
    let words = words_of(&desk, "north", &first);
    stick.refuses(&first, "north", None, 2, &words);
    stick.refuses(&first, "north", Some("topmost istanbul"), 5, "another one");
    stick.refuses(&first, "east", Some(&words), 5, "it is the bundle of north");
    stick.refuses(&first, "west", Some(&words), 3, "no partner");
    stick.refuses(&desk.anchors("north"), "north", Some(&words), 3, "not a trust bundle");
    stick.takes(&first, Some(&words));
    south.sees("north/a", "trust_state", "trusted");
    alice.writes_until(&north, "south/s", "ok", "target", SEEN_MAX);

    // The file's time is over: what it says stays known, and no write rests on it any more. Time is moved in what is kept.
    let path = south.project.join("state/bundles/north.json");
    let mut over = kept(&south, "north");
    let good = over.clone();
    over["file_expires_ms"] = json!(over["confirmed_ms"].as_u64().expect("a moment"));
    fs::write(&path, over.to_string()).expect("written");
    alice.writes_until(&north, "south/s", "stale_data", "target", SEEN_MAX);
    assert_eq!(alice.reads(&north, "south/s"), "ok", "reads go on");
    assert_eq!(partners(&desk, "south", &south)["status"], "degraded");
    stick.takes(&first, None);
    alice.writes_until(&north, "south/s", "ok", "target", SEEN_MAX);
    assert_eq!(kept(&south, "north")["file_expires_ms"], good["file_expires_ms"]);

    // A change of keys needs no telephone: an authority that is known signs for the next one.
    let second = desk.text("second.json");
    desk.identity(&["rotate", "prepare", "--ca", &desk.text("ca-north")]);
    words_of(&desk, "north", &second);
    stick.takes(&second, None);
    stick.refuses(&first, "north", None, 5, "is known already");
    stick.refuses(&first, "north", Some(&words), 5, "is known already");

    // Somebody else's authority for the same name is not known, whatever number it gives.
    let (forged, ca) = (desk.text("forged.json"), desk.text("ca-forged"));
    desk.identity(&["init-site", "--ca", &ca, "--site", "north"]);
    desk.identity(&["rotate", "prepare", "--ca", &ca]);
    desk.identity(&["export-bundle", "--ca", &ca, "--out", &forged]);
    stick.refuses(&forged, "north", None, 5, "no authority that is known");

    // One whose number is spoiled by hand is signed by nobody.
    let text = fs::read_to_string(&second).expect("text");
    let spoiled = desk.text("spoiled.json");
    fs::write(&spoiled, text.replacen("\"sig\": \"M", "\"sig\": \"N", 2)).expect("written");
    stick.refuses(&spoiled, "north", None, 5, "no authority that is known");

    // What is kept, damaged: refused by name, and what was in force stays.
    fs::write(&path, "{").expect("written");
    let reloaded = south.command(&["ctl", "reload"]);
    assert!(reloaded.to_string().contains("north.json"), "{reloaded}");
    assert_eq!(outcome(&alice.writes(&north, "south/s")), "ok");
}

/// Anybody may read it, in the form of the specification, and only where it is configured.
#[test]
fn a_node_serves_its_sites_bundle_to_anybody() {
    let desk = Desk::new(&["south"]);
    let none = play(&desk, "south", "n", &settings(&desk, "south", "n", &["south"], &[], ""));
    let path = "/api/runtime-cloud/bundle";
    let answer = |node: &Plant| {
        let output = node.curl(&desk.anchors("south"), path, &[], None);
        serde_json::from_slice::<Json>(&output.stdout).expect("JSON")
    };
    assert_eq!(answer(&none)["code"], "not_configured");
    let bundle = format!("bundle_path = {:?}", export(&desk, "south"));
    let text = settings(&desk, "south", "n", &["south"], &[], &bundle);
    let node = again(none, &text);
    let served = answer(&node);
    assert_eq!((served["keys"].as_array().map(Vec::len), served["spiffe_refresh_hint"].as_u64()), (Some(1), Some(5)));
    assert_eq!(served["keys"][0]["use"], "x509-svid");
    // As SPIRE prints it, without a signature: the file is the operator's own.
    let plain = desk.path("plain.json");
    fs::write(&plain, served.to_string()).expect("written");
    let bundle = format!("bundle_path = {:?}", plain.display().to_string());
    let node = again(node, &settings(&desk, "south", "n", &["south"], &[], &bundle));
    assert_eq!(answer(&node), served);
    // A bundle that does not name the authority of the own certificate would cut the own site off at every partner.
    let mut empty = served.clone();
    empty["keys"] = json!([]);
    empty["spiffe_sequence"] = json!(served["spiffe_sequence"].as_u64().expect("a number") + 1);
    fs::write(&plain, empty.to_string()).expect("written");
    let reloaded = node.command(&["ctl", "reload"]);
    assert!(reloaded.to_string().contains("lacks the authority"), "{reloaded}");
    assert_eq!(answer(&node), served);
}

/// Gives a node the next certificate for its key.
fn renewed(desk: &Desk, node: &Plant, site: &str) {
    let (ca, tls) = (desk.text(&format!("ca-{site}")), node.project.join("tls").display().to_string());
    let id = format!("{site}/{}", node.name());
    let enrol = ["enrol", "--node", &id, "--ip", "127.0.0.1", "--dns", "localhost", "--out", &tls, "--json"];
    let (output, _) = run_to_end(program().arg("identity").args(enrol), COMMAND_MAX);
    let asked: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    let [request, words] = ["request", "words"].map(|key| asked[key].as_str().expect("text"));
    desk.identity(&["approve", "--ca", &ca, "--request", request, "--fingerprint", words]);
}

/// South knows north by its bundle, and east too. What is kept of east is damaged, then what is kept of north.
#[test]
fn a_damaged_file_of_a_partner_is_named_and_costs_that_partner_alone() {
    let desk = Desk::new(&["north", "south", "east"]);
    let known = "[[runtime.identity.partner]]\nsite = \"north\"\n[[runtime.identity.partner]]\nsite = \"east\"";
    let text = settings(&desk, "south", "s", &["south", "north"], &[], known);
    let south = play(&desk, "south", "s", &text);
    let north = play(&desk, "north", "a", &settings(&desk, "north", "a", &["north", "south"], &[&south.mesh], ""));
    let alice = Alice::of(&desk);
    for site in ["north", "east"] {
        let file = desk.text(&format!("{site}.json"));
        let words = words_of(&desk, site, &file);
        let import = ["identity", "import-bundle", &file, "--site", site, "--fingerprint", &words, "--project"];
        let (done, _) = run_to_end(program().args(import).arg(&south.project), COMMAND_MAX);
        assert!(done.status.success(), "{done:?}");
    }
    alice.writes_until(&north, "south/s", "ok", "target", SEEN_MAX);
    assert_eq!(partners(&desk, "south", &south)["status"], "ok");

    let path = |site: &str| south.project.join(format!("state/bundles/{site}.json"));
    let whole = fs::read(path("north")).expect("kept");
    fs::write(path("east"), "{").expect("written");
    wait_until("health names the file", SEEN_MAX, || {
        let shown = partners(&desk, "south", &south);
        let is_named = shown["detail"].as_str().is_some_and(|it| it.contains("bundles/east.json"));
        if shown["status"] == "degraded" && is_named { Ok(()) } else { Err(shown.to_string()) }
    });
    let log = fs::read_to_string(south.project.join("log")).expect("a log");
    assert!(log.contains("bundles/east.json"), "{log}");
    // The own certificate is renewed meanwhile, and the other partner's next bundle is taken.
    renewed(&desk, &south, "south");
    let reloaded = south.command(&["ctl", "reload"]);
    let log = fs::read_to_string(south.project.join("log")).expect("a log");
    assert!(reloaded.to_string().contains("\"certificates\"") || log.contains("\"certificates\""), "{reloaded} {log}");
    assert!(!reloaded["rejected"].to_string().contains("another"), "{reloaded}");
    let mut over: Json = serde_json::from_slice(&whole).expect("JSON");
    over["file_expires_ms"] = json!(over["confirmed_ms"].as_u64().expect("a moment"));
    fs::write(path("north"), over.to_string()).expect("written");
    alice.writes_until(&north, "south/s", "stale_data", "target", SEEN_MAX);
    fs::write(path("north"), &whole).expect("written");
    alice.writes_until(&north, "south/s", "ok", "target", SEEN_MAX);

    // What is in force stays while the node runs. After a start nobody speaks for the site: the anchors that the settings
    // name may be those that its bundle had taken back.
    fs::write(path("north"), "{").expect("written");
    let reloaded = south.command(&["ctl", "reload"]);
    assert!(reloaded["rejected"].to_string().contains("bundles/north.json"), "{reloaded}");
    assert_eq!(outcome(&alice.writes(&north, "south/s")), "ok");
    let path = path("north");
    let south = again(south, &text.replace("listen = \"127.0.0.1:0\"\nconnect = []", &dial(&north)));
    assert!(partners(&desk, "south", &south)["detail"].to_string().contains("bundles/north.json"));
    let token = fs::read_to_string(south.project.join("state/admin.token")).expect("a token");
    let bearer = format!("authorization: Bearer {}", token.trim());
    wait_until("its words are refused", SEEN_MAX, || {
        let output = south.curl(&desk.anchors("south"), "/healthz?verbose", &["--header", &bearer], None);
        let health = String::from_utf8_lossy(&output.stdout).into_owned();
        if health.contains("bad_certificate") { Ok(()) } else { Err(health) }
    });
    assert_ne!(south.peer("north/a")["lifecycle_state"], "online");
    // Removed and imported anew, it is there again.
    fs::remove_file(path).expect("removed");
    let file = desk.text("north.json");
    let words = words_of(&desk, "north", &file);
    let import = ["identity", "import-bundle", &file, "--site", "north", "--fingerprint", &words, "--project"];
    let (done, _) = run_to_end(program().args(import).arg(&south.project), COMMAND_MAX);
    assert!(done.status.success(), "{done:?}");
    south.sees("north/a", "lifecycle_state", "online");
}

fn dial(other: &Plant) -> String {
    format!("listen = \"127.0.0.1:0\"\nconnect = [{:?}]", other.mesh)
}

/// East is known by its bundle alone. Its entry goes, and with it all that it could say here.
#[test]
fn a_partner_whose_entry_is_taken_away_is_nobody_at_once() {
    let desk = Desk::new(&["north", "south"]);
    let known = "[[runtime.identity.partner]]\nsite = \"north\"";
    let text = settings(&desk, "south", "s", &["south"], &[], known);
    let south = play(&desk, "south", "s", &text);
    let north = play(&desk, "north", "a", &settings(&desk, "north", "a", &["north", "south"], &[&south.mesh], ""));
    let (alice, stick) = (Alice::of(&desk), Stick { node: &south });
    let file = desk.text("north.json");
    let words = words_of(&desk, "north", &file);
    stick.takes(&file, Some(&words));
    alice.writes_until(&north, "south/s", "ok", "target", SEEN_MAX);
    fs::write(south.project.join("runtime.toml"), text.replace(known, "")).expect("written");
    wait_until("no write is carried out", SEEN_MAX, || {
        let answer = alice.writes(&north, "south/s");
        if outcome(&answer) == "ok" { Err(answer.to_string()) } else { Ok(()) }
    });
    assert_eq!(partners(&desk, "south", &south)["status"], "not_configured");
    assert!(kept(&south, "north").is_object(), "what was taken is kept, so that its number never goes back");
    let again = south.command(&["ctl", "reload"]);
    assert_eq!(again["needs_restart"], json!([]), "{again}");
    fs::write(south.project.join("runtime.toml"), &text).expect("written");
    let added = south.command(&["ctl", "reload"]);
    assert_eq!(added["needs_restart"], json!(["runtime.identity"]), "{added}");
}

/// North is known by anchors in the settings and by its bundle. With its entry it goes, and the older anchors do not take its
/// place until a person says so.
#[test]
fn the_anchors_of_a_partner_whose_entry_is_taken_away_count_for_nobody() {
    let desk = Desk::new(&["north", "south"]);
    let known = "[[runtime.identity.partner]]\nsite = \"north\"";
    let text = settings(&desk, "south", "s", &["south", "north"], &[], known);
    let south = play(&desk, "south", "s", &text);
    let north = play(&desk, "north", "a", &settings(&desk, "north", "a", &["north", "south"], &[&south.mesh], ""));
    let (alice, stick) = (Alice::of(&desk), Stick { node: &south });
    let file = desk.text("north.json");
    words_of(&desk, "north", &file);
    stick.takes(&file, None);
    alice.writes_until(&north, "south/s", "ok", "target", SEEN_MAX);
    let without = text.replace(known, "");
    fs::write(south.project.join("runtime.toml"), &without).expect("written");
    let nobody_writes = |north: &Plant| {
        wait_until("no write is carried out", SEEN_MAX, || {
            let answer = alice.writes(north, "south/s");
            if outcome(&answer) == "ok" { Err(answer.to_string()) } else { Ok(()) }
        });
    };
    nobody_writes(&north);
    let told = partners(&desk, "south", &south)["detail"].to_string();
    let is_named = ["runtime.identity.anchors", "runtime.identity.partner"].iter().all(|it| told.contains(it));
    assert!(is_named && told.contains("north.json"), "{told}");
    let south = again(south, &without);
    let north = again(north, &settings(&desk, "north", "a", &["north", "south"], &[&south.mesh], ""));
    north.sees("south/s", "lifecycle_state", "online");
    nobody_writes(&north);
    assert_eq!(partners(&desk, "south", &south)["status"], "degraded");
    fs::remove_file(south.project.join("state/bundles/north.json")).expect("kept");
    south.command(&["ctl", "reload"]);
    alice.writes_until(&north, "south/s", "ok", "target", SEEN_MAX);
}

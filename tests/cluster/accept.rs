//! Whose answer a node starts with: anybody can make an authority that calls itself by the site's name.

use std::fs;
use std::path::PathBuf;

use serde_json::Value as Json;

use crate::harness::{SEEN_MAX, program, run_to_end};
use crate::plant::{COMMAND_MAX, Desk, Plant, TOKEN, write_settings};
use crate::watch::wait_until;

/// The authority of north, another one that calls itself so too, and a node that has made its key.
struct Joining {
    desk: Desk,
    project: PathBuf,
    request: String,
    /// Of the key, as the node shows them.
    words: String,
}

impl Joining {
    fn new(join_token: bool) -> Self {
        let desk = Desk::new(&["north"]);
        desk.identity(&["init-site", "--ca", &desk.text("ca-false"), "--site", "north"]);
        let (project, tls) = (desk.path("north-a"), desk.text("north-a/tls"));
        let mut enrol = vec!["enrol", "--node", "north/a", "--ip", "127.0.0.1", "--dns", "localhost", "--out", &tls];
        let token = desk.text("token");
        if join_token {
            let made = told(&["join-token", "create", "--ca", &desk.text("ca-north"), "--node", "a"]);
            fs::write(&token, made["token"].as_str().expect("a token")).expect("written");
            fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
            enrol.extend(["--join-token", &token]);
        }
        let made = told(&enrol);
        let text = |key: &str| made[key].as_str().expect("text").to_owned();
        let (request, words) = (text("request"), text("words"));
        let joining = Self { desk, project, request, words };
        joining.set("plant");
        joining
    }

    fn set(&self, profile: &str) {
        let mesh = format!("tls = {}\n", profile != "dev");
        let text = self.desk.settings((profile, "north", "a"), &["north"], &mesh, "");
        write_settings(&self.project, &text.replace(&self.desk.anchors("north"), "tls/anchors-north.pem"));
    }

    /// The stick comes back from this authority. Gives the words of its anchors.
    fn answered_by(&self, ca: &str) -> String {
        let ca = self.desk.text(ca);
        let issued = told(&["approve", "--ca", &ca, "--request", &self.request, "--fingerprint", &self.words]);
        issued["anchors_words"].as_str().expect("words").to_owned()
    }

    fn accept(&self, words: &str) {
        let tls = self.project.join("tls").display().to_string();
        self.desk.identity(&["accept", "--out", &tls, "--site", "north", "--anchors", words]);
    }

    /// A start that has to be refused, with these words.
    #[track_caller]
    fn is_refused(&self, all: &[&str]) {
        let (output, _) = run_to_end(program().args(["play", "--project"]).arg(&self.project), COMMAND_MAX);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        for words in all {
            assert!(said.contains(words), "wanted {words:?}: {said}");
        }
    }

    fn starts(&self) -> Plant {
        Plant::start(self.project.clone())
    }

    fn noted(&self) -> String {
        fs::read_to_string(self.project.join("tls/node-a.authority")).expect("a file beside the key")
    }

    fn anchors(&self) -> PathBuf {
        self.project.join("tls/anchors-north.pem")
    }

    /// Brings the present anchors of an authority and no certificate.
    fn brought(&self, ca: &str) {
        fs::copy(self.desk.path(&format!("{ca}/anchors-north.pem")), self.anchors()).expect("copied");
    }

    /// Somebody has the authority's key as it is now, and says with it that his own follows.
    fn is_stolen(&self) {
        let (ca, thief) = (self.desk.path("ca-north"), self.desk.path("ca-thief"));
        fs::create_dir(&thief).expect("a folder");
        for entry in fs::read_dir(ca).expect("an authority") {
            let entry = entry.expect("a file");
            fs::copy(entry.path(), thief.join(entry.file_name())).expect("copied");
        }
        self.desk.identity(&["rotate", "prepare", "--ca", &self.desk.text("ca-thief")]);
    }

    /// These anchors, with the thief's beside them and what he says of it first.
    fn forked(&self, anchors: &str) -> String {
        let [newer, told] = ["ca-2.pem", "ca-2.succession"]
            .map(|file| fs::read_to_string(self.desk.path("ca-thief").join(file)).expect("a file"));
        newer + &told + anchors
    }

    /// Bans the first key of the authority, as its list shows it. The node reads the authority's own list of bans.
    fn ban_the_first_key(&self) {
        let ca = self.desk.text("ca-north");
        let listed = told(&["list", "--ca", &ca]);
        let keys = listed["keys"].as_array().expect("keys");
        let first = keys.iter().find(|it| it["key"] == 1).expect("it is not retired yet");
        let first = first["certificate"].as_str().expect("a fingerprint");
        self.desk.identity(&["ban", "--ca", &ca, "--certificate", first, "--reason", "seen"]);
    }

    /// What the node says of its identity, to whoever knows these anchors.
    fn says_of_its_identity(&self, node: &Plant, anchors: &str, all: &[&str]) {
        let bearer = format!("authorization: Bearer {TOKEN}");
        wait_until("the node says so of its identity", SEEN_MAX, || {
            let output = node.curl(anchors, "/healthz", &["--header", &bearer], None);
            let health: Json = serde_json::from_slice(&output.stdout)
                .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
            let said = health["subsystems"]["identity"].to_string();
            if all.iter().all(|it| said.contains(it)) { Ok(()) } else { Err(said) }
        });
    }

    fn followed(&self) -> usize {
        self.noted().matches("\nfollowed ").count()
    }

    fn rotate(&self, step: &[&str]) {
        self.desk.identity(&[&["rotate"], step, &["--ca", &self.desk.text("ca-north")]].concat());
    }
}

fn told(arguments: &[&str]) -> Json {
    let (output, _) = run_to_end(program().arg("identity").args(arguments).arg("--json"), COMMAND_MAX);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"))
}

/// Whether the node lets somebody in who has a certificate of this authority.
fn lets_in(joining: &Joining, node: &Plant, person: &(String, String)) -> bool {
    let anchors = joining.desk.anchors("north");
    node.curl(&anchors, "/healthz", &["--fail", "--cert", &person.0, "--key", &person.1], None).status.success()
}

#[test]
fn a_node_starts_with_the_authority_that_was_accepted_and_with_no_other_of_its_name() {
    let joining = Joining::new(false);
    let false_words = joining.answered_by("ca-false");
    let remedy = "trust-runtime identity accept --out";
    joining.is_refused(&["node-a.authority", "nobody has accepted", &false_words, remedy, "--site north"]);
    // Where nothing is protected yet it is told and not refused.
    joining.set("dev");
    drop(joining.starts());
    let log = fs::read_to_string(joining.project.join("log")).expect("a log");
    assert!(log.contains("would keep the node from starting") && log.contains(&false_words), "{log}");
    joining.set("plant");
    joining.is_refused(&["nobody has accepted"]);

    let words = joining.answered_by("ca-north");
    joining.is_refused(&["nobody has accepted", &words]);
    joining.accept(&words);
    let node = joining.starts();
    let [alice, evil] = ["ca-north", "ca-false"].map(|ca| joining.desk.person(ca, "alice"));
    assert!(lets_in(&joining, &node, &alice) && !lets_in(&joining, &node, &evil));

    // While it runs the false one comes alone, and then beside the right one: what is in force stays.
    let served = fs::read_to_string(joining.anchors()).expect("anchors");
    joining.answered_by("ca-false");
    let alone = node.command(&["ctl", "reload"]);
    assert!(alone["rejected"].to_string().contains("another authority than the one that was accepted"), "{alone}");
    joining.answered_by("ca-north");
    let false_one = fs::read_to_string(joining.desk.path("ca-false/anchors-north.pem")).expect("anchors");
    fs::write(joining.anchors(), served.clone() + &false_one).expect("written");
    let beside = node.command(&["ctl", "reload"]);
    assert!(beside["rejected"].to_string().contains("another authority"), "{beside}");
    assert!(lets_in(&joining, &node, &alice) && !lets_in(&joining, &node, &evil));
    drop(node);
    joining.is_refused(&["another authority than the one that was accepted"]);
    // A person's word is what counts, whoever it is: a node that runs takes it up by itself.
    joining.answered_by("ca-north");
    let node = joining.starts();
    joining.answered_by("ca-false");
    let log = || fs::read_to_string(joining.project.join("log")).unwrap_or_default();
    wait_until("the node has looked by itself", SEEN_MAX, || {
        let said = log();
        let is_told = said.lines().any(|line| line.contains("is not valid") && line.contains("another authority"));
        if is_told { Ok(()) } else { Err(said) }
    });
    joining.accept(&false_words);
    wait_until("the other authority counts", SEEN_MAX, || {
        let anchors = joining.desk.text("ca-false/anchors-north.pem");
        let asked = ["--fail", "--cert", &evil.0, "--key", &evil.1];
        let output = node.curl(&anchors, "/healthz", &asked, None);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
}

#[test]
fn a_node_with_a_join_token_takes_the_answer_of_its_authority_without_a_word_and_follows_its_keys() {
    let joining = Joining::new(true);
    let false_words = joining.answered_by("ca-false");
    joining.is_refused(&["not of the authority that made the join token", &false_words]);
    joining.desk.identity(&["redeem", "--ca", &joining.desk.text("ca-north"), "--request", &joining.request]);
    let pinned = joining.noted();
    assert!(pinned.contains("\npinned ") && !pinned.contains("\naccepted "), "{pinned}");
    let node = joining.starts();
    let first = joining.noted();
    assert!(first.contains("\naccepted ") && !first.contains("\npinned "), "{first}");

    // The authority goes on with another key while the node runs, which takes up each step and starts after each.
    joining.rotate(&["prepare"]);
    joining.brought("ca-north");
    let prepared = node.command(&["ctl", "reload"]);
    assert_eq!(prepared["rejected"].as_array().map(Vec::len), Some(0), "{prepared}");
    drop(node);
    drop(joining.starts());
    joining.rotate(&["activate"]);
    joining.answered_by("ca-north");
    let node = joining.starts();
    joining.rotate(&["retire", "--force"]);
    joining.brought("ca-north");
    let retired = node.command(&["ctl", "reload"]);
    assert_eq!(retired["rejected"].as_array().map(Vec::len), Some(0), "{retired}");
    drop(node);
    drop(joining.starts());
    let last = joining.noted();
    assert!(last != first && last.matches("\naccepted ").count() == 1, "the old key is accepted no more: {last}");

    // One that was away for all of it follows too, and one that has only the token's pin is told.
    fs::write(joining.project.join("tls/node-a.authority"), first).expect("written");
    drop(joining.starts());
    fs::write(joining.project.join("tls/node-a.authority"), pinned).expect("written");
    joining.is_refused(&["not of the authority that made the join token"]);
}

/// Whoever has stolen the older key comes too late once a node knows which key has followed it, by whatever way it has heard.
#[test]
fn a_node_that_is_told_once_more_what_it_has_follows_the_older_key_to_no_third() {
    let joining = Joining::new(false);
    joining.is_stolen();
    joining.rotate(&["prepare"]);
    let words = joining.answered_by("ca-north");
    let served = fs::read_to_string(joining.anchors()).expect("anchors");
    joining.accept(&words);
    assert_eq!(joining.followed(), 1, "{}", joining.noted());
    // The stick is exchanged between the words and the first start.
    let fork = joining.forked(&served);
    fs::write(joining.anchors(), &fork).expect("written");
    joining.is_refused(&["another authority than the one that was accepted"]);
    fs::write(joining.anchors(), &served).expect("written");
    let node = joining.starts();
    let refuses_the_fork = || {
        fs::write(joining.anchors(), &fork).expect("written");
        let forked = node.command(&["ctl", "reload"]);
        assert!(forked["rejected"].to_string().contains("another authority"), "{forked}");
        fs::write(joining.anchors(), &served).expect("written");
        let back = node.command(&["ctl", "reload"]);
        assert_eq!(back["rejected"].as_array().map(Vec::len), Some(0), "{back}");
        assert_eq!(joining.noted().matches("\naccepted ").count(), 2, "{}", joining.noted());
    };
    refuses_the_fork();
    joining.accept(&words);
    assert_eq!(joining.followed(), 1, "{}", joining.noted());
    refuses_the_fork();
    // An earlier version has accepted the same: it noted the anchors alone. The node that has them in use says the rest itself.
    let untold: String =
        joining.noted().lines().filter(|it| !it.starts_with("followed ")).map(|it| format!("{it}\n")).collect();
    fs::write(joining.project.join("tls/node-a.authority"), untold).expect("written");
    wait_until("the successor is noted again", SEEN_MAX, || {
        if joining.followed() == 1 { Ok(()) } else { Err(joining.noted()) }
    });
    refuses_the_fork();
}

/// As section 5 of the guide says for a key that somebody may have seen: the ban is the last step, and nobody is cut off.
#[test]
fn an_authority_whose_key_may_have_been_seen_bans_it_last_and_its_nodes_follow_without_a_word() {
    let joining = Joining::new(false);
    joining.is_stolen();
    joining.accept(&joining.answered_by("ca-north"));
    let node = joining.starts();
    let takes_up = |step: &str| {
        let told = node.command(&["ctl", "reload"]);
        assert_eq!(told["rejected"].as_array().map(Vec::len), Some(0), "{step}: {told}");
        joining.says_of_its_identity(&node, &joining.anchors().display().to_string(), &["\"ok\""]);
    };
    joining.rotate(&["prepare"]);
    joining.brought("ca-north");
    takes_up("both keys");
    joining.rotate(&["activate"]);
    joining.answered_by("ca-north");
    takes_up("a certificate by the new key");
    joining.ban_the_first_key();
    joining.rotate(&["retire", "--force"]);
    joining.brought("ca-north");
    takes_up("the ban, and the new key alone");
    // Whoever has the old key comes too late.
    let served = fs::read_to_string(joining.anchors()).expect("anchors");
    fs::write(joining.anchors(), joining.forked(&served)).expect("written");
    let forked = node.command(&["ctl", "reload"]);
    assert!(forked["rejected"].to_string().contains("another authority"), "{forked}");
    fs::write(joining.anchors(), served).expect("written");
    drop(node);
    drop(joining.starts());
}

/// As section 5 of the guide says for a key that was stolen: the ban comes first, ends what the key has signed, its true
/// successor among it, and each node is told the successor by words.
#[test]
fn an_authority_whose_key_was_stolen_bans_it_first_and_its_nodes_are_told_the_new_one_by_words() {
    let joining = Joining::new(false);
    joining.is_stolen();
    joining.accept(&joining.answered_by("ca-north"));
    let first = fs::read_to_string(joining.anchors()).expect("anchors");
    let old = joining.desk.text("old.pem");
    fs::write(&old, &first).expect("written");
    let node = joining.starts();
    joining.says_of_its_identity(&node, &old, &["\"ok\""]);
    joining.ban_the_first_key();
    let refusal = ["\"faulted\"", "does not hold by the anchors and bans in force", "is banned"];
    joining.says_of_its_identity(&node, &old, &refusal);
    // The thief's stick comes first, with a certificate by his own key, and leads the node nowhere.
    joining.desk.identity(&["rotate", "activate", "--ca", &joining.desk.text("ca-thief")]);
    joining.answered_by("ca-thief");
    let forked = node.command(&["ctl", "reload"]);
    assert!(forked["rejected"].to_string().contains("another authority"), "{forked}");
    joining.rotate(&["prepare"]);
    joining.rotate(&["activate"]);
    joining.rotate(&["retire", "--force"]);
    let words = joining.answered_by("ca-north");
    let unaccepted = node.command(&["ctl", "reload"]);
    assert!(unaccepted["rejected"].to_string().contains(&words), "{unaccepted}");
    joining.says_of_its_identity(&node, &old, &refusal);
    joining.accept(&words);
    joining.says_of_its_identity(&node, &joining.desk.anchors("north"), &["\"ok\""]);
    drop(node);
    drop(joining.starts());
}

/// A plant whose disk was full for a while is not asked for words at its next change of key.
#[test]
fn a_note_that_could_not_be_written_is_told_of_once_and_written_when_it_can_be() {
    const FAULT: &str = "the anchors in use were not noted as accepted";
    let joining = Joining::new(false);
    let words = joining.answered_by("ca-north");
    joining.accept(&words);
    joining.rotate(&["prepare"]);
    joining.brought("ca-north");
    let folder = joining.project.join("tls");
    let mut node = Plant::start_unable_to_write(joining.project.clone(), &folder);
    let log = || fs::read_to_string(joining.project.join("log")).expect("a log");
    wait_until("the fault is told of", SEEN_MAX, || if log().contains(FAULT) { Ok(()) } else { Err(log()) });
    // Reading everything anew tries it anew.
    node.command(&["ctl", "reload"]);
    assert_eq!((joining.followed(), log().matches(FAULT).count()), (0, 1), "{}", log());
    node.may_write(&folder);
    // No file has changed since; it is tried each minute, and at the end.
    node.stops();
    assert_eq!(joining.followed(), 1, "{}", log());
    assert!(!log().contains("no file beside the key"), "{}", log());
}

#[test]
fn a_node_whose_key_has_no_file_beside_it_says_once_that_its_anchors_are_held_against_nothing() {
    let desk = Desk::new(&["north"]);
    let mut node = desk.play("plant", "north", "a", &["north"], &[]);
    node.command(&["ctl", "reload"]);
    node.stops();
    let log = fs::read_to_string(node.project.join("log")).expect("a log");
    assert_eq!(log.matches("no file beside the key says whose certificates it takes").count(), 1, "{log}");
}

/// A crash in the middle of a write leaves its draft, which the next start takes away.
#[test]
fn what_a_crash_has_left_beside_a_certificate_is_gone_after_the_next_start() {
    let joining = Joining::new(false);
    let words = joining.answered_by("ca-north");
    joining.accept(&words);
    let tls = joining.project.join("tls");
    let left = ["node-a.pem", "node-a.authority"].map(|it| tls.join(format!("{it}.0123456789abcdef.new")));
    let other = tls.join("mine.0123456789abcdef.new");
    for path in left.iter().chain([&other]) {
        fs::write(path, "half").expect("written");
    }
    let _node = joining.starts();
    assert_eq!((left.iter().any(|it| it.exists()), other.exists()), (false, true));
    // At the authority the next command does.
    let left = ["authority.json", "ca-1.pem", "ca-2.key", "join-tokens.json"]
        .map(|it| joining.desk.path(&format!("ca-north/{it}.0123456789abcdef.new")));
    for path in &left {
        fs::write(path, "half").expect("written");
    }
    told(&["list", "--ca", &joining.desk.text("ca-north")]);
    assert!(!left.iter().any(|it| it.exists()));
}

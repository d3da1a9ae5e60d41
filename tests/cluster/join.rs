//! Join tokens, by the command line alone: one token lets one key in, however many ask at once.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use crate::harness::{program, run_to_end};
use crate::plant::Desk;

const COMMAND_MAX: Duration = Duration::from_secs(20);

/// How many redeem one token at once.
const AT_ONCE: usize = 64;
/// How often a revocation meets those who redeem.
const ROUNDS: usize = 6;
/// How often a folder may be locked by somebody else.
const TRIES_MAX: usize = 1_000;

fn identity(arguments: &[&str]) -> Output {
    run_to_end(program().arg("identity").args(arguments), COMMAND_MAX).0
}

/// Makes a token and puts it into a file of its owner's. Gives the file.
fn token(desk: &Desk, site: &str, rest: &[&str]) -> String {
    let made =
        identity(&[&["join-token", "create", "--ca", &desk.text(&format!("ca-{site}")), "--json"], rest].concat());
    let made: Json = serde_json::from_slice(&made.stdout).unwrap_or_else(|error| panic!("{error}: {made:?}"));
    let text = made["token"].as_str().expect("shown once");
    let file = desk.path(&format!("token-{}", made["id"].as_str().expect("an id")));
    fs::write(&file, text).expect("written");
    let owners = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&file, owners).expect("its mode");
    let kept = fs::read_to_string(desk.path(&format!("ca-{site}/join-tokens.json"))).expect("kept");
    let secret = text.split('_').nth(2).expect("a secret");
    assert!(!kept.contains(secret), "only a hash is kept");
    file.display().to_string()
}

/// A node's request that is bound to a token. Gives the request's file.
fn enrol(desk: &Desk, node: &str, token: &str, folder: &str) -> String {
    let out = desk.text(folder);
    let made = identity(&["enrol", "--node", node, "--out", &out, "--join-token", token]);
    assert!(made.status.success(), "{made:?}");
    let name = node.rsplit('/').next().expect("a name");
    format!("{out}/node-{name}.csr")
}

fn redeem(desk: &Desk, request: &str) -> (Option<i32>, String) {
    let done = identity(&["redeem", "--ca", &desk.text("ca-north"), "--request", request]);
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

fn issued(desk: &Desk) -> usize {
    fs::read_to_string(desk.path("ca-north/issued.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn sixty_four_redeem_one_token_at_once_and_one_of_them_has_a_certificate() {
    let desk = Desk::new(&["north"]);
    let token = token(&desk, "north", &["--node", "*"]);
    let requests: Vec<_> =
        (0..AT_ONCE).map(|it| enrol(&desk, &format!("north/n{it}"), &token, &format!("node-{it}"))).collect();
    let ca = desk.text("ca-north");
    let redeem_one = |request: &String| {
        let mut command = program();
        command.args(["identity", "redeem", "--ca", &ca, "--request", request]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    };
    let children: Vec<_> = requests.iter().map(redeem_one).collect();
    let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().expect("ours").code()).collect();
    let of = |code| codes.iter().filter(|it| **it == Some(code)).count();
    // Whoever finds another command at work may come again, and is refused then.
    assert_eq!((of(0), of(5) + of(6)), (1, AT_ONCE - 1), "{codes:?}");
    assert_eq!(issued(&desk), 1);
    for request in &requests {
        let (code, reason) = redeem(&desk, request);
        assert!(code == Some(5) && reason.contains("used already"), "{code:?} {reason}");
    }
    assert_eq!(issued(&desk), 1);
}

#[test]
fn a_token_is_for_one_name_kind_site_and_request_and_its_answer_is_known() {
    let desk = Desk::new(&["north", "south"]);
    let good = token(&desk, "north", &["--node", "a"]);
    let request = enrol(&desk, "north/a", &good, "a");
    // Another name, another site's token, and a request that was exchanged under the proof.
    for (request, wanted) in [
        (enrol(&desk, "north/b", &good, "b"), "another kind or name"),
        (enrol(&desk, "north/a", &token(&desk, "south", &["--node", "a"]), "of-south"), "not of an open token"),
        (enrol(&desk, "north/a", &token(&desk, "north", &["--actor", "a"]), "of-actor"), "another kind or name"),
        (exchanged(&desk, &good, &request), "not of an open token"),
    ] {
        let (code, reason) = redeem(&desk, &request);
        assert!(code == Some(5) && reason.contains(wanted), "{request}: {code:?} {reason}");
    }
    assert_eq!(issued(&desk), 0);
    assert_eq!(redeem(&desk, &request).0, Some(0));
    let accept = |folder: &str| {
        identity(&["accept", "--out", &desk.text(folder), "--site", "north", "--join-token", &good]).status.code()
    };
    assert_eq!(accept("a"), Some(0));
    // Somebody put further anchors into the answer.
    let anchors = desk.path("a/anchors-north.pem");
    let both = fs::read_to_string(&anchors).expect("anchors") + &foreign(&desk);
    fs::write(&anchors, both).expect("written");
    assert_eq!(accept("a"), Some(5));
}

/// Without a token the words of the anchors stand for it, as the authority has shown them beside the certificate.
#[test]
fn anchors_are_accepted_by_the_words_that_the_authority_showed_and_by_nothing_else() {
    let desk = Desk::new(&["north", "south"]);
    let out = desk.text("a");
    let enrolled = identity(&["enrol", "--node", "north/a", "--out", &out, "--json"]);
    let enrolled: Json = serde_json::from_slice(&enrolled.stdout).expect("JSON");
    let (ca, request) = (desk.text("ca-north"), format!("{out}/node-a.csr"));
    let key = enrolled["words"].as_str().expect("words");
    let issued = identity(&["approve", "--ca", &ca, "--request", &request, "--fingerprint", key, "--json"]);
    let issued: Json = serde_json::from_slice(&issued.stdout).expect("JSON");
    let words = issued["anchors_words"].as_str().expect("words").to_owned();
    let accept = |rest: &[&str]| identity(&[&["accept", "--out", &out, "--site", "north"], rest].concat());
    let by_words = || accept(&["--anchors", &words]).status.code();
    assert_eq!(by_words(), Some(0));
    assert_eq!(accept(&["--anchors", &words.to_uppercase()]).status.code(), Some(0));
    let shown = accept(&[]);
    let told = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.code() == Some(2) && told.contains(&words) && told.contains("--anchors"), "{shown:?}");
    assert_eq!(accept(&["--anchors", key]).status.code(), Some(5), "the words of something else");
    let (first, rest) = words.split_once(' ').expect("many words");
    assert_eq!(accept(&["--anchors", rest]).status.code(), Some(5), "without {first}");
    assert_eq!(accept(&["--anchors", &words, "--join-token", "-"]).status.code(), Some(2), "one of both");

    // The stick comes back with a certificate and the anchors of somebody else, or with his beside the right ones.
    let anchors = desk.path("a/anchors-north.pem");
    let right = fs::read_to_string(&anchors).expect("anchors");
    for exchanged in [foreign(&desk), right.clone() + &foreign(&desk), String::new()] {
        fs::write(&anchors, exchanged).expect("written");
        assert_eq!(by_words(), Some(5));
    }
    fs::write(&anchors, right).expect("written");
    assert_eq!(by_words(), Some(0));
}

/// A plant that runs is not asked for more than when it was set up, and what was accepted is not forgotten by another request.
#[test]
fn a_key_is_asked_about_only_if_enrol_made_it_and_keeps_what_was_accepted() {
    let desk = Desk::new(&["north"]);
    let (ca, out) = (desk.text("ca-north"), desk.text("a"));
    desk.identity(&["issue", "--ca", &ca, "--node", "north/a", "--out", &out]);
    let enrol = |node: &str| {
        let made = identity(&["enrol", "--node", node, "--out", &out, "--json"]);
        let made: Json = serde_json::from_slice(&made.stdout).unwrap_or_else(|error| panic!("{error}: {made:?}"));
        made["expects"].as_str().map(str::to_owned)
    };
    assert_eq!(enrol("north/a"), None, "its key was there");
    let noted = enrol("north/b").expect("a new key");
    assert_eq!(noted, format!("{out}/node-b.authority"));
    let read = || fs::read_to_string(&noted).expect("a file");
    assert!(!read().contains("\naccepted "), "{}", read());
    let accept = ["accept", "--out", &out, "--site", "north", "--anchors"];
    let anchors = fs::read(desk.path("a/anchors-north.pem")).expect("anchors");
    let digits = trust_runtime::domain::identity::Fingerprint::of_der(&anchors).to_string();
    let done = identity(&[&accept[..], &[&digits, "--json"]].concat());
    let done: Json = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    assert_eq!(done["noted"], serde_json::json!([noted]));
    let accepted = read();
    assert!(accepted.contains("\naccepted "), "{accepted}");
    assert_eq!(enrol("north/b"), Some(noted.clone()));
    assert_eq!(read(), accepted, "a request for the next certificate");
    self::enrol(&desk, "north/b", &token(&desk, "north", &["--node", "b"]), "a");
    assert!(read().starts_with(accepted.lines().next().expect("a line")) && read().contains("\npinned "), "{}", read());
    assert!(accepted.lines().all(|line| read().contains(line)), "what was accepted goes on beside the token's pin");
    // A slip of the pen is no other site.
    let (before, slip) = (read(), identity(&["enrol", "--node", "nroth/b", "--out", &out]));
    assert_eq!((slip.status.code(), read()), (Some(6), before), "{slip:?}");
    // What cannot be read is not gone over with an old key, and begun anew with a new one.
    fs::write(&noted, "nonsense\n").expect("written");
    let refused = identity(&["enrol", "--node", "north/b", "--out", &out]);
    assert!(refused.status.code() == Some(3), "{refused:?}");
    fs::remove_file(desk.path("a/node-b.key")).expect("gone");
    assert_eq!(enrol("north/b"), Some(noted));
    assert!(identity(&["enrol", "--actor", "north/alice", "--out", &out]).status.success());
    assert!(!desk.path("a/actor-alice.authority").exists() && !desk.path("a/node-a.authority").exists());
    fs::remove_file(desk.path("a/node-b.key")).expect("gone");
    desk.identity(&["issue", "--ca", &ca, "--node", "north/b", "--out", &out]);
    assert!(!desk.path("a/node-b.authority").exists(), "a key that the authority made itself");
}

/// The id in the name of a token's file.
/// An earlier version has rotated, and told nobody which key follows which; the old key was seen by somebody and taken away.
#[test]
fn an_authority_without_its_older_key_goes_on() {
    let desk = Desk::new(&["north"]);
    let ca = desk.text("ca-north");
    for step in ["prepare", "activate"] {
        desk.identity(&["rotate", step, "--ca", &ca]);
    }
    fs::remove_file(desk.path("ca-north/ca-2.succession")).expect("it was there");
    fs::rename(desk.path("ca-north/ca-1.key"), desk.path("away.key")).expect("it was there");
    desk.identity(&["issue", "--ca", &ca, "--node", "north/a", "--out", &desk.text("a")]);
    desk.identity(&["ban", "--ca", &ca, "--id", "spiffe://trust/north/alice", "--reason", "seen"]);
    // The list names what a ban on that key names.
    let listed = identity(&["list", "--ca", &ca, "--json"]);
    let listed: Json = serde_json::from_slice(&listed.stdout).expect("JSON");
    let old = listed["keys"][0]["certificate"].as_str().expect("a fingerprint");
    desk.identity(&["ban", "--ca", &ca, "--certificate", old, "--reason", "seen"]);
    desk.identity(&["rotate", "retire", "--force", "--ca", &ca]);
    // The next change of key is signed as ever, and is not begun by who could not sign it.
    fs::rename(desk.path("ca-north/ca-2.key"), desk.path("active.key")).expect("it was there");
    let refused = identity(&["rotate", "prepare", "--ca", &ca]);
    assert!(!refused.status.success() && !desk.path("ca-north/ca-3.pem").exists(), "{refused:?}");
    fs::rename(desk.path("active.key"), desk.path("ca-north/ca-2.key")).expect("it was there");
    desk.identity(&["rotate", "prepare", "--ca", &ca]);
    assert!(desk.path("ca-north/ca-3.succession").exists());
}

fn id_of(token: &str) -> &str {
    token.rsplit_once('-').expect("an id").1
}

/// Asks again at once as long as another command is at work, so that it may also be the first.
fn revoke(desk: &Desk, id: &str) -> (Option<i32>, String) {
    for _ in 0..TRIES_MAX {
        let done = identity(&["join-token", "revoke", "--ca", &desk.text("ca-north"), id]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if !said.contains("another command is at work") {
            return (done.status.code(), said);
        }
    }
    panic!("never let in");
}

/// The word that the list has for a token.
fn listed(desk: &Desk, id: &str) -> String {
    let all = identity(&["join-token", "list", "--ca", &desk.text("ca-north"), "--json"]);
    let all: Json = serde_json::from_slice(&all.stdout).unwrap_or_else(|error| panic!("{error}: {all:?}"));
    let row = all.as_array().expect("a list").iter().find(|row| row["id"] == id).expect("listed");
    row["state"].as_str().expect("a word").to_owned()
}

#[test]
fn a_revoked_token_lets_nobody_in_and_the_list_says_so() {
    let desk = Desk::new(&["north"]);
    let [taken, left] = [token(&desk, "north", &["--node", "*"]), token(&desk, "north", &["--node", "*"])];
    let request = enrol(&desk, "north/a", &taken, "a");
    assert_eq!(listed(&desk, id_of(&taken)), "open");
    assert_eq!(revoke(&desk, id_of(&taken)).0, Some(0));
    assert_eq!((listed(&desk, id_of(&taken)), listed(&desk, id_of(&left))), ("revoked".into(), "open".into()));
    let (code, reason) = redeem(&desk, &request);
    assert!(code == Some(5) && reason.contains("was revoked") && issued(&desk) == 0, "{code:?} {reason}");
    assert_eq!(revoke(&desk, id_of(&taken)).0, Some(0), "again is no fault");
    // What was used is not taken back by this; its key is.
    assert_eq!(redeem(&desk, &enrol(&desk, "north/b", &left, "b")).0, Some(0));
    let (code, reason) = revoke(&desk, id_of(&left));
    assert!(code == Some(6) && reason.contains("identity ban --key"), "{code:?} {reason}");
    assert_eq!(listed(&desk, id_of(&left)), "redeemed");
    let (code, reason) = revoke(&desk, "00000000");
    assert!(code == Some(1) && reason.contains("no join token"), "{code:?} {reason}");
}

#[test]
fn a_token_that_is_revoked_while_many_redeem_it_is_used_or_revoked_and_never_both() {
    let desk = Desk::new(&["north"]);
    for round in 0..ROUNDS {
        let (token, before) = (token(&desk, "north", &["--node", "*"]), issued(&desk));
        let requests: Vec<_> =
            (0..=round).map(|it| enrol(&desk, &format!("north/n{it}"), &token, &format!("r{round}-{it}"))).collect();
        let code = std::thread::scope(|scope| {
            // The fewer there are, the likelier it is that the revocation comes first.
            let revoked = scope.spawn(|| revoke(&desk, id_of(&token)).0);
            let at_work: Vec<_> = requests.iter().map(|request| scope.spawn(|| redeem(&desk, request))).collect();
            let code = revoked.join().expect("ended");
            let redeemed = at_work.into_iter().map(|it| it.join().expect("ended").0);
            assert!(redeemed.filter(|it| *it == Some(0)).count() <= 1);
            code
        });
        let state = listed(&desk, id_of(&token));
        match code {
            Some(0) => assert_eq!((issued(&desk) - before, state.as_str()), (0, "revoked")),
            Some(6) => assert_eq!((issued(&desk) - before, state.as_str()), (1, "redeemed")),
            other => panic!("{other:?}"),
        }
        for request in &requests {
            assert_eq!(redeem(&desk, request).0, Some(5), "over in both cases");
        }
    }
}

#[test]
fn a_renewal_that_waits_for_its_input_keeps_nobody_off_the_folder() {
    let desk = Desk::new(&["north"]);
    let ca = desk.text("ca-north");
    let mut command = program();
    command.args(["identity", "renew", "--ca", &ca, "--certificate", "-"]);
    let mut waiting =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    // Each takes longer than a start, so the other one has long come as far as it gets.
    for _ in 0..AT_ONCE {
        let listed = identity(&["list", "--ca", &ca]);
        assert!(listed.status.success(), "{listed:?}");
    }
    assert_eq!(waiting.try_wait().expect("ours"), None, "it waits still");
    waiting.kill().expect("ours");
    waiting.wait().expect("ours");
}

/// Another node's request for the same name, with the proof of the first one.
fn exchanged(desk: &Desk, token: &str, request: &str) -> String {
    let other = enrol(desk, "north/a", token, "exchanged");
    fs::copy(Path::new(request).with_extension("join"), Path::new(&other).with_extension("join")).expect("copied");
    other
}

fn foreign(desk: &Desk) -> String {
    fs::read_to_string(desk.path("ca-south/anchors-south.pem")).expect("anchors")
}

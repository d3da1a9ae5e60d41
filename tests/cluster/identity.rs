//! A site's authority on the command line: what it issues is what a node loads, and nothing else is issued.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value as Json, json};
use trust_runtime::domain::identity::{Mapping, Naming, Subject, SubjectName};
use trust_runtime::node::clock::Clock;
use trust_runtime::tls::{Own, Snapshot, Sources, load};

use crate::harness::{program, run_to_end};

const COMMAND_MAX: Duration = Duration::from_secs(10);

/// A folder with an authority of site-a in `ca`.
struct Desk {
    folder: tempfile::TempDir,
    mapping: Mapping,
}

impl Desk {
    fn new(mapping: Mapping) -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder"), mapping };
        let mut command = vec!["init-site", "--ca", "ca", "--site", "site-a"];
        command.extend(desk.naming());
        desk.done(&command);
        desk
    }

    fn naming(&self) -> [&'static str; 4] {
        let mapping = match self.mapping {
            Mapping::PathSite => "path-site",
            Mapping::DomainSite => "domain-site",
        };
        ["--trust-domain", "trust", "--mapping", mapping]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = program();
        command.arg("identity").args(arguments).current_dir(self.folder.path());
        let (output, _) = run_to_end(&mut command, COMMAND_MAX);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// A step that is done, and its answer as JSON.
    fn done(&self, arguments: &[&str]) -> Json {
        let (code, shown, said) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {said}");
        serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {shown}"))
    }

    /// A step that is refused, with this exit code and these words.
    fn refused(&self, arguments: &[&str], code: i32, words: &str) {
        let (got, _, said) = self.run(arguments);
        assert_eq!(got, code, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: wanted {words:?}: {said}");
    }

    fn issue(&self, node: &str, out: &str) -> Json {
        self.done(&["issue", "--ca", "ca", "--node", node, "--out", out])
    }

    /// Loads what was issued as the node would that has it.
    fn load(&self, out: &str, subject: &str, anchors: &Path) -> Result<Snapshot, String> {
        let (kind, name) = subject.split_once('-').expect("a kind and a name");
        let name = name.parse().expect("a name");
        let name = if kind == "node" { SubjectName::Runtime(name) } else { SubjectName::Actor(name) };
        let own = Subject { site: "site-a".parse().expect("a site"), name };
        let naming = Naming { trust_domain: "trust".parse().expect("legal"), mapping: self.mapping };
        let file = |ending: &str| self.path(out).join(format!("{subject}.{ending}"));
        let anchors = vec![(own.site.clone(), anchors.to_owned())];
        let files = Own::Files { svid: file("pem"), key: file("key") };
        let sources = Sources { own: files, anchors, bans: Some(self.path("ca/bans.txt")) };
        load(&sources, &naming, &own, Clock::start().now().wall).map_err(|error| error.to_string())
    }

    fn anchors(&self) -> PathBuf {
        self.path("ca/anchors-site-a.pem")
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).expect(name).permissions().mode() & 0o777
    }
}

#[test]
fn what_an_authority_issues_is_what_a_node_loads() {
    for mapping in [Mapping::PathSite, Mapping::DomainSite] {
        let desk = Desk::new(mapping);
        let names = ["--dns", "panel.site-a.example", "--ip", "10.0.0.7", "--ip", "fd00::7"];
        let node = [["issue", "--ca", "ca", "--node", "site-a/r1", "--out", "r1"].as_slice(), &names].concat();
        let issued = desk.done(&node);
        let actor = desk.done(&["issue", "--ca", "ca", "--actor", "alice", "--out", "alice"]);
        let snapshot = desk.load("r1", "node-r1", &desk.path("r1/anchors-site-a.pem")).expect("loaded");
        assert_eq!(issued["id"], snapshot.own().svid.id.to_string());
        assert_eq!(issued["certificate"], snapshot.own().svid.certificate.to_string());
        desk.load("alice", "actor-alice", &desk.anchors()).expect("loaded");
        let refused = desk.load("alice", "node-alice", &desk.anchors());
        assert!(refused.is_err(), "an actor is no node");
        assert_eq!((desk.mode("ca"), desk.mode("ca/ca-1.key"), desk.mode("r1/node-r1.key")), (0o700, 0o600, 0o600));
        let hours = |it: &Json| it["not_after"].as_str().expect("a moment").to_owned();
        assert!(hours(&issued) > hours(&actor), "a node's holds longer: {issued} {actor}");
        assert_ne!(issued["serial"], actor["serial"]);
        assert!(issued["serial"].as_str().is_some_and(|serial| serial.len() == 32), "{issued}");
        verify_with_openssl(&desk, "r1/node-r1.pem");
        verify_with_openssl(&desk, "alice/actor-alice.pem");
    }
}

/// A second opinion, where the tool is there: it is no part of the product.
fn verify_with_openssl(desk: &Desk, certificate: &str) {
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]).arg(desk.anchors());
    let (output, _) = run_to_end(command.arg(desk.path(certificate)), COMMAND_MAX);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_request_is_granted_only_with_the_words_of_its_key() {
    let desk = Desk::new(Mapping::PathSite);
    let enrol = ["enrol", "--node", "site-a/r1", "--dns", "r1.example", "--out", "r1"];
    let made = desk.done(&enrol);
    let other = desk.done(&["enrol", "--node", "site-a/r2", "--out", "r2"]);
    let words = made["words"].as_str().expect("words");
    assert_eq!(words.split(' ').count(), 16);
    let approve = ["approve", "--ca", "ca", "--request", "r1/node-r1.csr"];
    desk.refused(&approve, 2, words);
    let wrong = [approve.as_slice(), &["--fingerprint", other["words"].as_str().expect("words")]].concat();
    desk.refused(&wrong, 5, "another one");
    assert!(!desk.path("r1/node-r1.pem").exists(), "nothing was issued");
    assert!(desk.done(&["list", "--ca", "ca"])["issued"].as_array().is_some_and(Vec::is_empty));

    let right = [approve.as_slice(), &["--fingerprint", words, "--days", "7"]].concat();
    let issued = desk.done(&right);
    let snapshot = desk.load("r1", "node-r1", &desk.path("r1/anchors-site-a.pem")).expect("loaded with the node's key");
    assert_eq!(snapshot.own().svid.key.to_string(), made["fingerprint"].as_str().expect("digits"));

    // Renewal: the same key, the same words, another certificate.
    let again = desk.done(&enrol);
    assert_eq!((&again["is_new_key"], &again["words"]), (&json!(false), &made["words"]));
    let digits = made["fingerprint"].as_str().expect("digits");
    let renewed = desk.done(&[approve.as_slice(), &["--fingerprint", digits]].concat());
    assert_ne!(renewed["serial"], issued["serial"]);
    assert_eq!(renewed["key"], issued["key"]);
    desk.load("r1", "node-r1", &desk.anchors()).expect("loaded");
}

#[test]
fn a_request_says_who_it_is_and_not_what_it_may() {
    let desk = Desk::new(Mapping::PathSite);
    let key = KeyPair::generate().expect("a key");
    let write = |uris: &[&str], change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))).collect();
        change(&mut params);
        let request = params.serialize_request(&key).expect("a request");
        fs::write(desk.path("a.csr"), request.pem().expect("PEM")).expect("written");
        request.der().to_vec()
    };
    let digits = {
        use rcgen::PublicKeyData;
        trust_runtime::domain::identity::Fingerprint::of_der(&key.subject_public_key_info()).to_string()
    };
    let approve = ["approve", "--ca", "ca", "--request", "a.csr", "--fingerprint", &digits, "--out", "."];

    write(&["spiffe://trust/site-a/runtime/r1"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    desk.done(&approve);
    let key_path = desk.path("node-r1.key");
    fs::write(&key_path, key.serialize_pem()).expect("written");
    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600)).expect("mode");
    desk.load("", "node-r1", &desk.anchors()).expect("a leaf, whatever was asked for");

    write(&["spiffe://trust/site-b/runtime/r1"], |_| {});
    desk.refused(&approve, 5, "authority of site site-a");
    write(&["spiffe://other/site-a/runtime/r1"], |_| {});
    desk.refused(&approve, 3, "trust domain");
    write(&[], |_| {});
    desk.refused(&approve, 3, "one SPIFFE ID, got 0");
    write(&["spiffe://trust/site-a/a", "spiffe://trust/site-a/b"], |_| {});
    desk.refused(&approve, 3, "one SPIFFE ID, got 2");

    let mut der = write(&["spiffe://trust/site-a/runtime/r1"], |_| {});
    let at = der.windows(2).position(|it| it == b"r1").expect("the name");
    der[at] = b'q';
    fs::write(desk.path("a.csr"), pem_request(&der)).expect("written");
    desk.refused(&approve, 5, "does not have the key");
    fs::write(desk.path("a.csr"), "nothing").expect("written");
    desk.refused(&approve, 3, "not a request");
}

fn pem_request(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn an_authority_changes_its_key_without_cutting_anybody_off() {
    let desk = Desk::new(Mapping::PathSite);
    let kept = |name: &str| {
        fs::copy(desk.anchors(), desk.path(name)).expect("copied");
        desk.path(name)
    };
    desk.issue("r1", "old");
    let before = kept("before.pem");
    desk.refused(&["rotate", "activate", "--ca", "ca"], 6, "no key is prepared");
    desk.refused(&["rotate", "retire", "--ca", "ca"], 6, "no key is to be retired");

    assert_eq!(desk.done(&["rotate", "prepare", "--ca", "ca"])["named"], json!([1, 2]));
    let both = kept("both.pem");
    desk.refused(&["rotate", "prepare", "--ca", "ca"], 6, "prepared already");
    desk.issue("r2", "still-old");
    desk.load("still-old", "node-r2", &before).expect("the old key signs until the next step");

    desk.done(&["rotate", "activate", "--ca", "ca"]);
    desk.issue("r3", "new");
    for (out, subject) in [("old", "node-r1"), ("still-old", "node-r2"), ("new", "node-r3")] {
        desk.load(out, subject, &both).expect("everybody knows everybody");
    }
    assert!(desk.load("new", "node-r3", &before).is_err(), "who was left out does not know the new key");
    desk.refused(&["rotate", "prepare", "--ca", "ca"], 6, "not retired");
    desk.refused(&["rotate", "retire", "--ca", "ca"], 6, "2 certificates of key 1 still hold");
    assert!(desk.path("ca/ca-1.key").exists());

    // One is renewed, the other shut out: nobody is left whom the old key holds.
    desk.issue("r1", "renewed");
    desk.done(&["ban", "--ca", "ca", "--id", "spiffe://trust/site-a/runtime/r2", "--reason", "scrapped"]);
    desk.done(&["rotate", "retire", "--ca", "ca"]);
    assert!(!desk.path("ca/ca-1.key").exists(), "the old key is gone");
    desk.load("renewed", "node-r1", &desk.anchors()).expect("loaded");
    assert!(desk.load("old", "node-r1", &desk.anchors()).is_err(), "what the old key has signed is over");
    assert_eq!(desk.done(&["rotate", "prepare", "--ca", "ca"])["key"], 3);
}

#[test]
fn a_forced_retirement_cuts_off_and_says_so_before() {
    let desk = Desk::new(Mapping::PathSite);
    desk.issue("r1", "r1");
    desk.done(&["rotate", "prepare", "--ca", "ca"]);
    desk.done(&["rotate", "activate", "--ca", "ca"]);
    desk.refused(&["rotate", "retire", "--ca", "ca"], 6, "spiffe://trust/site-a/runtime/r1");
    desk.done(&["rotate", "retire", "--ca", "ca", "--force"]);
    assert!(desk.load("r1", "node-r1", &desk.anchors()).is_err());
}

#[test]
fn who_is_banned_is_shut_out_and_gets_nothing_new() {
    let desk = Desk::new(Mapping::PathSite);
    let r1 = desk.issue("r1", "r1");
    let r2 = desk.issue("r2", "r2");
    let list = |id: &Json| {
        let listed = desk.done(&["list", "--ca", "ca"]);
        let rows = listed["issued"].as_array().expect("rows").clone();
        rows.iter().find(|row| row["serial"] == id["serial"]).map(|row| row["state"].clone())
    };
    assert_eq!(list(&r1), Some(json!("valid")), "the last third of its thirty days is to come");
    let digits = r1["certificate"].as_str().expect("digits");
    let ban = ["ban", "--ca", "ca", "--certificate", digits, "--reason", "stolen panel"];
    assert_eq!(desk.done(&ban)["is_new"], true);
    assert_eq!(desk.done(&ban)["is_new"], false);
    let text = fs::read_to_string(desk.path("ca/bans.txt")).expect("a list");
    assert!(text.contains(&format!("certificate {digits} # stolen panel\n")), "{text}");
    let refused = desk.load("r1", "node-r1", &desk.anchors()).expect_err("banned");
    assert!(refused.contains("banned"), "{refused}");
    desk.load("r2", "node-r2", &desk.anchors()).expect("not banned");
    assert_eq!((list(&r1), list(&r2)), (Some(json!("banned")), Some(json!("valid"))));

    desk.done(&["ban", "--ca", "ca", "--id", r2["id"].as_str().expect("an id")]);
    desk.refused(&["issue", "--ca", "ca", "--node", "r2", "--out", "again"], 5, "banned");
    assert!(!desk.path("again/node-r2.key").exists(), "a refusal leaves no key behind");
    desk.refused(&["ban", "--ca", "ca", "--key", "12"], 2, "64 lower-case");
    desk.refused(&["ban", "--ca", "ca", "--key", digits, "--reason", "two\nlines"], 2, "one line");
    desk.refused(&["ban", "--ca", "ca"], 2, "--certificate");
}

#[test]
fn an_authority_is_made_once_used_by_one_and_never_with_an_open_key() {
    let desk = Desk::new(Mapping::PathSite);
    let before = fs::read(desk.path("ca/ca-1.key")).expect("a key");
    desk.refused(&["init-site", "--ca", "ca", "--site", "site-a"], 6, "already");
    assert_eq!(fs::read(desk.path("ca/ca-1.key")).expect("a key"), before);
    desk.refused(&["list", "--ca", "nowhere"], 3, "init-site");
    desk.refused(&["init-site", "--ca", "x", "--site", "a/b"], 2, "--site");
    desk.refused(&["init-site", "--ca", "x", "--site", "Site-A", "--mapping", "domain-site"], 2, "lower-case");
    desk.refused(&["issue", "--ca", "ca", "--node", "site-b/r1", "--out", "x"], 5, "site-a");
    desk.refused(&["issue", "--ca", "ca", "--node", "r1", "--dns", "not a name", "--out", "x"], 2, "--dns");
    desk.refused(&["issue", "--ca", "ca", "--node", "r1", "--days", "398", "--out", "x"], 2, "397");
    desk.refused(&["enrol", "--node", "r1", "--out", "x"], 2, "wanted <site>/<name>");
    assert!(!desk.path("x").exists(), "a refusal makes nothing");

    desk.done(&["init-site", "--ca", "short", "--site", "site-a", "--years", "1"]);
    desk.refused(&["issue", "--ca", "short", "--node", "r1", "--days", "397", "--out", "x"], 6, "ends before that");
    assert!(!desk.path("x/node-r1.key").exists(), "nothing that the authority does not outlive");
    desk.done(&["issue", "--ca", "short", "--node", "r1", "--days", "364", "--out", "y"]);

    let lock = File::options().write(true).open(desk.path("ca/lock")).expect("a lock");
    lock.lock().expect("locked");
    desk.refused(&["list", "--ca", "ca"], 6, "another command");
    drop(lock);
    fs::set_permissions(desk.path("ca/ca-1.key"), fs::Permissions::from_mode(0o640)).expect("mode");
    desk.refused(&["issue", "--ca", "ca", "--node", "r1", "--out", "x"], 3, "set its mode to 600");
    fs::set_permissions(desk.path("ca/ca-1.key"), fs::Permissions::from_mode(0o600)).expect("mode");

    // What follows from the state is made again after a crash in between.
    let anchors = fs::read(desk.anchors()).expect("anchors");
    fs::remove_file(desk.anchors()).expect("gone");
    desk.issue("r1", "r1");
    assert_eq!(fs::read(desk.anchors()).expect("anchors"), anchors);
    desk.refused(&["issue", "--ca", "ca", "--node", "r1", "--out", "r1"], 6, "a key already");
}

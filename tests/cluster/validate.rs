//! `validate` reads the files that the settings name as a start would, and says what a start would say.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};

use crate::harness::{program, run_to_end};
use crate::plant::{COMMAND_MAX, Desk, TOKEN, write_settings};

/// A node of a plant that lacks nothing, and what validate and play say of it.
struct Node {
    desk: Desk,
    project: PathBuf,
}

impl Node {
    fn new() -> Self {
        let desk = Desk::new(&["north", "south"]);
        let project = desk.project("ca-north", "north", "a", &[]);
        let node = Self { desk, project };
        node.set("", "");
        node
    }

    /// With these further lines of `[runtime.identity]`, and what follows on the mesh.
    fn set(&self, identity: &str, rest: &str) {
        let mesh = format!("tls = true\n{rest}");
        let text = self.desk.settings(("plant", "north", "a"), &["north"], &mesh, identity);
        write_settings(&self.project, &text.replace(&self.desk.anchors("north"), "tls/anchors-north.pem"));
    }

    /// With a listener's certificate of another PKI.
    fn set_provisioned(&self, certificate: &str, key: &str, ca: &str) {
        let text = self.desk.settings(("plant", "north", "a"), &["north"], "tls = true\n", "");
        let paths =
            format!("mode = \"provisioned\"\ncert_path = {certificate:?}\nkey_path = {key:?}\nca_path = {ca:?}");
        write_settings(&self.project, &text.replace("mode = \"self-managed\"", &paths));
    }

    fn tls(&self, name: &str) -> PathBuf {
        self.project.join("tls").join(name)
    }

    /// What a command says of the project, by this clock; never anything secret.
    fn says(&self, arguments: &[&str], clock: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = program();
        command.args(arguments).arg("--project").arg(&self.project).envs(clock.iter().copied());
        let output = run_to_end(&mut command, COMMAND_MAX).0;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains(TOKEN) && !said.contains("PRIVATE"), "{said}");
        (output.status.code(), said)
    }

    /// Both refuse with these words: the one that starts nothing says what the other one would.
    #[track_caller]
    fn is_refused(&self, words: &str) {
        for verb in ["validate", "play"] {
            let (code, said) = self.says(&[verb], &[]);
            assert!(code == Some(3) && said.contains(words), "{verb}: wanted {words:?}: {code:?} {said}");
        }
        assert_eq!(self.json()["ok"], false);
    }

    fn is_valid(&self) -> bool {
        self.says(&["validate"], &[]) == (Some(0), "north/a: valid, profile plant\n".to_owned())
    }

    fn json(&self) -> Json {
        let said = self.says(&["validate", "--json"], &[]).1;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

/// What stands in a file while something else happens.
fn with(path: &Path, bytes: &[u8], happens: impl FnOnce()) {
    let before = fs::read(path).expect("a file");
    fs::write(path, bytes).expect("written");
    happens();
    fs::write(path, before).expect("written");
}

#[test]
fn validate_says_of_certificates_keys_and_anchors_what_a_start_would_say() {
    let node = Node::new();
    assert!(node.is_valid(), "{:?}", node.says(&["validate"], &[]));
    assert!(!node.project.join("state").exists(), "it has made something");
    let [svid, key, anchors] = ["node-a.pem", "node-a.key", "anchors-north.pem"].map(|name| node.tls(name));
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("its mode");
    mode(0o644);
    node.is_refused("node-a.key: others on this machine may use it (mode 644): set its mode to 600");
    mode(0o600);
    with(&svid, b"nonsense", || node.is_refused("node-a.pem: "));
    with(&anchors, b"nonsense", || node.is_refused("anchors-north.pem: "));
    let foreign = fs::read(node.desk.anchors("south")).expect("anchors");
    with(&anchors, &foreign, || node.is_refused("node-a.pem: "));
    node.desk.project("ca-north", "north", "b", &[]);
    let other = fs::read(node.desk.path("north-b/tls/node-b.key")).expect("a key");
    with(&key, &other, || node.is_refused("node-a.pem: "));
    let other = fs::read(node.desk.path("north-b/tls/node-b.pem")).expect("a certificate");
    with(&svid, &other, || node.is_refused("node-a.pem: "));
    // All at once, with the own bundle and the listener's certificate.
    node.set("bundle_path = \"bundle.json\"", "");
    fs::write(node.project.join("bundle.json"), "nonsense").expect("written");
    with(&svid, b"nonsense", || {
        let files = node.json()["files"].clone();
        let reasons: Vec<_> = files.as_array().into_iter().flatten().map(|it| it["reason"].to_string()).collect();
        assert!(
            reasons.len() == 2 && reasons[0].contains("node-a.pem") && reasons[1].contains("bundle.json"),
            "{files}"
        );
    });
    node.is_refused("bundle.json");
    node.set("", "");
    assert!(node.is_valid());
}

#[test]
fn validate_lists_files_that_are_not_there_yet_and_is_content() {
    let node = Node::new();
    let (key, away) = (node.tls("node-a.key"), node.tls("away"));
    fs::rename(&key, &away).expect("moved");
    let (code, said) = node.says(&["validate"], &[]);
    assert_eq!(code, Some(0), "{said}");
    let listed = "before this node can serve: ";
    assert!(said.lines().any(|line| line.starts_with(listed) && line.contains("node-a.key: No such file")), "{said}");
    let found = node.json();
    assert_eq!((&found["ok"], &found["files"][0]["is_there"]), (&json!(true), &json!(false)), "{found}");
    assert_eq!(node.says(&["play"], &[]).0, Some(3));
}

#[test]
fn a_file_that_is_not_there_hides_no_fault_of_another() {
    let node = Node::new();
    let [svid, anchors] = ["node-a.pem", "anchors-north.pem"].map(|name| node.tls(name));
    fs::write(&anchors, "nonsense").expect("written");
    fs::write(node.desk.bans("north"), "nonsense").expect("written");
    let names = |present: &[bool]| {
        let (code, said) = node.says(&["validate"], &[]);
        assert!(code == Some(3) && said.contains("2 faults in files"), "{code:?} {said}");
        let files = node.json()["files"].clone();
        let found = files.as_array().into_iter().flatten();
        assert!(found.clone().map(|it| it["is_there"] == true).eq(present.iter().copied()), "{files}");
        for name in ["anchors-north.pem: ", "bans.txt: "] {
            let named = found.clone().filter(|it| it["reason"].to_string().contains(name)).count();
            assert_eq!(named, 1, "{name}: {files}");
        }
    };
    names(&[true, true]);
    fs::remove_file(&svid).expect("removed");
    names(&[false, true, true]);
}

/// Whoever opens a pipe waits for its writer, who never comes.
#[test]
fn validate_and_play_name_a_pipe_in_the_place_of_a_file_and_do_not_wait_for_it() {
    let node = Node::new();
    node.set("bundle_path = \"bundle.json\"", "");
    let pipe = |path: &Path| {
        let made = Command::new("mkfifo").args(["-m", "600"]).arg(path).status().expect("mkfifo is there");
        assert!(made.success());
    };
    pipe(&node.project.join("bundle.json"));
    node.is_refused("bundle.json: wanted a file, got something else");
    node.set("", "");
    let svid = node.tls("node-a.pem");
    fs::remove_file(&svid).expect("removed");
    pipe(&svid);
    node.is_refused("node-a.pem: wanted a file, got something else");
}

#[test]
fn validate_names_a_certificate_that_has_ended_the_nodes_or_the_listeners() {
    let node = Node::new();
    let library = crate::clock::library();
    let library = library.to_str().expect("a path");
    // Thirty days are what a node's certificate has.
    let later = [("LD_PRELOAD", library), ("FAKETIME", "+40d")];
    let (code, said) = node.says(&["validate"], &later);
    assert!(code == Some(3) && said.contains("node-a.pem: "), "{code:?} {said}");
    // One that somebody else has issued: here the other site, for one of its nodes, and for less than the node's own.
    node.desk.project("ca-south", "south", "b", &["--days", "10"]);
    let [certificate, key] = ["pem", "key"].map(|it| node.desk.text(&format!("south-b/tls/node-b.{it}")));
    node.set_provisioned(&certificate, &key, &node.desk.anchors("south"));
    assert!(node.is_valid(), "{:?}", node.says(&["validate"], &[]));
    let later = [("LD_PRELOAD", library), ("FAKETIME", "+20d")];
    let (code, said) = node.says(&["validate"], &later);
    let wanted = "node-b.pem: the certificate has ended: put a new one in its place";
    assert!(code == Some(3) && said.contains(wanted), "{code:?} {said}");
    let own = node.tls("node-a.key").display().to_string();
    node.set_provisioned(&certificate, &own, &node.desk.anchors("south"));
    node.is_refused("node-a.key: ");
    fs::write(node.project.join("ca.pem"), "nonsense").expect("written");
    node.set_provisioned(&certificate, &key, "ca.pem");
    let (code, said) = node.says(&["validate"], &[]);
    assert!(code == Some(3) && said.contains("ca.pem: "), "{code:?} {said}");
}

//! Identities from files: what is right is loaded, and what is wrong names its file and a remedy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::domain::time::{Millis, Wall};
use crate::tls::support::{NOW, Site, naming};
use crate::tls::{Own, Snapshot, Sources, load, load_beside};

/// A folder with the files of node r1 of site-a.
struct Folder {
    folder: tempfile::TempDir,
    site: Site,
}

impl Folder {
    fn new() -> Self {
        let it = Self { folder: tempfile::tempdir().expect("folder"), site: Site::new("site-a") };
        let (chain, key) = it.site.issue("site-a/runtime/r1", |_| {});
        it.write("svid.pem", &pem(&chain), 0o644);
        it.write("key.pem", &key_pem(&key), 0o600);
        it.write("site-a.pem", &pem(&[it.site.anchor()]), 0o644);
        it.write("bans.txt", "# nobody\n", 0o644);
        it
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).expect("written");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("mode");
    }

    fn sources(&self) -> Sources {
        let anchors = vec![("site-a".parse().expect("a site"), self.path("site-a.pem"))];
        let bans = Some(self.path("bans.txt"));
        let own = Own::Files { svid: self.path("svid.pem"), key: self.path("key.pem") };
        Sources { own, anchors, bans }
    }

    fn load_at(&self, now: Wall) -> Result<Snapshot, String> {
        load(&self.sources(), &naming(), &self.site.subject("r1"), now).map_err(|error| error.to_string())
    }

    fn load_beside(&self, in_use: &Snapshot) -> Option<Snapshot> {
        load_beside(&self.sources(), &[], &naming(), in_use)
    }

    /// Loads what must not load, and holds the text against the file and the words that it must have.
    fn refuses(&self, name: &str, words: &[&str]) {
        let said = self.load_at(NOW).expect_err("refused");
        let file = self.path(name).display().to_string();
        assert!(said.contains(&file), "wanted {file}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "wanted {word:?}: {said}"));
    }
}

fn pem(chain: &[CertificateDer<'static>]) -> String {
    chain.iter().map(|der| section("CERTIFICATE", der)).collect()
}

fn key_pem(key: &PrivateKeyDer<'static>) -> String {
    section("PRIVATE KEY", key.secret_der())
}

fn section(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn a_folder_that_is_in_order_is_loaded() {
    let folder = Folder::new();
    let snapshot = folder.load_at(NOW).expect("loaded");
    assert_eq!(snapshot.own().svid.subject, folder.site.subject("r1"));
    assert!(snapshot.trust().bans.is_empty());
}

#[test]
fn modes_that_let_others_in_are_refused() {
    let folder = Folder::new();
    let set = |name: &str, mode| fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).expect("set");
    for (name, mode, word) in
        [("key.pem", 0o640, "600"), ("key.pem", 0o604, "600"), ("site-a.pem", 0o664, "644"), ("bans.txt", 0o646, "644")]
    {
        let before = fs::metadata(folder.path(name)).expect("there").permissions().mode();
        set(name, mode);
        folder.refuses(name, &["set its mode to", word, &format!("{mode:o}")]);
        set(name, before);
    }
    set("key.pem", 0o400);
    assert!(folder.load_at(NOW).is_ok());
}

#[test]
fn files_that_are_missing_too_long_or_something_else_are_named() {
    let check = |name: &str, change: fn(&Path), words: &[&str]| {
        let folder = Folder::new();
        change(&folder.path(name));
        folder.refuses(name, words);
    };
    let overwrite: fn(&Path, &str) = |path, text| fs::write(path, text).expect("written");
    check("svid.pem", |path| fs::remove_file(path).expect("gone"), &["check the path"]);
    check("key.pem", |path| fs::remove_file(path).expect("gone"), &["check the path"]);
    check("site-a.pem", |path| fs::write(path, "no PEM").expect("written"), &["BEGIN CERTIFICATE", "got 0"]);
    check("bans.txt", |path| fs::write(path, "somebody\n").expect("written"), &["line 1"]);
    check("key.pem", |path| fs::write(path, vec![b'\n'; 128 * 1_024 + 1]).expect("written"), &["at most 131072 bytes"]);
    check(
        "svid.pem",
        |path| {
            fs::remove_file(path).expect("gone");
            fs::create_dir(path).expect("made");
        },
        &["wanted a file"],
    );
    let folder = Folder::new();
    let key = fs::read_to_string(folder.path("key.pem")).expect("read");
    overwrite(&folder.path("key.pem"), &format!("{key}{key}"));
    folder.refuses("key.pem", &["one private key", "got 2"]);
    overwrite(&folder.path("key.pem"), &key.replace("-----END", "-----EN"));
    folder.refuses("key.pem", &["not PEM"]);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = Folder::new();
    let (other_chain, other_key) = folder.site.issue("site-a/runtime/r1", |_| {});
    folder.write("key.pem", &key_pem(&other_key), 0o600);
    folder.refuses("svid.pem", &["not that of the private key"]);
    folder.write("svid.pem", &pem(&other_chain), 0o644);
    assert!(folder.load_at(NOW).is_ok());

    let (chain, key) = folder.site.issue("site-a/runtime/r2", |_| {});
    folder.write("svid.pem", &pem(&chain), 0o644);
    folder.write("key.pem", &key_pem(&key), 0o600);
    folder.refuses("svid.pem", &["site-a/r2", "site-a/r1"]);

    let (chain, key) = folder.site.issue("site-a/r1", |_| {});
    folder.write("svid.pem", &pem(&chain), 0o644);
    folder.write("key.pem", &key_pem(&key), 0o600);
    folder.refuses("svid.pem", &["actor site-a/r1", "runtime site-a/r1"]);

    let folder = Folder::new();
    folder.write("site-a.pem", &pem(&[Site::new("site-a").anchor()]), 0o644);
    folder.refuses("svid.pem", &["site-a"]);
    folder.write("site-a.pem", &fs::read_to_string(folder.path("svid.pem")).expect("read"), 0o644);
    folder.refuses("site-a.pem", &["anchor 1 of site site-a", "no CA's"]);
}

#[test]
fn an_expired_identity_is_not_loaded() {
    let folder = Folder::new();
    let said = folder.load_at(NOW.plus(Millis::from_hours(2))).expect_err("expired");
    assert!(said.contains("expired") && said.contains("svid.pem"), "{said}");
}

fn anchors_of(snapshot: &Snapshot) -> String {
    format!("{:?}", snapshot.trust().anchors)
}

const BAN: &str = "id spiffe://trust/site-a/runtime/r9\n";

#[test]
fn bans_count_although_the_own_certificate_cannot_be_used() {
    let folder = Folder::new();
    let in_use = folder.load_at(NOW).expect("loaded");
    folder.write("svid.pem", "no PEM", 0o644);
    folder.write("bans.txt", BAN, 0o644);
    let beside = folder.load_beside(&in_use).expect("the rest is good");
    assert!(!beside.trust().bans.is_empty());
    assert_eq!(beside.chain(), in_use.chain());

    // Nor do they wait for anchors that cannot be read, or that do not vouch for the own certificate.
    for anchors in ["no PEM".to_owned(), pem(&[Site::new("site-a").anchor()])] {
        folder.write("site-a.pem", &anchors, 0o644);
        let beside = folder.load_beside(&in_use).expect("the bans are good");
        assert!(!beside.trust().bans.is_empty());
        assert_eq!(anchors_of(&beside), anchors_of(&in_use), "the anchors in force stay");
    }
    folder.write("bans.txt", "somebody\n", 0o644);
    assert!(folder.load_beside(&in_use).is_none(), "a list with one bad line is none");
}

#[test]
fn another_anchor_counts_although_the_own_certificate_is_over() {
    let folder = Folder::new();
    let in_use = folder.load_at(NOW).expect("loaded");
    let over = NOW.plus(Millis::from_hours(2));
    assert!(folder.load_at(over).is_err());
    let anchors = [folder.site.anchor(), Site::new("site-a").anchor()];
    folder.write("site-a.pem", &pem(&anchors), 0o644);
    let beside = folder.load_beside(&in_use).expect("it was vouched for in its time");
    assert_ne!(anchors_of(&beside), anchors_of(&in_use));
    assert_eq!(beside.own().until, in_use.own().until);
}

//! `tokens.toml`: written by the command line, read by the node, hostile in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::domain::id::SiteId;
use crate::domain::identity::Role;
use crate::domain::identity::token::{self, Audience, TokenId, TokenRecord};
use crate::domain::time::Wall;
use crate::settings::tokens::{Error, TOKENS_FILE, change, load, note_uses, uses};

fn site() -> SiteId {
    "line-3".parse().expect("legal")
}

fn record(bits: u32) -> TokenRecord {
    let text = token::compose(TokenId::from_bits(bits), &[1; 32]);
    TokenRecord {
        id: TokenId::from_bits(bits),
        digest: token::digest(text.as_bytes()),
        role: Role::Operator,
        audience: Audience::default(),
        actor: "line-3/alice".parse().expect("legal"),
        created: Wall(1_700_000_000_000_000_000),
        expires: Some(Wall(1_800_000_000_000_000_000)),
        note: "CI \"of\" line 3".to_owned(),
    }
}

fn add(folder: &std::path::Path, record: TokenRecord) -> Result<(), Error> {
    change(folder, &site(), |records| {
        records.push(record);
        Ok(())
    })
}

#[test]
fn what_is_written_reads_back_and_is_the_owners_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(load(folder.path(), &site()).expect("no file is no token").records().count(), 0);
    for bits in [7, 8] {
        add(folder.path(), record(bits)).expect("written");
    }
    let tokens = load(folder.path(), &site()).expect("valid");
    assert_eq!(tokens.records().cloned().collect::<Vec<_>>(), [record(7), record(8)]);
    let metadata = fs::metadata(folder.path().join(TOKENS_FILE)).expect("there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(folder.path().join(TOKENS_FILE)).expect("text");
    assert!(!text.contains(&token::compose(TokenId::from_bits(7), &[1; 32])), "only digests: {text}");
}

#[test]
fn what_is_refused_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    add(folder.path(), record(7)).expect("written");
    let before = fs::read(folder.path().join(TOKENS_FILE)).expect("there");
    let foreign = TokenRecord { actor: "other/alice".parse().expect("legal"), ..record(9) };
    assert!(matches!(add(folder.path(), record(7)), Err(Error::Refused(_))), "an id twice");
    assert!(matches!(add(folder.path(), foreign), Err(Error::Refused(_))), "another site's actor");
    assert_eq!(fs::read(folder.path().join(TOKENS_FILE)).expect("there"), before);
}

#[test]
fn callers_at_once_all_succeed() {
    let folder = tempfile::tempdir().expect("a folder");
    std::thread::scope(|scope| {
        for bits in 0..16 {
            let folder = folder.path();
            scope.spawn(move || add(folder, record(bits)).expect("written"));
        }
    });
    assert_eq!(load(folder.path(), &site()).expect("valid").records().count(), 16);
}

#[test]
fn a_file_that_others_may_read_or_that_is_no_token_file_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(TOKENS_FILE);
    add(folder.path(), record(7)).expect("written");
    let good = fs::read_to_string(&path).expect("text");
    for (bent, wanted) in [
        (good.replace("operator", "root"), "role"),
        (good.replace("line-3/alice", "*"), "actor of this site"),
        (good.replace("digest = \"", "digest = \"x"), "digest"),
        (good.replace("note", "password"), "password"),
        (good.replace("T", " T "), "line"),
        ("x".repeat(300_000), "bytes"),
    ] {
        fs::write(&path, &bent).expect("written");
        let refused = load(folder.path(), &site()).expect_err("refused").to_string();
        assert!(refused.contains(wanted) && refused.contains(TOKENS_FILE), "{wanted}: {refused}");
    }
    fs::write(&path, good).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode");
    assert!(matches!(load(folder.path(), &site()), Err(Error::Exposed { mode: 0o640, .. })));
}

#[test]
fn the_last_use_is_noted_while_the_token_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    add(folder.path(), record(7)).expect("written");
    let tokens = load(folder.path(), &site()).expect("valid");
    let second = |seconds: u64| Wall(seconds.saturating_mul(1_000_000_000));
    let new = [(TokenId::from_bits(7), second(5)), (TokenId::from_bits(8), second(6))].into();
    note_uses(folder.path(), &tokens, &new).expect("written");
    assert_eq!(uses(folder.path()), [(TokenId::from_bits(7), second(5))].into());
    fs::write(folder.path().join("tokens.used.toml"), "no = toml = at all").expect("written");
    assert_eq!(uses(folder.path()).len(), 0, "nothing is decided by it");
}

//! Replays the corpora on the stable toolchain, with mutations of every sample that are the same on every machine.

use std::fs;
use std::path::Path;

use trust_runtime_fuzz::{actor, bundle, envelope, http_body, mesh_message, run_line, settings, signed_payload, svid};

/// Pieces that parsers of these languages trip over.
const PIECES: [&[u8]; 16] = [
    b"\0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"/",
    b"..",
    b"*",
    b"\xff",
    b"\xe2\x80\xae",
    b"null",
    b"18446744073709551616",
    b"\\ud800",
];

/// The generator of the reference implementation of splitmix64, so that a failing mutation has a number.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`; 0 where there is none.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).expect("small")).expect("small")
    }
}

fn mutate(sample: &[u8], others: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut data = sample.to_vec();
    for _ in 0..=chance.below(3) {
        let at = chance.below(data.len() + 1);
        let until = at + chance.below(data.len() - at + 1).min(32);
        match chance.below(7) {
            0 if at < data.len() => data[at] ^= 1 << chance.below(8),
            1 => data.truncate(at),
            2 => drop(data.drain(at..until)),
            3 => {
                let copied = data[at..until].to_vec();
                data.splice(at..at, copied);
            }
            4 => {
                let other = &others[chance.below(others.len())];
                let from = chance.below(other.len() + 1);
                let end = from + chance.below(other.len() - from + 1).min(64);
                data.splice(at..until, other[from..end].iter().copied());
            }
            5 if at < data.len() => data[at] = u8::try_from(chance.below(256)).expect("a byte"),
            _ => drop(data.splice(at..at, PIECES[chance.below(PIECES.len())].iter().copied())),
        }
    }
    data
}

fn samples(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("an entry"));
    let mut samples: Vec<_> = files
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a sample")))
        .collect();
    samples.sort();
    samples
}

/// Runs every sample and `count` mutations. Names the one that fails, because a panic alone does not.
fn replay(target: &str, run: fn(&[u8]), is_accepted: fn(&[u8]) -> bool, count: u64) {
    let samples = samples(target);
    for (name, data) in &samples {
        check(name, data, run);
        // What cargo-fuzz adds has other names and no verdict.
        if name.starts_with("valid-") || name.starts_with("hostile-") {
            assert_eq!(is_accepted(data), name.starts_with("valid-"), "{target}/{name}");
        }
    }
    let (names, all): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
    for number in 0..count {
        let mut chance = Chance(number);
        let index = chance.below(all.len());
        let data = mutate(&all[index], &all, &mut chance);
        check(&format!("{} mutated by {number}", names[index]), &data, run);
    }
}

fn check(name: &str, data: &[u8], run: fn(&[u8])) {
    if let Err(fault) = std::panic::catch_unwind(|| run(data)) {
        let shown: String = String::from_utf8_lossy(data).chars().take(2_000).collect();
        eprintln!("{name}: {shown:?}");
        std::panic::resume_unwind(fault);
    }
}

#[test]
fn actors() {
    replay("actor", actor::run, actor::is_accepted, 20_000);
}

#[test]
fn bundles() {
    replay("bundle", bundle::run, bundle::is_accepted, 4_000);
}

#[test]
fn envelopes() {
    replay("envelope", envelope::run, envelope::is_accepted, 4_000);
}

#[test]
fn http_bodies() {
    replay("http_body", http_body::run, http_body::is_accepted, 10_000);
}

#[test]
fn mesh_messages() {
    replay("mesh_message", mesh_message::run, mesh_message::is_accepted, 2_000);
}

#[test]
fn lines_of_programs() {
    replay("run_line", run_line::run, run_line::is_accepted, 10_000);
}

#[test]
fn settings_files() {
    replay("settings", settings::run, settings::is_accepted, 2_000);
}

#[test]
fn payloads_of_a_trusted_peer() {
    replay("signed_payload", signed_payload::run, signed_payload::is_accepted, 200);
}

#[test]
fn certificates() {
    replay("svid", svid::run, svid::is_accepted, 10_000);
}

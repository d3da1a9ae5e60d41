//! What strangers and started programs can send, run through every parser that sees it first.
//!
//! Each module is one fuzz target. `run` never panics on a sound parser, and holds what was read against what was sent.
//! `is_accepted` says whether the input is taken at all, so that the corpora show that the good ones are.
//! `cargo test` replays `corpus/` and mutations of it; `scripts/runtime_comms_fuzz_gate.sh` searches on, guided by coverage, and so
//! does cargo-fuzz where a nightly toolchain is at hand: `cargo fuzz run actor`.

pub mod actor;
pub mod bundle;
pub mod envelope;
pub mod http_body;
pub mod mesh_message;
pub mod run_line;
pub mod settings;
pub mod signed_payload;
pub mod svid;
mod world;

/// Runs every file that the command line names, such as an input that cargo-fuzz has found.
pub fn run_files(run: fn(&[u8])) -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|path| std::fs::read(path).map(|data| run(&data)))
}

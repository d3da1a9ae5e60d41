//! Fuzzes `trust_runtime_fuzz::signed_payload`. Without cargo-fuzz: runs the files that are named.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| trust_runtime_fuzz::signed_payload::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    trust_runtime_fuzz::run_files(trust_runtime_fuzz::signed_payload::run)
}

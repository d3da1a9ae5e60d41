//! The rules as case files: each kind has a table in `cases/` and one `check` that runs every row of it.
//!
//! A row says what is asked and what must come of it, stable code included. Files that this test can make itself
//! (`matrix.out`, sealed bytes, stored examples) are made with `UPDATE_GOLDEN=1`; their difference is reviewed.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod actor;
mod bent;
mod bundle;
mod case_file;
mod envelope;
mod example;
mod explain;
mod judged;
mod key;
mod kinds;
mod matrix;
mod minted;
mod partner;
mod policy;
mod preflight;
mod reach;
mod record;
mod renewal;
mod rollover;
mod sealed;
mod shown;
mod spire;
mod svid;
mod vouched;
mod wire;
mod world;

//! The contract suites of ports on the adapters that need this program itself, and what only real processes show.

#![expect(clippy::expect_used, reason = "a test may stop at the first surprise")]

mod process;
mod support;
mod workload;

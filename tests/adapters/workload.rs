//! The port's suite, compiled where it stands, against the public port.

pub(crate) use trust_runtime::workload::{
    Exit, INPUT_BYTES_MAX, Launcher, Lines, Output, Process, Program, StartError, memory,
};

#[path = "../../src/workload/contract.rs"]
pub(crate) mod contract;

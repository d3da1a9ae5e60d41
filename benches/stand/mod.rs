//! What every benchmark stands on: rows, processes of nodes and floors, and a client of few instructions.

pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod rows;
pub(crate) mod served;

/// A benchmark stops at the first surprise.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The runtime of a benchmark, and of a floor in a process of its own.
pub(crate) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

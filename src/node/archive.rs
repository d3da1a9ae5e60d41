//! The audit chains of a project, read from its files alone: what `audit verify` and `audit export` show.

use std::path::Path;

use crate::store::sqlite::{self, Verdict};
use crate::store::{Chain, Error};

/// Both chains with the names that people see.
const CHAINS: [(&str, Chain); 2] = [("writes", Chain::Writes), ("reads", Chain::Reads)];

/// What the check of one chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `writes` or `reads`.
    pub chain: &'static str,
    /// Whether every record holds.
    pub is_whole: bool,
    /// One sentence: how many records, or the first broken one.
    pub text: String,
}

/// Checks both chains from the first kept record to the last. The node may be running or not.
pub fn verify(folder: &Path) -> Result<Vec<Finding>, Error> {
    CHAINS
        .into_iter()
        .map(|(name, chain)| sqlite::verify(folder, chain).map(|verdict| finding(name, &verdict)))
        .collect()
}

fn finding(chain: &'static str, verdict: &Verdict) -> Finding {
    match verdict {
        Verdict::Whole { begin, end } => {
            let kept = end.seq.saturating_sub(begin.seq);
            let text = format!("whole: {kept} records, up to number {} with the hash {}", end.seq, end.hash);
            Finding { chain, is_whole: true, text }
        }
        Verdict::Broken(broken) => {
            Finding { chain, is_whole: false, text: format!("broken at record {}: {}", broken.seq, broken.reason) }
        }
    }
}

/// Hands over every record as one line of canonical JSON, oldest first, without holding more than a page in memory.
pub fn export<E: From<Error>>(folder: &Path, mut line: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    for (_, chain) in CHAINS {
        for link in sqlite::read_chain(folder, chain)? {
            line(&String::from_utf8_lossy(&link?.canonical))?;
        }
    }
    Ok(())
}

//! The command line of `runs`.

use clap::Subcommand;

use crate::cli::args::Reach;

/// `runs`.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// List the runs of one node, newest first; its admin listener has to be open, and --url names that.
    List {
        /// Only runs that are this far: active, completed or errored.
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
        /// Only runs of this agent.
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// At most this many, 1 to 1000.
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: u32,
        /// How to reach the node.
        #[command(flatten)]
        reach: Reach,
    },
    /// Show a run, wherever in the mesh it is. Exits with 1 if it ended with an error.
    Show {
        /// The run's id.
        run: String,
        /// How to reach a node.
        #[command(flatten)]
        reach: Reach,
    },
    /// Follow a run to its end, from its beginning on. Exits with 1 if it ends with an error.
    Tail {
        /// The run's id.
        run: String,
        /// Only events behind this number.
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        /// How events are printed; --json means json.
        #[arg(long, value_name = "FORM", default_value = "pretty")]
        format: EventFormat,
        /// How to reach a node.
        #[command(flatten)]
        reach: Reach,
    },
    /// Cancel a run, wherever in the mesh it is.
    Cancel {
        /// The run's id.
        run: String,
        /// How to reach a node.
        #[command(flatten)]
        reach: Reach,
    },
}

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EventFormat {
    /// For people: one line each.
    Pretty,
    /// JSON, indented.
    Json,
    /// JSON, one line each, as they came.
    Ndjson,
}

//! The command line: nouns and verbs, their options, nothing decided yet.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A peer-to-peer runtime mesh node: see the fleet, ask, act and audit from any node.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 configuration, 4 unreachable, 5 denied, 6 conflict, 7 partly done, 8 timed out.
#[derive(Debug, Parser)]
#[command(name = "trust-runtime", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The top verbs and nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node from a project folder; on an empty folder, make one first.
    Play(Play),
    /// Check a project's runtime.toml without starting anything.
    Validate(Validate),
    /// Show how a running node does.
    Status(Reach),
    /// See, approve and forget the peers of a running node.
    #[command(subcommand)]
    Peers(Peers),
    /// Control a running node.
    #[command(subcommand)]
    Ctl(Ctl),
    /// Verify and export a project's audit log, offline.
    #[command(subcommand)]
    Audit(Audit),
    /// Ask a project's rules why something is allowed or denied, and run their tests, offline.
    #[command(subcommand)]
    Policy(Policy),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// `play`.
#[derive(Debug, Args)]
pub struct Play {
    /// The project folder.
    #[arg(long, value_name = "DIR")]
    pub project: PathBuf,
    /// Write the bound addresses, runtime id and process id here as JSON once the node serves.
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

/// `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// The project folder.
    #[arg(long, value_name = "DIR")]
    pub project: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How to reach a running node.
#[derive(Debug, Args)]
pub struct Reach {
    /// The node's project folder: its address and its local admin token are found there.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    pub project: Option<PathBuf>,
    /// The node's address, such as http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", required_unless_present = "project")]
    pub url: Option<String>,
    /// A file that holds the bearer token; without it the environment variable TRUST_RUNTIME_TOKEN is used.
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `peers`.
#[derive(Debug, Subcommand)]
pub enum Peers {
    /// List every runtime that the node knows.
    List(Reach),
    /// Trust a peer whose key you have compared.
    Approve {
        /// The peer, as `name` or `site/name`.
        runtime: String,
        /// The key you compared: 64 hexadecimal digits.
        #[arg(long, value_name = "HEX")]
        fingerprint: Option<String>,
        /// How to reach the node.
        #[command(flatten)]
        reach: Reach,
    },
    /// Forget a peer and its pinned key.
    Forget {
        /// The peer, as `name` or `site/name`.
        runtime: String,
        /// How to reach the node.
        #[command(flatten)]
        reach: Reach,
    },
}

/// `ctl`.
#[derive(Debug, Subcommand)]
pub enum Ctl {
    /// Show how the node does.
    Status(Reach),
    /// Show the live settings: all, or one.
    ConfigGet {
        /// The setting, such as log.level.
        key: Option<String>,
        /// How to reach the node.
        #[command(flatten)]
        reach: Reach,
    },
    /// Change one live setting.
    ConfigSet {
        /// The setting, such as log.level.
        key: String,
        /// Its value; a number and true or false are taken as such, all else as text.
        value: String,
        /// How to reach the node.
        #[command(flatten)]
        reach: Reach,
    },
    /// Stop the node.
    Shutdown(Reach),
    /// Accept the node's wall clock as it is.
    TimeReset(Reach),
}

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Check both chains: is every record unchanged, are all there, are records and boots without a gap?
    ///
    /// Ends with 1 where one of the answers is no, and names the first record concerned.
    Verify {
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// A folder of checkpoints that were kept elsewhere: only they show that an earlier copy was brought back.
        #[arg(long, value_name = "DIR")]
        checkpoints: Option<PathBuf>,
        /// The file of the log's public key; without it audit.vkey beside the checkpoints, then the one beside the log.
        #[arg(long, value_name = "PATH")]
        key: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the records as JSON lines to standard output, oldest first.
    Export {
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// Instead of the records, write the newest signed checkpoint and the public key into this folder.
        #[arg(long, value_name = "DIR")]
        checkpoints: Option<PathBuf>,
        /// For the sake of scripts: JSON lines are the only form.
        #[arg(long)]
        json: bool,
    },
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Say which rule decides a question, what the other rules lack, and the smallest change that would allow it.
    ///
    /// Ends with 0 where this file allows it and with 5 where it denies it.
    Explain(Explain),
    /// Ask the questions of [[runtime.cloud.wan.test]] and show each answer.
    ///
    /// Ends with 1 where an answer is not the wanted one; a node refuses such a file.
    Test {
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `policy explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The project folder.
    #[arg(long, value_name = "DIR")]
    pub project: PathBuf,
    /// Who asks: `<site>/<principal>` or a SPIFFE ID.
    #[arg(long, value_name = "ACTOR")]
    pub actor: String,
    /// What for: status_read, cfg_apply or cmd_invoke/<command>.
    #[arg(long, value_name = "ACTION")]
    pub action: String,
    /// On which runtime, as `name` or `site/name`; without it, on the project's own.
    #[arg(long, value_name = "RUNTIME")]
    pub target: Option<String>,
    /// A parameter; a number and true or false are taken as such, all else as text. May be given several times.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
    /// When, such as 2030-01-31T08:00:00Z; without it, now.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Which end is asked: this runtime as the origin, as the target, or each end that this file decides.
    #[arg(long, value_name = "SIDE", default_value = "both")]
    pub side: AskedSide,
    /// The role of the asker's credential: viewer, operator, engineer or admin.
    #[arg(long, value_name = "ROLE", default_value = "engineer")]
    pub role: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which end of an action is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AskedSide {
    /// `accept_write`, this runtime being the target.
    Inbound,
    /// `allow_write`, this runtime being the origin.
    Outbound,
    /// Each end that this file decides.
    Both,
}

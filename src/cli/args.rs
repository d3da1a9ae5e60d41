//! The command line: nouns and verbs, their options, nothing decided yet.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::domain::identity::Role;
use crate::domain::identity::token::TokenId;

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
    /// Make, list and revoke a project's bearer tokens, whether its node runs or not.
    #[command(subcommand)]
    Token(Token),
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
    /// Read the node's files again; what is not valid is named and changes nothing.
    Reload(Reach),
    /// Stop the node.
    Shutdown(Reach),
    /// Accept the node's wall clock as it is.
    TimeReset(Reach),
}

/// `token`.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and show it once; only its digest is kept.
    Create(TokenCreate),
    /// List the tokens: whom each stands for, until when, and when it was last used.
    List {
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token.
    Revoke {
        /// Its id, as `token list` shows it: 8 hexadecimal digits.
        id: TokenId,
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `token create`.
#[derive(Debug, Args)]
pub struct TokenCreate {
    /// The project folder.
    #[arg(long, value_name = "DIR")]
    pub project: PathBuf,
    /// What it may do at most: viewer, operator, engineer or admin.
    #[arg(long)]
    pub role: Role,
    /// Whom it stands for: a principal of this site, such as alice, or site/* for anybody of the site.
    #[arg(long, value_name = "PRINCIPAL")]
    pub actor: String,
    /// After how many days it is worth nothing; without it the token holds until it is revoked.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    pub expires_days: Option<u16>,
    /// What it is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Check both chains from the first record to the last; name the first broken one.
    Verify {
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the records as JSON lines to standard output, oldest first.
    Export {
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// For the sake of scripts: JSON lines are the only form.
        #[arg(long)]
        json: bool,
    },
}

//! The command line: nouns and verbs, their options, nothing decided yet.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cli::run_args::Runs;
use crate::cli::token_args::Token;

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
    /// List, show, follow and cancel runs.
    #[command(subcommand)]
    Runs(Runs),
    /// Control a running node.
    #[command(subcommand)]
    Ctl(Ctl),
    /// Verify and export a project's audit log, offline.
    #[command(subcommand)]
    Audit(Audit),
    /// Make and keep the identities of a site without SPIRE: an offline authority in a folder.
    #[command(subcommand)]
    Identity(Identity),
    /// Make, list and revoke a project's bearer tokens, whether its node runs or not.
    #[command(subcommand)]
    Token(Token),
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
    /// The CA certificates, in PEM, by which an https address is verified; with --project the project's own are used.
    #[arg(long, value_name = "PATH")]
    pub ca: Option<PathBuf>,
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

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Check all chains: is every record unchanged, are all there, are records and boots without a gap?
    ///
    /// Ends with 1 where one of the answers is no, and names the first record concerned.
    Verify {
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// A folder of checkpoints that were kept elsewhere, such as what `audit export` gave on a peer: they show that an
        /// earlier copy was brought back.
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
        /// Instead of the records, write the newest signed checkpoint, the heads of peers' logs that are kept here, and their
        /// public keys into this folder.
        #[arg(long, value_name = "DIR")]
        checkpoints: Option<PathBuf>,
        /// For the sake of scripts: JSON lines are the only form.
        #[arg(long)]
        json: bool,
    },
}

/// `identity`.
#[derive(Debug, Subcommand)]
pub enum Identity {
    /// Make a site's authority in a folder: its key, its certificate, an empty list of bans.
    InitSite {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// The site that the authority speaks for.
        #[arg(long)]
        site: String,
        /// How ids are written.
        #[command(flatten)]
        naming: NamingArgs,
        /// How long the authority's certificate holds.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=30))]
        years: u32,
    },
    /// Make a key and a certificate for it in one go, for a node or an actor.
    Issue {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// For whom.
        #[command(flatten)]
        subject: SubjectArgs,
        /// How long the certificate holds [default: 30 for a node, half a day for an actor].
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=397), conflicts_with = "minutes")]
        days: Option<u32>,
        /// The same in minutes, for lives below a day.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: Option<u32>,
        /// The folder in which key, certificate and anchors are put.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// On the node: make a key that never leaves it and a request for a certificate; show the key's fingerprint as words.
    ///
    /// Beside the key it is noted whose answer the node takes: that of the join token's authority, or nobody's until
    /// `accept`. In profiles plant and wan the node does not start with another one.
    Enrol {
        /// For whom.
        #[command(flatten)]
        subject: SubjectArgs,
        /// How ids are written.
        #[command(flatten)]
        naming: NamingArgs,
        /// The folder in which key and request are put; a key that is there is kept.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The file of a join token, or - for standard input: binds the request to it, so that nobody has to compare words.
        #[arg(long, value_name = "PATH")]
        join_token: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// At the authority: issue the certificate that a request asks for, once its fingerprint has been compared.
    Approve {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// The request's file.
        #[arg(long, value_name = "PATH")]
        request: PathBuf,
        /// The words that the node showed, or the fingerprint's 64 digits; without it the request is only shown.
        #[arg(long, value_name = "WORDS")]
        fingerprint: Option<String>,
        /// How long the certificate holds [default: 30 for a node, half a day for an actor].
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=397), conflicts_with = "minutes")]
        days: Option<u32>,
        /// The same in minutes, for lives below a day.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: Option<u32>,
        /// The folder in which certificate and anchors are put [default: the request's].
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// At the authority: make or list tokens by which somebody joins once.
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// At the authority: issue what a request asks for that was bound to a join token, and use the token up.
    Redeem {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// The request's file; the proof lies beside it.
        #[arg(long, value_name = "PATH")]
        request: PathBuf,
        /// How long the certificate holds [default: 30 for a node, half a day for an actor].
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=397), conflicts_with = "minutes")]
        days: Option<u32>,
        /// The same in minutes, for lives below a day.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: Option<u32>,
        /// The folder in which certificate and anchors are put [default: the request's].
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// On the node: check that the anchors that came back are those of the authority, before the node is started with them.
    ///
    /// Whoever carries them might exchange them together with the certificate. They are compared with the join token, or with
    /// the words that the authority showed when it issued the certificate; without either nothing is accepted. What is
    /// accepted is noted beside the keys that `enrol` has made there, and asked by their nodes at each start.
    Accept {
        /// The folder with the anchors.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The site that was joined.
        #[arg(long)]
        site: String,
        /// The file of the join token, or - for standard input.
        #[arg(long, value_name = "PATH", conflicts_with = "anchors")]
        join_token: Option<PathBuf>,
        /// The words of the anchors as the authority showed them, heard by another way than the files came, or their 64 digits.
        #[arg(long, value_name = "WORDS")]
        anchors: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// At the authority: issue the next certificate of a node for the same key, as a node that holds the authority does.
    ///
    /// Only for a certificate of this authority that still holds and is nearing its end; it is printed as PEM.
    Renew {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// The certificate in force; - reads it from standard input.
        #[arg(long, value_name = "PATH")]
        certificate: PathBuf,
    },
    /// Change the authority's key in steps, so that no node is ever cut off.
    #[command(subcommand)]
    Rotate(Rotate),
    /// Shut out a certificate, a key or an id.
    Ban {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// What is shut out.
        #[command(flatten)]
        what: BanArgs,
        /// Why, for whoever reads the list.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// At the authority: write the site's trust bundle as a signed file, for partners and for the own nodes.
    ExportBundle {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// Where it is written; without it `bundle-<site>.json` in the authority's folder.
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
        /// How long a partner may rely on the file without a newer one.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=397))]
        days: u32,
        /// How often partners are to ask the site's bundle endpoint, in seconds.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(5..=86_400))]
        refresh_hint_s: u32,
    },
    /// On a node: take a partner's signed bundle, whether the node runs or not.
    ImportBundle {
        /// The file that the partner's authority has written.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Whose bundle it is to be: a partner of the settings.
        #[arg(long)]
        site: String,
        /// The project folder.
        #[arg(long, value_name = "DIR")]
        project: PathBuf,
        /// The words that the partner's authority showed, or the 64 digits: for the first bundle, which nothing known vouches for.
        #[arg(long, value_name = "WORDS")]
        fingerprint: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the authority, what it has issued, what nears its end and what is banned.
    List {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
    },
}

/// `identity join-token`.
#[derive(Debug, Subcommand)]
pub enum JoinToken {
    /// Make a token for one node or actor of this site; it is shown once, and only a hash of it is kept.
    Create {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// The node that may join with it; * for any.
        #[arg(long, value_name = "NAME", required_unless_present = "actor", conflicts_with = "actor")]
        node: Option<String>,
        /// The actor that may join with it; * for any.
        #[arg(long, value_name = "NAME")]
        actor: Option<String>,
        /// How long it can be used.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: u32,
    },
    /// Show which there are: open, redeemed, revoked, expired.
    List {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
    },
    /// Take a token back before anybody has used it.
    Revoke {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// Its id, as `list` shows it.
        id: String,
    },
}

/// `identity rotate`.
#[derive(Debug, Subcommand)]
pub enum Rotate {
    /// Make the next key; the anchors name both from now on. Bring them to every node before the next step.
    Prepare(Ca),
    /// Issue with the next key from now on; the anchors still name both. Renew every certificate before the next step.
    Activate(Ca),
    /// Take the old key out of the anchors and remove it.
    Retire {
        /// The authority's folder and the form of the answer.
        #[command(flatten)]
        ca: Ca,
        /// Retire it although certificates that it has issued still hold.
        #[arg(long)]
        force: bool,
    },
}

/// An authority's folder, and the form of the answer.
#[derive(Debug, Args)]
pub struct Ca {
    /// The authority's folder.
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How ids are written.
#[derive(Debug, Args)]
pub struct NamingArgs {
    /// The trust domain, as in runtime.identity.trust_domain.
    #[arg(long, default_value = "trust")]
    pub trust_domain: String,
    /// Where an id says its site, as in runtime.identity.mapping.
    #[arg(long, default_value = "path-site")]
    pub mapping: MappingArg,
}

/// Where an id says its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MappingArg {
    /// spiffe://trust/site/name.
    PathSite,
    /// spiffe://site.trust/name.
    DomainSite,
}

/// For whom a certificate is.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// A node, as `site/name`; at its authority the name will do.
    #[arg(long, value_name = "SITE/NAME", required_unless_present = "actor", conflicts_with = "actor")]
    pub node: Option<String>,
    /// A person or a program, as `site/principal`; at its authority the principal will do.
    #[arg(long, value_name = "SITE/PRINCIPAL")]
    pub actor: Option<String>,
    /// A DNS name under which the node is reached; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// An address under which the node is reached; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<std::net::IpAddr>,
}

/// What is shut out.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct BanArgs {
    /// One certificate, by its fingerprint as `identity list` shows it.
    #[arg(long, value_name = "HEX")]
    pub certificate: Option<String>,
    /// Every certificate with this key, by the key's fingerprint.
    #[arg(long, value_name = "HEX")]
    pub key: Option<String>,
    /// Every certificate with this SPIFFE ID.
    #[arg(long, value_name = "SPIFFE-ID")]
    pub id: Option<String>,
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
    /// What for: status_read, cfg_apply or cmd_invoke/COMMAND.
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

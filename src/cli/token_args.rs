//! The command line of `token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::domain::identity::Role;
use crate::domain::identity::token::{Audience, TokenId};

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
    /// Which listener takes it: public, or admin for the separate one of `[runtime.admin]`.
    #[arg(long, default_value_t)]
    pub audience: Audience,
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

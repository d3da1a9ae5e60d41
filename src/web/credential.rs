//! The credentials that open this node, replaced as a whole while it serves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::domain::identity::token::{self, TokenId, TokenRecord, Tokens};
use crate::domain::time::Wall;

/// The bearer tokens that stand for this site's admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admins {
    /// SHA-256 of the one that the node has made for its owner, who has the state folder.
    pub own: [u8; 32],
    /// SHA-256 of the one that the settings name.
    pub configured: Option<[u8; 32]>,
}

/// What a bearer token turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// The one in the settings, which stands for this site's admin.
    Admin,
    /// The one in the state folder, which stands for the same.
    Owner,
    /// One of the node's own tokens.
    Token(Box<TokenRecord>),
}

/// What is held at one moment.
#[derive(Debug)]
struct Held {
    admins: Admins,
    tokens: Tokens,
}

/// Every credential of one node, shared by its listener and whoever reloads it.
#[derive(Debug)]
pub struct Credentials {
    held: ArcSwap<Held>,
    /// Counts the replacements.
    changes: watch::Sender<u64>,
    used: Mutex<BTreeMap<TokenId, Wall>>,
}

impl Credentials {
    /// Begins with those that stand for `spiffe://<trust-domain>/<site>/admin`, and the node's own tokens.
    pub fn new(admins: Admins, tokens: Tokens) -> Self {
        let held = ArcSwap::from_pointee(Held { admins, tokens });
        Self { held, changes: watch::Sender::new(0), used: Mutex::default() }
    }

    /// SHA-256 of the token that the node has made for its owner.
    pub fn owner(&self) -> [u8; 32] {
        self.held.load().admins.own
    }

    /// Replaces that one, by the SHA-256 of another.
    pub fn replace_owner(&self, own: [u8; 32]) {
        let held = self.held.load();
        let admins = Admins { own, ..held.admins.clone() };
        self.replace(Held { admins, tokens: held.tokens.clone() });
    }

    /// Replaces the node's own tokens.
    pub fn replace_tokens(&self, tokens: Tokens) {
        let admins = self.held.load().admins.clone();
        self.replace(Held { admins, tokens });
    }

    /// A request that comes later is judged by the new ones, and whoever follows something is judged again.
    fn replace(&self, held: Held) {
        self.held.store(Arc::new(held));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells of every replacement from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// When each token was last taken, since the start.
    pub fn uses(&self) -> BTreeMap<TokenId, Wall> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a presented text is. Nothing, too, is hashed and compared, so that every wrong credential costs the same.
    pub(crate) fn find(&self, presented: &[u8], now: Wall) -> Option<Known> {
        let held = self.held.load();
        let given = token::digest(presented);
        let is_owner = token::is_equal(&held.admins.own, &given);
        let is_admin = token::is_equal(&held.admins.configured.unwrap_or_default(), &given);
        let record = held.tokens.find(presented, now);
        if is_owner && !presented.is_empty() {
            return Some(Known::Owner);
        }
        if is_admin && !presented.is_empty() && held.admins.configured.is_some() {
            return Some(Known::Admin);
        }
        let record = record?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(record.id, now);
        Some(Known::Token(Box::new(record.clone())))
    }
}

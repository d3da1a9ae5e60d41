//! The credentials that open this node, replaced as a whole while it serves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::domain::identity::token::{self, TokenId, TokenRecord, Tokens};
use crate::domain::time::Wall;

/// What a bearer token turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// One that stands for this site's admin.
    Admin,
    /// One of the node's own tokens.
    Token(Box<TokenRecord>),
}

/// What is held at one moment.
#[derive(Debug, Default)]
struct Held {
    admin: Vec<[u8; 32]>,
    tokens: Tokens,
}

/// Every credential of one node, shared by its listener and whoever reloads it.
#[derive(Debug, Default)]
pub struct Credentials {
    held: ArcSwap<Held>,
    used: Mutex<BTreeMap<TokenId, Wall>>,
}

impl Credentials {
    /// Begins with SHA-256 of every token that stands for `spiffe://<trust-domain>/<site>/admin`, and the node's own tokens.
    pub fn new(admin: Vec<[u8; 32]>, tokens: Tokens) -> Self {
        Self { held: ArcSwap::from_pointee(Held { admin, tokens }), used: Mutex::default() }
    }

    /// Replaces the node's own tokens. A request that comes later is judged by the new ones.
    pub fn replace_tokens(&self, tokens: Tokens) {
        let admin = self.held.load().admin.clone();
        self.held.store(Arc::new(Held { admin, tokens }));
    }

    /// When each token was last taken, since the start.
    pub fn uses(&self) -> BTreeMap<TokenId, Wall> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a presented text is. Nothing, too, is hashed and compared, so that every wrong credential costs the same.
    pub(crate) fn find(&self, presented: &[u8], now: Wall) -> Option<Known> {
        let held = self.held.load();
        let given = token::digest(presented);
        let is_admin = held.admin.iter().fold(false, |found, known| found | token::is_equal(known, &given));
        let record = held.tokens.find(presented, now);
        if is_admin && !presented.is_empty() {
            return Some(Known::Admin);
        }
        let record = record?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(record.id, now);
        Some(Known::Token(Box::new(record.clone())))
    }
}

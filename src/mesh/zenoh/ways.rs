//! Keys on which questions are asked again and again, made known to Zenoh: it finds the way of a known key once, and of any other
//! key anew for each question, by comparing it with everything that anybody listens to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, RwLock};

use zenoh::key_expr::KeyExpr;
use zenoh::{Session, Wait as _};

/// Most keys that are made known: each of two thousand peers asks and is asked (DESIGN, *Scale*). They stay so until the session
/// ends; further ones work, and are looked up each time.
const WAYS_MAX: usize = 4_096;

/// Most keys that wait to be made known.
const HEARD_MAX: usize = 64;

/// The keys of one session that were made known.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: RwLock<BTreeMap<String, KeyExpr<'static>>>,
    heard: Mutex<BTreeSet<String>>,
}

impl Ways {
    /// A key to ask on.
    pub(super) fn to(&self, session: &Session, key: String) -> zenoh::Result<KeyExpr<'static>> {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        // Held until the key is declared: Zenoh gives a second caller the key's number at once, and sends on it before it is known.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if WAYS_MAX <= known.len() {
            return KeyExpr::try_from(key);
        }
        let declared = session.declare_keyexpr(key.clone()).wait()?;
        known.insert(key, declared.clone());
        Ok(declared)
    }

    /// An envelope came on this key, was signed by whom the key names, and got its receipt: more will come. Callbacks own no
    /// session, so it waits for the next [`Ways::settle`].
    pub(super) fn hear(&self, key: &str) {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains_key(key) {
            return;
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < HEARD_MAX {
            heard.insert(key.to_owned());
        }
    }

    /// Makes the keys known that were heard.
    pub(super) fn settle(&self, session: &Session) {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        for key in heard {
            if let Err(error) = self.to(session, key) {
                tracing::debug!(%error, "a key was not made known");
            }
        }
    }
}

//! The credential makes the asker, before any handler. The body only names the actor, and the credential must cover it.
//!
//! Every bad credential gets the same answer at the same cost, whatever is wrong with it.

use std::hint::black_box;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, FORWARDED, HeaderName};
use sha2::{Digest, Sha256};

use super::error::{Kind, Problem};
use super::guard::only;
use super::serve::PeerAddress;
use super::{Auth, Options};
use crate::domain::code::Code;
use crate::domain::identity::{Actor, Role};
use crate::domain::policy::Denial;
use crate::domain::preflight::{Asker, Profile};
use crate::engine::view::View;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Longest token that is hashed: ours have 50 characters, and a header may have 64 KiB.
const TOKEN_BYTES_MAX: usize = 1_024;

/// What a token is kept as.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Who asks, as far as the credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// An admin token of this node.
    Admin(Actor),
    /// Nobody in particular on this machine. Holds the actor that stands for whoever names none.
    Local(Actor),
}

impl Caller {
    pub(crate) const fn role(&self) -> Role {
        match self {
            Self::Admin(_) => Role::Admin,
            Self::Local(_) => Role::Engineer,
        }
    }

    /// The asker where the request names no actor.
    pub(crate) fn asker(&self) -> Asker {
        let (Self::Admin(actor) | Self::Local(actor)) = self;
        self.asker_as(actor.clone())
    }

    fn asker_as(&self, actor: Actor) -> Asker {
        Asker { actor, role: self.role(), is_verified: matches!(self, Self::Admin(_)) }
    }

    /// The asker that a body names, if the credential covers it.
    pub(crate) fn asker_for(&self, actor: &Actor) -> Result<Asker, Denial> {
        let is_covered = match self {
            Self::Admin(own) => actor == own,
            Self::Local(own) => actor.site == own.site && actor.trust_domain == own.trust_domain,
        };
        if is_covered {
            return Ok(self.asker_as(actor.clone()));
        }
        let covered = match self {
            Self::Admin(own) => own.to_string(),
            Self::Local(own) => format!("spiffe://{}/{}/*", own.trust_domain, own.site),
        };
        let reason = format!("the credential covers {covered}, not {actor}");
        Err(Denial::at_origin(Code::PermissionDenied, "credential", reason))
    }
}

/// Who sends these headers.
pub(crate) fn identify(
    options: &Options,
    view: &View,
    headers: &HeaderMap,
    peer: Option<&PeerAddress>,
) -> Result<Caller, Problem> {
    let bad = || Problem::new(Kind::BadCredential, "wanted a valid credential");
    if is_anonymous(headers) {
        return local(options, view, headers, peer).ok_or_else(bad);
    }
    let token = only(headers, &AUTHORIZATION).and_then(|value| token(value.as_bytes())).unwrap_or_default();
    // Nothing, too, is hashed and compared, so that every wrong credential costs the same.
    let presented: [u8; 32] = Sha256::digest(token).into();
    let is_known = options.admin_tokens.iter().fold(false, |found, known| found | is_equal(known, &presented));
    if is_known && !token.is_empty() {
        return actor(view, "admin").map(Caller::Admin).ok_or_else(bad);
    }
    Err(bad())
}

/// The asker in whose name a bad credential goes on record: nobody is known.
pub(crate) fn nobody(view: &View) -> Option<Asker> {
    Some(Asker { actor: actor(view, "unknown")?, role: Role::Viewer, is_verified: false })
}

/// Whether no credential was presented at all.
pub(crate) fn is_anonymous(headers: &HeaderMap) -> bool {
    !headers.contains_key(AUTHORIZATION)
}

fn token(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

fn is_equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let differing = left.iter().zip(right).fold(0, |found, (left, right)| black_box(found | (left ^ right)));
    black_box(differing) == 0
}

/// A caller without a credential: only in `dev`, only where settings say so, only from this machine and not through a proxy,
/// behind which everybody would look local.
fn local(options: &Options, view: &View, headers: &HeaderMap, peer: Option<&PeerAddress>) -> Option<Caller> {
    let is_local = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    let is_proxied = headers.contains_key(FORWARDED) || headers.contains_key(X_FORWARDED_FOR);
    let may = options.auth == Auth::Local && view.settings.profile == Profile::Dev && is_local && !is_proxied;
    if may { actor(view, "local").map(Caller::Local) } else { None }
}

fn actor(view: &View, principal: &str) -> Option<Actor> {
    let site = view.me().site.clone();
    Some(Actor { trust_domain: view.settings.trust_domain.clone(), site, principal: principal.parse().ok()? })
}

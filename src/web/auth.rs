//! The credential makes the asker, before any handler. The body only names the actor, and the credential must cover it.
//!
//! Every bad credential gets the same answer at the same cost, whatever is wrong with it.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, FORWARDED, HeaderName};

use super::credential::Known;
use super::error::{Kind, Problem};
use super::guard::only;
use super::rate::Holder;
use super::serve::PeerAddress;
use super::{Auth, Options, Surface, secure};
use crate::domain::code::Code;
use crate::domain::identity::token::{self, Audience, TokenRecord};
use crate::domain::identity::{Actor, Role};
use crate::domain::policy::{Denial, actor_name};
use crate::domain::preflight::{Asker, Profile};
use crate::domain::time::Wall;
use crate::engine::view::View;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Longest token that is hashed: ours have 50 characters, and a header may have 64 KiB.
const TOKEN_BYTES_MAX: usize = 1_024;

/// What a token is kept as.
pub fn digest(token: &str) -> [u8; 32] {
    token::digest(token.as_bytes())
}

/// Who asks, as far as the credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Whoever has the admin token of the settings.
    Admin(Actor),
    /// Nobody in particular on this machine. Holds the actor that stands for whoever names none.
    Local(Actor),
    /// Whoever holds a certificate of an actor, with what is granted to that actor here.
    Certificate(Actor, Role),
    /// Whoever has the admin token that the node has made for its owner.
    Owner(Actor),
    /// One of the node's own tokens. Holds the actor that stands for whoever names none.
    Token(Box<TokenRecord>, Actor),
}

impl Caller {
    pub(crate) const fn role(&self) -> Role {
        match self {
            Self::Admin(_) | Self::Owner(_) => Role::Admin,
            Self::Local(_) => Role::Engineer,
            Self::Token(record, _) => record.role,
            Self::Certificate(_, role) => *role,
        }
    }

    /// Whose requests these are counted among.
    pub(crate) fn holder(&self) -> Holder {
        match self {
            Self::Admin(_) => Holder::Admin,
            Self::Owner(_) => Holder::Owner,
            Self::Local(_) => Holder::Local,
            Self::Token(record, _) => Holder::Token(record.id),
            Self::Certificate(actor, _) => Holder::Certificate(actor.clone()),
        }
    }

    /// Whether this credential is for what is served here. A listener takes no credential of the other one, but for that of
    /// who has the node's own files.
    pub(crate) fn opens(&self, surface: &Surface) -> bool {
        let audience = match self {
            Self::Owner(_) => return true,
            Self::Token(record, _) => record.audience,
            Self::Admin(_) | Self::Certificate(_, _) | Self::Local(_) => Audience::Public,
        };
        match surface {
            Surface::Admin { .. } => audience == Audience::Admin,
            Surface::Public => audience == Audience::Public,
        }
    }

    /// The asker where the request names no actor.
    pub(crate) fn asker(&self) -> Asker {
        let (Self::Admin(actor)
        | Self::Certificate(actor, _)
        | Self::Local(actor)
        | Self::Owner(actor)
        | Self::Token(_, actor)) = self;
        self.asker_as(actor.clone())
    }

    fn asker_as(&self, actor: Actor) -> Asker {
        Asker { actor, role: self.role(), is_verified: !matches!(self, Self::Local(_)) }
    }

    /// The asker that a body names, if the credential covers it.
    pub(crate) fn asker_for(&self, actor: &Actor) -> Result<Asker, Denial> {
        let is_covered = match self {
            Self::Admin(own) | Self::Certificate(own, _) | Self::Owner(own) => actor == own,
            Self::Local(own) => actor.site == own.site && actor.trust_domain == own.trust_domain,
            Self::Token(record, own) => actor.trust_domain == own.trust_domain && record.covers(actor),
        };
        if is_covered {
            return Ok(self.asker_as(actor.clone()));
        }
        let covered = match self {
            Self::Admin(own) | Self::Certificate(own, _) | Self::Owner(own) => own.to_string(),
            Self::Local(own) => format!("spiffe://{}/{}/*", own.trust_domain, own.site),
            Self::Token(record, own) => format!("spiffe://{}/{}", own.trust_domain, record.actor),
        };
        let reason = format!("the credential covers {covered}, not {actor}");
        Err(Denial::at_origin(Code::PermissionDenied, "credential", reason))
    }
}

/// What is known of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection<'a> {
    pub(crate) peer: Option<&'a PeerAddress>,
    pub(crate) certificate: Option<&'a secure::Caller>,
}

/// Who sends these headers. Nobody whom a ban names, whatever credential he has.
pub(crate) fn identify(
    options: &Options,
    view: &View,
    headers: &HeaderMap,
    connection: Connection<'_>,
    now: Wall,
) -> Result<Caller, Problem> {
    let caller = present(options, view, headers, connection, now)?;
    if view.is_banned(&caller.asker().actor) { Err(bad()) } else { Ok(caller) }
}

fn bad() -> Problem {
    Problem::new(Kind::BadCredential, "wanted a valid credential")
}

/// Whose credential it is.
fn present(
    options: &Options,
    view: &View,
    headers: &HeaderMap,
    connection: Connection<'_>,
    now: Wall,
) -> Result<Caller, Problem> {
    if is_anonymous(headers) {
        return match connection.certificate {
            // Whoever presents a certificate is who it says, or nobody: never somebody local instead.
            Some(caller) => certified(view, caller, now).ok_or_else(bad),
            None => local(options, view, headers, connection.peer).ok_or_else(bad),
        };
    }
    let token = only(headers, &AUTHORIZATION).and_then(|value| token(value.as_bytes())).unwrap_or_default();
    match options.credentials.find(token, now) {
        Some(Known::Admin) => actor(view, "admin").map(Caller::Admin).ok_or_else(bad),
        Some(Known::Owner) => actor(view, "admin").map(Caller::Owner).ok_or_else(bad),
        Some(Known::Token(record)) => {
            let stands_for = actor_of(view, &record).ok_or_else(bad)?;
            Ok(Caller::Token(record, stands_for))
        }
        None => Err(bad()),
    }
}

/// The holder of an actor's certificate, of whatever site's authority. What it may do is what is granted here: a certificate
/// says who somebody is and not what that one may.
fn certified(view: &View, caller: &secure::Caller, now: Wall) -> Option<Caller> {
    let actor = caller.actor(view, now)?;
    let is_own_site = actor.site == view.me().site;
    let name = actor_name(&actor);
    let granted =
        view.settings.grants.iter().filter(|(pattern, _)| pattern.matches(&name)).map(|(_, role)| *role).min();
    // A node vouches for the actors of its own site only.
    is_own_site.then(|| Caller::Certificate(actor, granted.unwrap_or(Role::Viewer)))
}

/// The actor of a request that names none: the token's only one, or one named after the token.
fn actor_of(view: &View, record: &TokenRecord) -> Option<Actor> {
    let pattern = record.actor.to_string();
    match pattern.split_once('/')?.1 {
        "*" => actor(view, &format!("token-{}", record.id)),
        principal => actor(view, principal),
    }
}

/// The asker in whose name a bad credential goes on record: nobody is known.
pub(crate) fn nobody(view: &View) -> Option<Asker> {
    Some(Asker { actor: actor(view, "unknown")?, role: Role::Viewer, is_verified: false })
}

/// Those headers by which a caller is known.
pub(crate) fn identifying(headers: &HeaderMap) -> HeaderMap {
    let kept = [AUTHORIZATION, FORWARDED, X_FORWARDED_FOR];
    let pairs = kept.iter().flat_map(|name| headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
    pairs.fold(HeaderMap::new(), |mut all, (name, value)| {
        all.append(name, value);
        all
    })
}

/// Whether no credential was presented at all.
pub(crate) fn is_anonymous(headers: &HeaderMap) -> bool {
    !headers.contains_key(AUTHORIZATION)
}

fn token(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && token.len() <= TOKEN_BYTES_MAX).then_some(token)
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

//! What the profiles `plant` and `wan` ask for before the node answers anything.
//!
//! A missing piece is no fault of the file: `validate` takes it, and `play` refuses to start, naming the setting. What can go
//! missing while a node runs, such as a certificate that ends, is asked again at each request (`web::promise`). A token that is there and worthless is a fault, because it looks like protection.

use crate::settings::problem::Faults;
use crate::settings::raw::Node;
use crate::settings::secret::Secret;
use crate::settings::table::Table;
use crate::settings::valid::{IdentitySource, Profile, Settings, TlsMode, WebAuth};

/// Shortest accepted token in plant and wan: 128 bits are 22 characters in base64.
pub const TOKEN_CHARS_MIN: usize = 24;

/// Fewest different characters of a token; random text of the least length has more with near certainty.
const TOKEN_DISTINCT_MIN: usize = 8;

/// Words of tokens that were meant to be replaced.
const PLACEHOLDERS: &[&str] = &[
    "change-me",
    "changeme",
    "change_me",
    "example",
    "insert",
    "password",
    "placeholder",
    "replace",
    "your-",
    "your_",
];

/// One thing that is missing before the node may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// The setting to change.
    pub setting: &'static str,
    /// Why it is not enough as it is.
    pub reason: String,
}

/// Everything that the settings lack, in the order in which to repair it.
///
/// What is there and protects less than it seems is listed beside it (`concern`).
///
/// Not only `plant` and `wan`: what is asked for in `dev` and cannot be served is listed too, so that nobody is given
/// something weaker in its place.
pub(crate) fn preconditions(settings: &Settings) -> Vec<Precondition> {
    let mut missing = Vec::new();
    let mut want = |is_met: bool, setting, reason: &str| {
        if !is_met {
            missing.push(Precondition { setting, reason: reason.to_owned() });
        }
    };
    if settings.profile != Profile::Dev {
        let web = &settings.web;
        want(web.auth == WebAuth::Token, "runtime.web.auth", "this profile wants \"token\"");
        want(settings.control.auth_token.is_some(), "runtime.control.auth_token", "this profile wants an admin token");
        want(settings.tls.mode != TlsMode::Disabled, "runtime.tls.mode", "this profile wants TLS certificates");
        want(web.tls, "runtime.web.tls", "this profile wants HTTPS");
        want(settings.mesh.tls || !settings.mesh.enabled, "runtime.mesh.tls", "this profile wants mesh links over TLS");
        let source = settings.identity.source;
        want(source != IdentitySource::Dev, "runtime.identity.source", "this profile wants an identity from a CA");
        let has_own = source == IdentitySource::Spire
            || settings.identity.anchors.iter().any(|anchor| anchor.site == *settings.site());
        want(has_own, "runtime.identity.anchors", "this profile wants the anchors of the own site");
    } else if settings.mesh.enabled && settings.mesh.tls {
        let has_certificate = settings.identity.source != IdentitySource::Dev;
        want(has_certificate, "runtime.identity.source", "links inside TLS want an identity from a CA");
    }
    let identity = &settings.identity;
    let is_known_by_certificates = identity.source != IdentitySource::Dev || identity.partners.is_empty();
    want(is_known_by_certificates, "runtime.identity.source", "partners are known by certificates, and this is none");
    want(
        settings.identity.source != IdentitySource::Spire || cfg!(feature = "spire"),
        "runtime.identity.source",
        "this program was built without the feature spire; \"files\" reads what the agent's helper writes",
    );
    missing
}

/// Refuses tokens that only look like protection, in the profiles that rely on them.
pub(crate) fn check_tokens(root: &Node, faults: &mut Faults) {
    if Table::of(root, "runtime.cloud").parsed::<Profile>("profile") == Some(Profile::Dev) {
        return;
    }
    for path in ["runtime.control", "runtime.mesh"] {
        let table = Table::of(root, path);
        if let Some(reason) = table.secret("auth_token").and_then(|token| weakness(&token)) {
            let suggestion = Some("make one with: openssl rand -hex 32".to_owned());
            faults.push_with(&table.at("auth_token"), table.key("auth_token"), reason, suggestion);
        }
    }
}

fn weakness(token: &Secret) -> Option<String> {
    let text = token.expose().to_ascii_lowercase();
    if PLACEHOLDERS.iter().any(|word| text.contains(word)) {
        return Some("wanted a token of your own, got a placeholder".to_owned());
    }
    let length = text.chars().count();
    if length < TOKEN_CHARS_MIN {
        return Some(format!("wanted at least {TOKEN_CHARS_MIN} characters in plant and wan, got {length}"));
    }
    let distinct: std::collections::BTreeSet<char> = text.chars().collect();
    (distinct.len() < TOKEN_DISTINCT_MIN).then(|| "wanted a random token, got one that repeats itself".to_owned())
}

//! Names: SPIFFE ids, actors, runtimes, request ids, patterns, and the closed sets of words.

use std::fmt::Display;
use std::str::FromStr;

use trust_runtime::domain::action::ActionKind;
use trust_runtime::domain::audit::{AuditId, Hash};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::id::{RequestId, RuntimeId, Segment, SiteId};
use trust_runtime::domain::identity::{Actor, Fingerprint, Role, SpiffeId, TrustDomain};
use trust_runtime::domain::policy::Pattern;

/// Whether it names an actor.
pub fn is_accepted(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| text.parse::<Actor>().is_ok())
}

/// Whatever is read displays back as the bytes that were sent: one name, one text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    reads_back::<SpiffeId>(text);
    reads_back::<TrustDomain>(text);
    reads_back::<Segment>(text);
    reads_back::<SiteId>(text);
    reads_back::<RuntimeId>(text);
    reads_back::<RequestId>(text);
    reads_back::<Pattern>(text);
    reads_back::<Fingerprint>(text);
    reads_back::<Hash>(text);
    reads_back::<AuditId>(text);
    reads_back::<Code>(text);
    reads_back::<Role>(text);
    reads_back::<ActionKind>(text);
    if let Some(actor) = reads_back::<Actor>(text) {
        let id: SpiffeId = text.parse().expect("an actor is a SPIFFE id");
        assert_eq!(id.path, [actor.site.to_string(), actor.principal.to_string()]);
        assert!(id.as_runtime().is_none(), "{text} is an actor and a runtime");
    }
    if let Some(pattern) = reads_back::<Pattern>(text) {
        // A pattern without a star is the name itself and no other.
        assert!(pattern.matches(text) || text.contains('*'), "{text} does not match itself");
    }
    let own: SiteId = "own".parse().expect("a site");
    if let Ok(runtime) = RuntimeId::parse_in(text, &own) {
        assert!(runtime.shown_in(&own) == text || runtime.to_string() == text, "{text} is shown as another name");
    }
}

fn reads_back<T: FromStr + Display>(text: &str) -> Option<T> {
    let read = text.parse::<T>().ok()?;
    assert_eq!(read.to_string(), text, "{} displays as other bytes", std::any::type_name::<T>());
    Some(read)
}

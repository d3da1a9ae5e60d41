//! Names: SPIFFE ids, actors, runtimes, request ids, patterns, and the closed sets of words.

use std::fmt::Display;
use std::str::FromStr;

use trust_runtime::domain::action::ActionKind;
use trust_runtime::domain::audit::{AuditId, Hash};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::id::{RequestId, RuntimeId, Segment, SiteId};
use trust_runtime::domain::identity::{Actor, Ban, Fingerprint, Mapping, Naming, Role, SpiffeId, TrustDomain};
use trust_runtime::domain::policy::Pattern;

/// Whether it names an actor.
pub fn is_accepted(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| text.parse::<Actor>().is_ok())
}

/// Whatever is read displays back as the bytes that were sent: one name, one text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    reads_back::<SpiffeId>(text);
    agrees_with_another_reader(text);
    names_one_subject(text);
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
    reads_back::<Ban>(text);
    let own: SiteId = "own".parse().expect("a site");
    if let Ok(runtime) = RuntimeId::parse_in(text, &own) {
        assert!(runtime.shown_in(&own) == text || runtime.to_string() == text, "{text} is shown as another name");
    }
}

/// What we take, another reader of SPIFFE ids takes as the same id. What it takes and we do not is one of the two things on
/// which we are stricter: it makes capitals of the scheme and the trust domain small, and has no limit on the whole.
fn agrees_with_another_reader(text: &str) {
    let ours = text.parse::<SpiffeId>();
    match (ours, spiffe::SpiffeId::new(text)) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(theirs.to_string(), text);
            assert_eq!(theirs.trust_domain_name(), ours.trust_domain.as_str());
            let path: String = ours.path.iter().map(|segment| format!("/{segment}")).collect();
            assert_eq!(theirs.path(), path);
        }
        (Ok(_), Err(error)) => panic!("{text} is an id here and none there: {error}"),
        (Err(error), Ok(theirs)) => {
            let is_stricter = theirs.to_string() != text || text.len() > 2_048;
            assert!(is_stricter, "{text} is an id there and none here: {error}");
        }
        (Err(_), Err(_)) => {}
    }
}

/// In each of the two forms an id names at most one subject, and that subject has this id and no other.
fn names_one_subject(text: &str) {
    let Ok(id) = text.parse::<SpiffeId>() else { return };
    let bases =
        [id.trust_domain.to_string(), id.trust_domain.as_str().split('.').skip(1).collect::<Vec<_>>().join(".")];
    for trust_domain in bases.iter().filter_map(|base| base.parse::<TrustDomain>().ok()) {
        for mapping in [Mapping::PathSite, Mapping::DomainSite] {
            let naming = Naming { trust_domain: trust_domain.clone(), mapping };
            if let Ok(subject) = naming.subject(&id) {
                assert_eq!(naming.id_of(&subject), Ok(id.clone()), "{text} as {subject}");
                assert_ne!(subject.as_runtime().is_some(), subject.as_principal().is_some());
            }
        }
    }
}

fn reads_back<T: FromStr + Display>(text: &str) -> Option<T> {
    let read = text.parse::<T>().ok()?;
    assert_eq!(read.to_string(), text, "{} displays as other bytes", std::any::type_name::<T>());
    Some(read)
}

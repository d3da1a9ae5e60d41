//! `[[runtime.identity.partner]]`: what an endpoint needs, and what is refused with the place of the fault.

use super::{faults, read};
use crate::domain::time::Millis;
use crate::settings::EndpointProof;
use crate::settings::profile::preconditions;

const SPIFFE: &str =
    "bundle_endpoint = \"https://10.0.0.7:8443/b\"\nendpoint_spiffe_id = \"spiffe://trust/south/runtime/gw\"";

fn partner(body: &str) -> String {
    format!("[[runtime.identity.partner]]\nsite = \"south\"\n{body}")
}

#[test]
fn an_endpoint_proves_itself_by_its_id_or_by_a_ca_and_a_stick_by_neither() {
    let one = |body: &str| {
        let identity = read(&partner(body)).expect("valid").identity;
        identity.partners.into_iter().next().expect("one")
    };
    let stick = one("");
    assert_eq!((stick.endpoint, stick.age_max), (None, Millis::from_hours(24)));
    let spiffe = one(SPIFFE).endpoint.expect("an endpoint");
    assert_eq!(spiffe.proof, EndpointProof::Runtime("south/gw".parse().expect("legal")));
    let web = one(
        "bundle_endpoint = \"https://south.example/b\"\nprofile = \"https_web\"\nca_path = \"ca.pem\"\nmax_age_s = 60",
    );
    assert_eq!(web.endpoint.expect("an endpoint").proof, EndpointProof::Web("ca.pem".into()));
    assert_eq!(web.age_max, Millis::from_secs(60));
}

#[test]
fn what_an_endpoint_lacks_or_cannot_be_is_named() {
    for (body, wanted) in [
        (SPIFFE.replace("https://", "http://"), "got another scheme"),
        (SPIFFE.replace("https://", "https://me:secret@"), "got a user name"),
        (SPIFFE.replace("10.0.0.7:8443", ""), "got no host"),
        (SPIFFE.replace("/b\"", "/b#c\""), "got a fragment"),
        (SPIFFE.replace("/b\"", "/b c\""), "characters that no address has"),
        (SPIFFE.replace("/south/runtime/", "/north/runtime/"), "of a runtime of site south"),
        (SPIFFE.replace("/south/runtime/", "/south/"), "of a runtime of site south"),
        (SPIFFE.replace("//trust/", "//other/"), "trust domain"),
        (SPIFFE.replace("spiffe://", "SPIFFE://"), "endpoint_spiffe_id"),
        ("bundle_endpoint = \"https://a/b\"".to_owned(), "wanted because of profile = \"https_spiffe\""),
        (
            "bundle_endpoint = \"https://a/b\"\nprofile = \"https_web\"".to_owned(),
            "wanted because of profile = \"https_web\"",
        ),
        (format!("{SPIFFE}\nca_path = \"ca.pem\""), "has no meaning"),
        ("profile = \"https_spiffe\"".to_owned(), "wanted a bundle_endpoint"),
        ("max_age_s = 9".to_owned(), "a whole number from 10"),
        ("[[runtime.identity.partner]]\nsite = \"south\"".to_owned(), "given twice"),
        ("[[runtime.identity.partner]]\nsite = \"default-site\"".to_owned(), "got the own one"),
    ] {
        let found = faults(&partner(&body));
        assert!(found.len() == 1 && found[0].contains(wanted), "{body}: wanted {wanted:?}, got {found:?}");
    }
}

#[test]
fn a_partner_is_known_by_certificates() {
    let missing = preconditions(&read(&partner("")).expect("valid"));
    assert!(missing.iter().any(|it| it.setting == "runtime.identity.source"), "{missing:?}");
    assert!(preconditions(&read("").expect("valid")).is_empty());
}

//! Bundles as SPIRE writes them (`bundle show -format spiffe`) and as its endpoint serves them: two authorities during a
//! rotation, other curves and RSA, keys for JWTs beside them. The files were made by another library than ours.

use serde_json::{Value as Json, json};
use trust_runtime::domain::id::SiteId;
use trust_runtime::domain::identity::bundle::{Bundle, Taken, Way};
use trust_runtime::domain::identity::{Mapping, Naming};
use trust_runtime::domain::time::Millis;
use trust_runtime::wire::bundle::{parse, render};

use crate::case_file::text;
use crate::world::{now, parsed};

/// Each with its number of authorities.
const FILES: [(&str, usize); 3] = [("p256", 2), ("p384", 1), ("rsa", 1)];

fn document(name: &str) -> Json {
    serde_json::from_str(&text(&format!("identity/spire_bundle_{name}.json"))).expect("JSON")
}

fn read(document: &Json) -> Bundle {
    parse(document.to_string().as_bytes()).expect("a bundle")
}

/// The entries for one use, as they stand.
fn entries(document: &Json, kind: &str) -> Vec<Json> {
    let keys = document["keys"].as_array().expect("a list");
    keys.iter().filter(|key| key["use"] == kind).cloned().collect()
}

/// Takes it as the bundle of a site that has a trust domain of its own, as SPIRE gives one to each.
fn take(bundle: Bundle) -> Result<Taken, String> {
    let naming = Naming { trust_domain: parsed("trust"), mapping: Mapping::DomainSite };
    let site: SiteId = parsed("site-a");
    Taken::after(None, bundle, Way::Endpoint, &naming, &site, now().wall).map_err(|refused| refused.to_string())
}

#[test]
fn what_spire_writes_is_read_and_keys_for_other_uses_are_passed_over() {
    for (name, count) in FILES {
        let document = document(name);
        let bundle = read(&document);
        assert_eq!((bundle.sequence, bundle.refresh_hint), (12, Some(Millis::from_secs(300))), "{name}");
        assert_eq!(bundle.authorities.len(), count, "{name}");
        assert_eq!(take(bundle.clone()).expect(name).bundle, bundle);
        // Without its keys for JWTs, or with those of a use that is yet to come, it says the same.
        let mut changed = document.clone();
        changed["keys"] = Json::from(entries(&document, "x509-svid"));
        assert_eq!(read(&changed), bundle, "{name}");
        let to_come = json!({ "use": "wit-svid", "kty": "EC", "kid": "1", "crv": "P-256", "x": "AA", "y": "AA" });
        changed["keys"].as_array_mut().expect("a list").insert(0, to_come);
        changed["spiffe_more"] = json!({ "nested": [1] });
        assert_eq!(read(&changed), bundle, "{name}");
    }
}

/// For the same authorities, what is served here is what SPIRE serves, parameter by parameter.
#[test]
fn what_is_served_is_what_spire_would_serve() {
    for (name, _) in FILES {
        let document = document(name);
        let served = render(&read(&document)).expect(name);
        let served: Json = serde_json::from_slice(&served).expect("JSON");
        let mut wanted = document.clone();
        wanted["keys"] = Json::from(entries(&document, "x509-svid"));
        assert_eq!(served, wanted, "{name}");
    }
}

#[test]
fn a_bundle_without_authorities_takes_all_of_them_back_and_one_without_a_number_is_none() {
    let document = document("p256");
    let with = |name: &str, value: Option<Json>| {
        let mut changed = document.clone();
        changed.as_object_mut().expect("an object").remove(name);
        changed.as_object_mut().expect("an object").extend(value.map(|value| (name.to_owned(), value)));
        changed
    };
    let jwt_alone = with("keys", Some(Json::from(entries(&document, "jwt-svid"))));
    for emptied in [jwt_alone, with("keys", Some(json!([])))] {
        assert!(take(read(&emptied)).expect("taken").bundle.authorities.is_empty());
    }
    assert_eq!(read(&with("spiffe_refresh_hint", None)).refresh_hint, None);
    assert!(parse(with("spiffe_sequence", None).to_string().as_bytes()).is_err());
    // Another trust domain's: an authority that says whose it is counts for nobody else.
    let naming = Naming { trust_domain: parsed("trust"), mapping: Mapping::DomainSite };
    let elsewhere = Taken::after(None, read(&document), Way::Endpoint, &naming, &parsed("site-b"), now().wall);
    assert!(elsewhere.is_err(), "{elsewhere:?}");
}

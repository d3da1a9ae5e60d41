//! Trust bundles: the rows of the table that are about them, what is malformed, and which bundle may come after which.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, SigningKey};
use rustls_pki_types::CertificateDer;
use serde_json::{Value as Json, json};
use trust_runtime::domain::id::SiteId;
use trust_runtime::domain::identity::bundle::{
    self, Bundle, REFRESH_DEFAULT, REFRESH_MIN, Refused, Stale, Standing, Taken, Way, is_signed_by_any,
};
use trust_runtime::domain::identity::{Ban, Bans, Fingerprint, Mapping, Naming, TrustDomain};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::wire::bundle::{
    BUNDLE_BYTES_MAX, KEYS_MAX, Sealed, Statement, parse, payload, read_kept, render, seal, write_kept,
};

use crate::case_file::{assert_none, rows};
use crate::minted::signing;
use crate::world::{now, parsed};

fn naming() -> Naming {
    Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite }
}

fn site() -> SiteId {
    parsed("site-a")
}

fn domain() -> TrustDomain {
    parsed("trust")
}

fn anchor() -> CertificateDer<'static> {
    signing("site-a", |_| {}).1
}

fn bundle(sequence: u64, authorities: Vec<CertificateDer<'static>>) -> Bundle {
    Bundle { sequence, refresh_hint: Some(Millis::from_secs(60)), authorities }
}

fn entry(der: &CertificateDer<'_>) -> Json {
    json!({ "use": "x509-svid", "kty": "EC", "crv": "P-256", "x5c": [STANDARD.encode(der)] })
}

fn read(value: &Json) -> Result<Bundle, String> {
    parse(value.to_string().as_bytes()).map_err(|fault| fault.to_string())
}

fn after(known: Option<&Taken>, bundle: Bundle, way: Way) -> Result<Taken, Refused> {
    Taken::after(known, bundle, way, &naming(), &site(), now().wall)
}

/// What the table calls `elsewhere: bundles`, each by its code.
#[test]
fn every_row_about_bundles_has_its_verdict() {
    let mut wrong = Vec::new();
    let mut judged = 0;
    for row in rows("identity/x509_svids.tsv") {
        let [_, name, .., place] = row.as_slice() else { panic!("too few columns in {row:?}") };
        if place != "elsewhere: bundles" {
            continue;
        }
        judged += 1;
        let code = name.split(' ').next().expect("a code");
        if let Err(fault) = judge(code) {
            wrong.push(format!("{name}: {fault}"));
        }
    }
    assert_none(&wrong);
    assert_eq!(judged, 3, "the rows of the table");
}

fn judge(code: &str) -> Result<(), String> {
    let der = anchor();
    match code {
        "A10" => {
            let mut two = entry(&der);
            two["x5c"] = json!([STANDARD.encode(&der), "not base64 at all"]);
            let got = read(&json!({ "keys": [two], "spiffe_sequence": 1 }))?;
            if got.authorities == [der] { Ok(()) } else { Err(format!("{got:?}")) }
        }
        "R43" => {
            let known = after(None, bundle(5, vec![der.clone()]), Way::Endpoint).map_err(|error| error.to_string())?;
            let got = after(Some(&known), bundle(4, vec![der]), Way::Endpoint);
            let wanted = Err(Refused::GoesBack { known: 5, offered: 4 });
            if got == wanted { Ok(()) } else { Err(format!("{got:?}")) }
        }
        "R45" => {
            let mut all = Vec::new();
            for (name, value) in
                [("use", Some("jwt-svid")), ("use", None), ("kty", Some("new")), ("kty", None), ("x5c", None)]
            {
                let mut one = entry(&der);
                let object = one.as_object_mut().expect("an object");
                object.remove(name);
                object.extend(value.map(|value| (name.to_owned(), Json::from(value))));
                all.push(one);
            }
            let got = read(&json!({ "keys": all, "spiffe_sequence": 1 }))?;
            let taken = after(None, got, Way::Endpoint).map_err(|error| error.to_string())?;
            if taken.bundle.authorities.is_empty() { Ok(()) } else { Err(format!("{taken:?}")) }
        }
        other => Err(format!("no case {other}")),
    }
}

#[test]
fn what_is_malformed_refuses_the_whole_bundle() {
    let der = anchor();
    let good = json!({ "keys": [entry(&der)], "spiffe_sequence": 7, "spiffe_refresh_hint": 60, "more": [1] });
    assert_eq!(read(&good), Ok(bundle(7, vec![der.clone()])));
    let with = |name: &str, value: Json| {
        let mut changed = good.clone();
        changed[name] = value;
        changed.to_string()
    };
    let entry_with = |name: &str, value: Json| {
        let mut changed = entry(&der);
        changed[name] = value;
        with("keys", json!([entry(&der), changed]))
    };
    let many = |count: usize| with("keys", Json::from(vec![json!({ "use": "jwt-svid" }); count]));
    assert!(parse(many(KEYS_MAX).as_bytes()).is_ok());
    let depth = |levels: usize| {
        format!("{{\"keys\":[],\"spiffe_sequence\":1,\"deep\":{}{}}}", "[".repeat(levels), "]".repeat(levels))
    };
    assert!(parse(depth(100).as_bytes()).is_ok());
    let doubled = good.to_string().replacen('{', "{\"spiffe_sequence\":9,", 1);
    for (text, wanted) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "an object"),
        (format!("{good} {good}"), "trailing"),
        (with("keys", Json::Null), "\"keys\""),
        (with("keys", json!({})), "\"keys\""),
        (with("keys", json!(["x"])), "key 1: wanted an object"),
        (with("spiffe_sequence", Json::Null), "spiffe_sequence"),
        (with("spiffe_sequence", json!(-1)), "spiffe_sequence"),
        (with("spiffe_sequence", json!(1.5)), "spiffe_sequence"),
        (with("spiffe_sequence", json!("7")), "spiffe_sequence"),
        (with("spiffe_refresh_hint", json!("60")), "spiffe_refresh_hint"),
        (with("spiffe_refresh_hint", Json::Null), "spiffe_refresh_hint"),
        (entry_with("kid", json!("a")), "key 2: wanted no \"kid\""),
        (entry_with("x5c", json!([])), "key 2: wanted a certificate"),
        (entry_with("x5c", json!("AAAA")), "key 2: wanted a certificate"),
        (entry_with("x5c", json!(["AA-_"])), "key 2: wanted base64"),
        (many(KEYS_MAX + 1), "at most 64 keys"),
        (depth(10_000), "recursion limit"),
        (with("more", json!("x".repeat(BUNDLE_BYTES_MAX))), "at most"),
        (doubled, "duplicate key"),
    ] {
        let shown: String = text.chars().take(80).collect();
        let got = parse(text.as_bytes()).map_err(|fault| fault.to_string());
        assert!(got.as_ref().is_err_and(|fault| fault.contains(wanted)), "{shown}: {got:?}");
    }
}

#[test]
fn what_is_served_is_what_is_read_and_has_the_keys_own_parameters() {
    let given = bundle(u64::MAX, vec![anchor(), anchor()]);
    let bytes = render(&given).expect("written");
    assert_eq!(parse(&bytes), Ok(given));
    let value: Json = serde_json::from_slice(&bytes).expect("JSON");
    let key = &value["keys"][0];
    assert_eq!((&key["kty"], &key["crv"], &key["use"]), (&json!("EC"), &json!("P-256"), &json!("x509-svid")));
    assert_eq!((key["x"].as_str().map(str::len), key["y"].as_str().map(str::len)), (Some(43), Some(43)));
    assert!(key.get("kid").is_none(), "{key}");
}

#[test]
fn a_number_has_one_content_and_a_site_has_authorities_or_none() {
    let (one, two) = (anchor(), anchor());
    let known = after(None, bundle(5, vec![one.clone(), two.clone()]), Way::Endpoint).expect("the first");
    assert!(
        after(Some(&known), bundle(5, vec![two.clone(), one.clone(), two.clone()]), Way::Endpoint).is_ok(),
        "order says nothing"
    );
    let other = after(Some(&known), bundle(5, vec![two.clone()]), Way::Endpoint);
    assert_eq!(other, Err(Refused::SameSequence(5)));
    assert!(after(Some(&known), bundle(6, vec![two.clone()]), Way::Endpoint).is_ok());
    let none = after(Some(&known), bundle(7, Vec::new()), Way::Endpoint).expect("all taken back");
    assert_eq!(
        after(Some(&none), bundle(6, vec![two]), Way::Endpoint),
        Err(Refused::GoesBack { known: 7, offered: 6 })
    );

    let leaf = crate::minted::case("A01").chain.remove(0);
    for wrong in [vec![leaf], vec![CertificateDer::from(b"no certificate".to_vec())], vec![one; 9]] {
        let got = after(None, bundle(1, wrong), Way::Endpoint);
        assert!(matches!(got, Err(Refused::Anchors(_))), "{got:?}");
    }
}

#[test]
fn writes_rest_on_a_bundle_that_is_fresh_and_a_clock_that_is_not_behind_it() {
    let now = now().wall;
    let day = Millis::from_hours(24);
    let later = |hours| now.plus(Millis::from_hours(hours));
    assert_eq!(Standing::default().check(now), Err(Stale::Never));

    let fetched = after(None, bundle(5, vec![anchor()]), Way::Endpoint).expect("taken");
    let standing = fetched.standing(day);
    for (at, wanted) in [
        (now, Ok(())),
        (later(24), Ok(())),
        (later(24).plus(Millis(1)), Err(Stale::Over(Millis(day.0 + 1)))),
        (now.minus(Millis::from_secs(300)), Ok(())),
        (now.minus(Millis::from_secs(301)), Err(Stale::Ahead)),
        (Wall(0), Err(Stale::Ahead)),
        (Wall(u64::MAX), standing.check(Wall(u64::MAX))),
    ] {
        assert_eq!(standing.check(at), wanted, "{at}");
    }
    assert!(standing.check(Wall(u64::MAX)).is_err());

    let file = |expires| after(None, bundle(5, vec![anchor()]), Way::File { expires });
    assert_eq!(file(now.minus(Millis(1))), Err(Refused::Expired));
    assert!(file(now).expect("in its last moment").standing(day).check(now).is_ok());
    let in_file = file(later(48)).expect("taken").standing(day);
    assert!(in_file.check(later(48)).is_ok() && in_file.check(later(49)).is_err());
    let forever = file(Wall(u64::MAX)).expect("taken").standing(day);
    // 397 days.
    let longest = Millis::from_hours(9_528);
    assert!(forever.check(now.plus(longest)).is_ok() && forever.check(now.plus(longest).plus(day)).is_err());
}

#[test]
fn a_confirmation_adds_to_what_is_known_and_a_new_set_begins_anew() {
    let (now, day, der) = (now().wall, Millis::from_hours(24), anchor());
    let expires = now.plus(Millis::from_hours(48));
    let by_file = after(None, bundle(5, vec![der.clone()]), Way::File { expires }).expect("taken");
    let both = after(Some(&by_file), bundle(5, vec![der.clone()]), Way::Endpoint).expect("confirmed");
    assert_eq!((both.file_expires, both.endpoint_at), (None, Some(now)), "the endpoint speaks for itself");
    let again = after(Some(&both), bundle(5, vec![der.clone()]), Way::File { expires }).expect("the same");
    assert_eq!((again.file_expires, again.endpoint_at), (Some(expires), Some(now)), "a person says that it holds");
    let shorter = Way::File { expires: now.plus(Millis::from_hours(1)) };
    let again = after(Some(&again), bundle(5, vec![der.clone()]), shorter).expect("the same");
    assert_eq!(again.file_expires, Some(expires), "an earlier file takes nothing back");
    let next = after(Some(&again), bundle(6, vec![der, anchor()]), Way::Endpoint).expect("new");
    assert_eq!(next.file_expires, None, "the file spoke of another set");

    assert!(bundle::is_worth_keeping(None, &both, day) && bundle::is_worth_keeping(Some(&both), &next, day));
    assert!(!bundle::is_worth_keeping(Some(&both), &both, day), "nothing new");
    let later = Taken { confirmed: now.plus(Millis::from_hours(3)), ..both.clone() };
    assert!(bundle::is_worth_keeping(Some(&both), &later, day), "an eighth of the age");
}

/// An endpoint that falls silent stops writes, however long a file from before would have lasted.
#[test]
fn a_file_does_not_outlive_the_endpoint_that_has_spoken_after_it() {
    let (now, day, der) = (now().wall, Millis::from_hours(24), anchor());
    let later = |hours| now.plus(Millis::from_hours(hours));
    let at = |known, way, now| {
        Taken::after(Some(known), bundle(5, vec![der.clone()]), way, &naming(), &site(), now).expect("taken")
    };
    let file = Way::File { expires: later(90 * 24) };
    let imported = after(None, bundle(5, vec![der.clone()]), file).expect("taken");
    assert!(imported.standing(day).check(later(48)).is_ok(), "no endpoint has spoken");
    let spoken = at(&imported, Way::Endpoint, later(1));
    assert!(bundle::is_worth_keeping(Some(&imported), &spoken, day), "a restart must not bring the file back");
    assert_eq!(spoken.standing(day).check(later(25)), Ok(()));
    assert!(matches!(spoken.standing(day).check(later(26)), Err(Stale::Over(_))), "it is silent");
    let by_hand = at(&spoken, file, later(26));
    assert_eq!(by_hand.standing(day).check(later(60)), Ok(()), "a person says that it holds");
    assert!(at(&by_hand, Way::Endpoint, later(61)).standing(day).check(later(86)).is_err(), "it has spoken again");
}

/// What a clock that ran ahead has noted ends with the next confirmation by the right time, and lengthens nothing.
#[test]
fn a_clock_that_ran_ahead_is_mended_by_the_next_confirmation() {
    let (now, day, der) = (now().wall, Millis::from_hours(24), anchor());
    let later = |hours| now.plus(Millis::from_hours(hours));
    let at = |known: Option<&Taken>, way, now| {
        Taken::after(known, bundle(5, vec![der.clone()]), way, &naming(), &site(), now).expect("taken")
    };
    let ahead = at(None, Way::Endpoint, later(9_000));
    assert_eq!(ahead.standing(day).check(now), Err(Stale::Ahead));
    let fetched = at(Some(&ahead), Way::Endpoint, now);
    assert!(bundle::is_worth_keeping(Some(&ahead), &fetched, day), "it has to outlast the next start");
    assert_eq!(fetched.standing(day).check(now), Ok(()));
    assert!(fetched.standing(day).check(later(25)).is_err());
    let imported = at(Some(&ahead), Way::File { expires: later(1) }, now);
    assert_eq!(imported.standing(day).check(now), Ok(()));
    assert!(imported.standing(day).check(later(2)).is_err(), "the endpoint has not said so in the future");
    let a_little = at(None, Way::Endpoint, now.plus(Millis::from_secs(300)));
    assert!(
        !bundle::is_worth_keeping(Some(&a_little), &at(Some(&a_little), Way::Endpoint, now), day),
        "within the skew"
    );
}

#[test]
fn a_partner_is_asked_neither_in_a_loop_nor_too_late() {
    let day = Millis::from_hours(24);
    for (hint, age_max, wanted) in [
        (None, day, REFRESH_DEFAULT),
        (Some(0), day, REFRESH_MIN),
        (Some(600), day, Millis::from_secs(600)),
        (Some(u64::MAX / 1_000), day, Millis::from_hours(6)),
        (Some(600), Millis::from_secs(10), REFRESH_MIN),
    ] {
        assert_eq!(bundle::refresh_after(hint.map(Millis::from_secs), age_max), wanted, "{hint:?} {age_max:?}");
    }
}

/// A signed file of `site`, and the message that was signed.
fn signed(site: &str, bundle: Bundle, keys: &[&KeyPair]) -> Vec<u8> {
    let issued = now().wall;
    let expires = issued.plus(Millis::from_hours(24));
    let statement = Statement { site: parsed(site), trust_domain: domain(), issued, expires, bundle };
    let (payload, message) = payload(&statement).expect("written");
    let sign = |key: &&KeyPair| (Fingerprint([0; 32]), key.sign(&message).expect("signed"));
    seal(&payload, &keys.iter().map(sign).collect::<Vec<_>>())
}

#[test]
fn a_file_is_believed_by_the_signature_of_an_authority_that_counts() {
    let (key, der) = signing("site-a", |_| {});
    let (other_key, other) = signing("site-a", |_| {});
    let (over_key, over) = signing("site-a", |it| it.not_after = it.not_before + time::Duration::hours(1));
    let given = bundle(5, vec![der.clone(), other.clone()]);
    let bytes = signed("site-a", given.clone(), &[&key]);
    let sealed = Sealed::read(&bytes).expect("read");
    assert_eq!(sealed.open().expect("opened").bundle, given);
    let holds = |sealed: &Sealed, known: &[CertificateDer<'_>], bans: &Bans| {
        sealed.signatures().iter().any(|it| is_signed_by_any(known, &domain(), bans, now().wall, &sealed.message(), it))
    };
    let none = Bans::default();
    assert!(holds(&sealed, &[other.clone(), der.clone()], &none));
    assert!(!holds(&sealed, std::slice::from_ref(&other), &none), "known, and has not signed");
    assert!(!holds(&sealed, &[], &none), "nobody is known");
    let mut bans = Bans::default();
    bans.add(Ban::Certificate(Fingerprint::of_der(&der)));
    assert!(!holds(&sealed, std::slice::from_ref(&der), &bans), "banned");
    let both = Sealed::read(&signed("site-a", given.clone(), &[&other_key, &over_key])).expect("read");
    assert!(!holds(&both, &[over], &none), "over");
    assert!(holds(&both, &[other], &none));

    // Any byte of the payload is under the signature.
    let value: Json = serde_json::from_slice(&bytes).expect("JSON");
    let text = STANDARD.decode(value["payload"].as_str().expect("text")).expect("base64");
    let changed = String::from_utf8(text).expect("text").replace("site-a", "site-b");
    let mut forged = value.clone();
    forged["payload"] = Json::from(STANDARD.encode(changed));
    let forged = Sealed::read(forged.to_string().as_bytes()).expect("read");
    assert!(!holds(&forged, &[der], &none));
    assert_ne!(forged.fingerprint(), sealed.fingerprint());
}

#[test]
fn a_file_of_another_kind_or_with_more_than_is_known_is_refused() {
    let (key, der) = signing("site-a", |_| {});
    let bytes = signed("site-a", bundle(5, vec![der]), &[&key]);
    let value: Json = serde_json::from_slice(&bytes).expect("JSON");
    for (name, other) in [
        ("payloadType", json!("application/vnd.trust-runtime.receipt.v1+json")),
        ("payload", json!("%")),
        ("signatures", json!([])),
        ("signatures", json!([{ "sig": "AAAA" }, 1])),
        ("signatures", Json::from(vec![json!({ "sig": "AAAA" }); 9])),
    ] {
        let mut changed = value.clone();
        changed[name] = other.clone();
        assert!(Sealed::read(changed.to_string().as_bytes()).is_err(), "{name}: {other}");
    }
    let payload = STANDARD.decode(value["payload"].as_str().expect("text")).expect("base64");
    let payload: Json = serde_json::from_slice(&payload).expect("JSON");
    for (name, other) in [
        ("site", json!("a/b")),
        ("trust_domain", json!("Trust")),
        ("expires", json!(-1)),
        ("issued", Json::Null),
        ("bundle", json!([])),
        ("more", json!(1)),
    ] {
        let mut changed = payload.clone();
        changed[name] = other.clone();
        let mut file = value.clone();
        file["payload"] = Json::from(STANDARD.encode(changed.to_string()));
        let sealed = Sealed::read(file.to_string().as_bytes()).expect("an envelope");
        assert!(sealed.open().is_err(), "{name}: {other}");
    }
}

#[test]
fn what_is_kept_reads_back_for_its_own_site_alone() {
    let expires = now().wall.plus(Millis::from_hours(1));
    let by_file = after(None, bundle(5, vec![anchor()]), Way::File { expires }).expect("taken");
    let fetched = after(None, bundle(5, Vec::new()), Way::Endpoint).expect("taken");
    for taken in [by_file, fetched] {
        let bytes = write_kept(&site(), &domain(), &taken).expect("written");
        assert_eq!(read_kept(&bytes, &site(), &domain()), Ok(taken));
        assert!(read_kept(&bytes, &parsed("site-b"), &domain()).is_err());
        assert!(read_kept(&bytes, &site(), &parsed("other")).is_err());
        let text = String::from_utf8(bytes).expect("text");
        for (from, to) in [("\"version\": 1", "\"version\": 2"), ("\"confirmed_ms\": ", "\"confirmed_ms\": -")] {
            let changed = text.replace(from, to);
            assert!(changed != text && read_kept(changed.as_bytes(), &site(), &domain()).is_err(), "{to}");
        }
    }
}

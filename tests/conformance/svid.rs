//! Certificates as identities: each row of the table is made for real and held against the anchors that it names.

use std::collections::BTreeSet;

use trust_runtime::domain::identity::anchors::{Refusal, Trust, Usage};
use trust_runtime::domain::identity::{Ban, Fingerprint, Mapping, Naming};

use crate::case_file::{assert_none, rows};
use crate::minted::{Case, case};
use crate::world::{now, parsed};

/// Rows about something other than one chain, and where they are held.
const ELSEWHERE: &str = "elsewhere: ";

/// Who the chain is, or the rule that refuses it.
fn judge(case: &Case) -> Result<String, String> {
    let mut trust = Trust::new(Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite });
    for (domain, site, certificates) in &case.anchors {
        let set = trust.anchors.set(parsed(domain), parsed(site), certificates);
        set.map_err(|fault| format!("{fault:?}"))?;
    }
    for ban in &case.bans {
        trust.bans.add(ban.clone());
    }
    let verified = trust.verify_chain(&case.chain, now().wall, Usage::Client).map_err(|refusal| format!("{refusal:?}"));
    verified.map(|it| it.svid.id.to_string())
}

#[test]
fn every_row_has_its_verdict_and_its_reason() {
    let mut wrong = Vec::new();
    let mut judged = 0;
    for row in rows("identity/x509_svids.tsv") {
        let [verdict, name, .., refusal] = row.as_slice() else { panic!("too few columns in {row:?}") };
        if refusal.starts_with(ELSEWHERE) {
            continue;
        }
        judged += 1;
        let code = name.split(' ').next().expect("a code");
        let is_met = match (verdict.as_str(), judge(&case(code))) {
            ("accept", Ok(_)) => continue,
            ("reject", Err(got)) => got.starts_with(refusal).then_some(()).ok_or(got),
            (_, got) => Err(format!("{got:?}")),
        };
        if let Err(got) = is_met {
            wrong.push(format!("{name}: wanted {verdict} {refusal}, got {got}"));
        }
    }
    assert_none(&wrong);
    assert!(judged > 60, "only {judged} rows were judged");
}

#[test]
fn an_accepted_chain_says_who_it_is_and_until_when() {
    let case = case("A08");
    let mut trust = Trust::new(Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite });
    let [(_, _, certificates)] = case.anchors.as_slice() else { panic!("one anchor") };
    trust.set_anchors(parsed("site-a"), certificates).expect("an anchor");
    let verified = trust.verify_chain(&case.chain, now().wall, Usage::Server).expect("accepted");
    assert_eq!(verified.svid.id.to_string(), "spiffe://trust/site-a/alice");
    assert_eq!(verified.svid.subject.to_string(), "actor site-a/alice");
    assert_eq!(verified.svid.certificate, Fingerprint::of_der(&case.chain[0]));
    assert_eq!(verified.svid.key, Fingerprint::of_der(&verified.svid.public_key));
    assert_eq!(verified.anchor, Fingerprint::of_der(&certificates[0]));
    // The intermediate ends before the leaf does, and a session ends with it.
    assert!(verified.until < verified.svid.not_after, "{verified:?}");
}

#[test]
fn a_ban_names_its_certificate_and_a_lifted_one_is_forgotten() {
    let mut banned = case("R54");
    let refused = judge(&banned).expect_err("banned");
    assert!(refused.contains(&Fingerprint::of_der(&banned.chain[0]).to_string()), "{refused}");
    banned.bans.clear();
    assert!(judge(&banned).is_ok());
    banned.bans.push(Ban::of_id(&parsed("spiffe://trust/site-a/bob")));
    assert!(judge(&banned).is_ok(), "somebody else is banned");
}

#[test]
fn a_site_with_a_trust_domain_of_its_own_is_read_by_that_form_alone() {
    let case = case("domain-site");
    let judge = |mapping| {
        let mut trust = Trust::new(Naming { trust_domain: parsed("trust"), mapping });
        let [(_, _, certificates)] = case.anchors.as_slice() else { panic!("one anchor") };
        trust.set_anchors(parsed("site-a"), certificates).map_err(|fault| fault.to_string())?;
        let verified = trust.verify_chain(&case.chain, now().wall, Usage::Client);
        verified.map(|it| it.svid.subject.to_string()).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(judge(Mapping::DomainSite).as_deref(), Ok("runtime site-a/r1"));
    let refused = judge(Mapping::PathSite).expect_err("another form");
    assert!(refused.contains("trust domain"), "{refused}");
}

#[test]
fn the_anchors_of_a_site_are_replaced_removed_and_limited_as_a_whole() {
    // The table's case with two anchors of one site, and a chain of the older one.
    let case = case("A12");
    let [(_, _, both)] = case.anchors.as_slice() else { panic!("one site") };
    let mut trust = Trust::new(Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite });
    let (domain, site) = (parsed("trust"), parsed("site-a"));
    let set = |trust: &mut Trust, certificates: &[_]| trust.set_anchors(parsed("site-a"), certificates);
    let names =
        |trust: &Trust| trust.anchors.of_site(&domain, &site).iter().map(|it| it.certificate).collect::<BTreeSet<_>>();
    set(&mut trust, both).expect("two anchors");
    assert_eq!(names(&trust), both.iter().map(|der| Fingerprint::of_der(der)).collect());
    set(&mut trust, &vec![both[0].clone(); 8]).expect("eight");
    assert_eq!(names(&trust).len(), 1, "the new set is in place of the old one, and one certificate is one anchor");
    for wrong in [vec![both[0].clone(); 9], Vec::new(), vec![both[1].clone(), case.chain[0].clone()]] {
        assert!(set(&mut trust, &wrong).is_err());
        assert_eq!(names(&trust), BTreeSet::from([Fingerprint::of_der(&both[0])]), "nothing changed");
    }
    assert!(trust.verify_chain(&case.chain, now().wall, Usage::Client).is_ok());
    trust.anchors.remove(&domain, &site);
    assert!(matches!(trust.verify_chain(&case.chain, now().wall, Usage::Client), Err(Refusal::NoAnchor { .. })));
}

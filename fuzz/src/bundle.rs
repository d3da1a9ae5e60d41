//! Trust bundles: what an endpoint answers, what comes on a stick, and what lies on the disk.

use trust_runtime::domain::id::SiteId;
use trust_runtime::domain::identity::bundle::{Taken, Way};
use trust_runtime::domain::identity::{Mapping, Naming, TrustDomain};
use trust_runtime::domain::time::Wall;
use trust_runtime::wire::bundle::{BUNDLE_BYTES_MAX, KEYS_MAX, SIGNED_BYTES_MAX, Sealed, parse, read_kept, write_kept};

/// Whether it is a bundle, signed or not.
pub fn is_accepted(data: &[u8]) -> bool {
    parse(data).is_ok() || Sealed::read(data).is_ok_and(|sealed| sealed.open().is_ok())
}

/// What is read is within its limits, and what may be kept reads back as it was.
pub fn run(data: &[u8]) {
    let site: SiteId = "site-a".parse().expect("a site");
    let trust_domain: TrustDomain = "trust".parse().expect("a trust domain");
    let naming = Naming { trust_domain: trust_domain.clone(), mapping: Mapping::PathSite };
    if let Ok(sealed) = Sealed::read(data) {
        assert!(data.len() <= SIGNED_BYTES_MAX);
        assert!((1..=8).contains(&sealed.signatures().len()));
        // Two that say the same are the same by their fingerprints, which are of the bytes.
        assert_eq!(sealed.open(), sealed.clone().open());
    }
    if let Ok(kept) = read_kept(data, &site, &trust_domain) {
        keep(&kept, &site, &trust_domain);
    }
    let Ok(bundle) = parse(data) else { return };
    assert!(data.len() <= BUNDLE_BYTES_MAX && bundle.authorities.len() <= KEYS_MAX);
    if let Ok(taken) = Taken::after(None, bundle, Way::Endpoint, &naming, &site, Wall(0)) {
        keep(&taken, &site, &trust_domain);
        let older = trust_runtime::domain::identity::bundle::Bundle {
            sequence: taken.bundle.sequence.saturating_sub(1),
            ..taken.bundle.clone()
        };
        let is_older = older.sequence < taken.bundle.sequence;
        let again = Taken::after(Some(&taken), older, Way::Endpoint, &naming, &site, Wall(0));
        assert_ne!(again.is_ok(), is_older, "a number went back");
    }
}

fn keep(taken: &Taken, site: &SiteId, trust_domain: &TrustDomain) {
    let Ok(bytes) = write_kept(site, trust_domain, taken) else { return };
    let again = read_kept(&bytes, site, trust_domain).expect("what was written is read");
    assert_eq!(again.bundle.sequence, taken.bundle.sequence);
    assert_eq!(again.bundle.authorities, taken.bundle.authorities);
}

//! Until when one can rely on the certificates of others.

use crate::domain::identity::svid;
use crate::domain::time::{Millis, Wall};
use crate::tls::support::{NOW, Site, trust};

fn in_days(days: u64) -> Wall {
    NOW.plus(Millis::from_hours(days.saturating_mul(24)))
}

/// A site whose authority is being replaced has two, and is missed when both have ended.
#[test]
fn the_first_site_to_lose_its_last_anchor_says_when_anchors_end() {
    let (old, new, other) = (Site::ending("north", 2), Site::ending("north", 8), Site::ending("south", 5));
    let north = "north".parse().expect("a site");
    let mut trust = trust(&[&old, &other]);
    assert_eq!(trust.anchors.ends(), Some(in_days(2)));
    trust.set_anchors(north, &[old.anchor(), new.anchor()]).expect("anchors");
    assert_eq!(trust.anchors.ends(), Some(in_days(5)));
    trust.set_anchors("south".parse().expect("a site"), &[Site::ending("south", 11).anchor()]).expect("anchors");
    assert_eq!(trust.anchors.ends(), Some(in_days(8)));
}

#[test]
fn a_certificate_of_whatever_profile_says_when_it_ends() {
    assert_eq!(svid::end_of(&Site::ending("north", 4).anchor()), Some(in_days(4)));
    assert_eq!(svid::end_of(b"no certificate"), None);
}

//! Whose word about identities counts: anchors by trust domain and site, and the path from a certificate to one of them.
//!
//! The anchors of different sites are never pooled: a chain is held against those of the site that its leaf names, so that the
//! authority of one plant cannot make an identity of another, though both share a trust domain. A site may have several
//! anchors at once, the oldest first: that is how its authority is changed in two steps without a moment in which half of the
//! plant does not know the other half.

use std::collections::BTreeMap;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::EndEntityCert;

use crate::domain::id::SiteId;
use crate::domain::identity::svid::{self, Fault, Signer, Svid};
use crate::domain::identity::{Ban, Bans, Fingerprint, Naming, NamingError, TrustDomain};
use crate::domain::time::Wall;

/// Most certificates in one chain: a leaf and three that signed. SPIRE's nested authorities have no more in practice.
pub const CHAIN_MAX: usize = 4;
/// Most anchors of one site: a rotation needs two, a nested authority that changes too needs four.
pub const ANCHORS_PER_SITE_MAX: usize = 8;

/// What a chain is presented for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// By whoever calls, or signs.
    Client,
    /// By whoever is called.
    Server,
}

/// Why a certificate cannot be an anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorFault {
    /// None was given.
    #[error("site {0} has no anchor: give its CA's certificate")]
    None(SiteId),
    /// More than there is a reason for.
    #[error("site {site} has {got} anchors, at most {ANCHORS_PER_SITE_MAX}: remove those that are retired")]
    TooMany {
        /// The site.
        site: SiteId,
        /// How many.
        got: usize,
    },
    /// One of them breaks the profile.
    #[error("anchor {position} of site {site}: {fault}")]
    Profile {
        /// The site.
        site: SiteId,
        /// Which one, counted from 1.
        position: usize,
        /// The rule.
        fault: Fault,
    },
    /// The site has no trust domain.
    #[error("{0}")]
    Naming(#[from] NamingError),
}

/// Why a chain was refused. Each text names the rule and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was presented.
    #[error("no certificate was presented: present one that the site's CA has issued")]
    Nothing,
    /// More certificates than a chain may have.
    #[error("a chain has at most {CHAIN_MAX} certificates, this one has {0}: leave out what the path does not need")]
    ChainTooLong(usize),
    /// The leaf breaks the profile.
    #[error("the certificate: {0}")]
    Leaf(#[source] Fault),
    /// A certificate above the leaf breaks the profile.
    #[error("certificate {position} of the chain: {fault}")]
    Signer {
        /// Which one; the leaf is 1.
        position: usize,
        /// The rule.
        fault: Fault,
    },
    /// Nobody speaks for this site here.
    #[error("no anchor for site {site} in trust domain {trust_domain}: add the site to runtime.identity.anchors")]
    NoAnchor {
        /// The leaf's trust domain.
        trust_domain: TrustDomain,
        /// The leaf's site.
        site: SiteId,
    },
    /// There are anchors, and none may be used now.
    #[error("every anchor of site {0} has expired, is not valid yet or is banned: fetch the site's present anchors")]
    AnchorsOver(SiteId),
    /// The site's anchors did not sign it.
    #[error(
        "no anchor of site {0} has issued it as it is: have it issued by that site's CA, or renew the site's anchors"
    )]
    UnknownIssuer(SiteId),
    /// A certificate on the path is over.
    #[error("it has expired: renew it, and compare the clocks")]
    Expired,
    /// A certificate on the path has not begun.
    #[error("it is not valid yet: compare the clocks")]
    NotYetValid,
    /// The path does not hold for another reason.
    #[error("its path to the anchor does not hold ({0:?}): have it issued anew")]
    Path(webpki::Error),
    /// Somebody has shut it out.
    #[error("it is banned ({0}): issue one with a new key, or lift the ban")]
    Banned(Ban),
}

/// An identity with a path to an anchor of its own site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who it is.
    pub svid: Svid,
    /// The anchor that the path ends at: while a site changes its authority this tells which of the two still vouches.
    pub anchor: Fingerprint,
    /// Until when: the first end of all certificates on the path. A session must not outlive it.
    pub until: Wall,
}

/// A CA's certificate whose word counts for one site.
#[derive(Debug, Clone)]
struct Anchor {
    signer: Signer,
    trust: TrustAnchor<'static>,
}

/// The anchors of all sites, each by itself.
#[derive(Debug, Clone, Default)]
pub struct Anchors(BTreeMap<(TrustDomain, SiteId), Vec<Anchor>>);

impl Anchors {
    /// Sets the anchors of a site, in place of those that it had. On a fault nothing changes.
    pub fn set(
        &mut self,
        trust_domain: TrustDomain,
        site: SiteId,
        certificates: &[CertificateDer<'_>],
    ) -> Result<(), AnchorFault> {
        if certificates.is_empty() {
            return Err(AnchorFault::None(site));
        }
        if certificates.len() > ANCHORS_PER_SITE_MAX {
            return Err(AnchorFault::TooMany { site, got: certificates.len() });
        }
        let mut anchors = Vec::new();
        for (index, der) in certificates.iter().enumerate() {
            let position = index.saturating_add(1);
            let profile = |fault| AnchorFault::Profile { site: site.clone(), position, fault };
            let signer = svid::read_signer(der, &trust_domain).map_err(profile)?;
            let trust = webpki::anchor_from_trusted_cert(der);
            let trust = trust.map_err(|error| profile(Fault::Malformed(format!("{error:?}"))))?;
            anchors.push(Anchor { signer, trust: trust.to_owned() });
        }
        anchors.sort_by_key(|anchor| (anchor.signer.not_before, anchor.signer.certificate));
        anchors.dedup_by_key(|anchor| anchor.signer.certificate);
        self.0.insert((trust_domain, site), anchors);
        Ok(())
    }

    /// Sets the anchors of a site to those that it has there, and to none where it has none.
    pub fn keep(&mut self, from: &Self, trust_domain: &TrustDomain, site: &SiteId) {
        let key = (trust_domain.clone(), site.clone());
        match from.0.get(&key) {
            Some(anchors) => drop(self.0.insert(key, anchors.clone())),
            None => drop(self.0.remove(&key)),
        }
    }

    /// Ends what a site could vouch for.
    pub fn remove(&mut self, trust_domain: &TrustDomain, site: &SiteId) {
        self.0.remove(&(trust_domain.clone(), site.clone()));
    }

    /// Every site that somebody may vouch for, in order, with its anchors' certificates, the oldest first.
    pub(super) fn all(
        &self,
    ) -> impl ExactSizeIterator<Item = (&TrustDomain, &SiteId, impl ExactSizeIterator<Item = Fingerprint>)> {
        self.0.iter().map(|((trust_domain, site), anchors)| {
            (trust_domain, site, anchors.iter().map(|anchor| anchor.signer.certificate))
        })
    }

    /// When the first site has no anchor any more that holds. One that ends beside its successor is missed by nobody: whoever
    /// is still vouched for by it sees that in his own certificate.
    pub fn ends(&self) -> Option<Wall> {
        self.0.values().filter_map(|anchors| anchors.iter().map(|anchor| anchor.signer.not_after).max()).min()
    }

    /// The anchors of a site, the oldest first.
    pub fn of_site(&self, trust_domain: &TrustDomain, site: &SiteId) -> Vec<&Signer> {
        let anchors = self.0.get(&(trust_domain.clone(), site.clone()));
        anchors.into_iter().flatten().map(|anchor| &anchor.signer).collect()
    }
}

/// All that decides about a chain, as one value that is changed as a whole.
#[derive(Debug, Clone)]
pub struct Trust {
    /// How ids are read.
    pub naming: Naming,
    /// Who may vouch.
    pub anchors: Anchors,
    /// Who is shut out.
    pub bans: Bans,
}

impl Trust {
    /// Trusts nobody yet.
    pub fn new(naming: Naming) -> Self {
        Self { naming, anchors: Anchors::default(), bans: Bans::default() }
    }

    /// Sets the anchors of a site in the trust domain that ids of that site have here.
    pub fn set_anchors(&mut self, site: SiteId, certificates: &[CertificateDer<'_>]) -> Result<(), AnchorFault> {
        let trust_domain = self.naming.domain_of(&site)?;
        self.anchors.set(trust_domain, site, certificates)
    }

    /// Who presents this chain, if it keeps the profile and leads to an anchor of the site that its leaf names. The leaf is
    /// the first; an anchor at the end is not needed.
    pub fn verify_chain(&self, chain: &[CertificateDer<'_>], now: Wall, usage: Usage) -> Result<Verified, Refusal> {
        if chain.len() > CHAIN_MAX {
            return Err(Refusal::ChainTooLong(chain.len()));
        }
        let (leaf, above) = chain.split_first().ok_or(Refusal::Nothing)?;
        let svid = svid::read_leaf(leaf, &self.naming).map_err(Refusal::Leaf)?;
        let signers = read_signers(above, &svid.id.trust_domain)?;
        let anchors = self.usable_anchors(&svid, now)?;
        let anchor = find_path(leaf, above, &anchors, now, usage, &svid.subject.site)?;
        self.check_bans(&svid, &signers)?;
        let ends = signers.iter().map(|signer| signer.not_after);
        let until = ends.chain([anchor.not_after]).fold(svid.not_after, Wall::min);
        Ok(Verified { anchor: anchor.certificate, until, svid })
    }

    fn usable_anchors(&self, svid: &Svid, now: Wall) -> Result<Vec<&Anchor>, Refusal> {
        let trust_domain = &svid.id.trust_domain;
        let site = &svid.subject.site;
        let anchors = self.anchors.0.get(&(trust_domain.clone(), site.clone()));
        let anchors =
            anchors.ok_or_else(|| Refusal::NoAnchor { trust_domain: trust_domain.clone(), site: site.clone() })?;
        // RFC 5280 leaves the moment of an anchor open; an authority that is over speaks for nobody.
        let is_usable = |signer: &Signer| {
            signer.not_before <= now
                && now <= signer.not_after
                && self.bans.on_certificate(signer.certificate, signer.key).is_none()
        };
        let usable: Vec<&Anchor> = anchors.iter().filter(|anchor| is_usable(&anchor.signer)).collect();
        if usable.is_empty() { Err(Refusal::AnchorsOver(site.clone())) } else { Ok(usable) }
    }

    fn check_bans(&self, svid: &Svid, signers: &[Signer]) -> Result<(), Refusal> {
        let on_signer = || signers.iter().find_map(|it| self.bans.on_certificate(it.certificate, it.key));
        let on_leaf = self.bans.on_certificate(svid.certificate, svid.key);
        let ban = on_leaf.or_else(|| self.bans.on_id(&svid.id)).or_else(on_signer);
        ban.map_or(Ok(()), |ban| Err(Refusal::Banned(ban)))
    }
}

/// Every certificate above the leaf keeps the profile, whether the path needs it or not.
fn read_signers(above: &[CertificateDer<'_>], trust_domain: &TrustDomain) -> Result<Vec<Signer>, Refusal> {
    let signers = above.iter().enumerate();
    let read = |(index, der): (usize, &CertificateDer<'_>)| {
        let position = index.saturating_add(2);
        svid::read_signer(der, trust_domain).map_err(|fault| Refusal::Signer { position, fault })
    };
    signers.map(read).collect()
}

fn find_path<'a>(
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    anchors: &[&'a Anchor],
    now: Wall,
    usage: Usage,
    site: &SiteId,
) -> Result<&'a Signer, Refusal> {
    let leaf = EndEntityCert::try_from(leaf).map_err(refusal)?;
    let purpose = match usage {
        Usage::Client => webpki::KeyUsage::client_auth(),
        Usage::Server => webpki::KeyUsage::server_auth(),
    };
    let time = UnixTime::since_unix_epoch(Duration::from_nanos(now.0));
    let mut reason = Refusal::UnknownIssuer(site.clone());
    // One by one, because the path must name its anchor, and two anchors of one name may have one key.
    for anchor in anchors {
        let roots = std::slice::from_ref(&anchor.trust);
        match leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, roots, above, time, purpose, None, None) {
            Ok(path) if is_too_long(&path, &anchor.signer) => {
                reason = Refusal::Path(webpki::Error::PathLenConstraintViolated);
            }
            Ok(_path) => return Ok(&anchor.signer),
            // Of another name, or of this name with another key, as after a site has changed its authority.
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {}
            Err(error) => reason = refusal(error),
        }
    }
    Err(reason)
}

/// The library holds every certificate on a path to its limit but for the anchor, of which it keeps only name and key.
fn is_too_long(path: &webpki::VerifiedPath<'_>, anchor: &Signer) -> bool {
    let signers = path.intermediate_certificates().count();
    anchor.signers_below.is_some_and(|limit| usize::try_from(limit).is_ok_and(|limit| signers > limit))
}

fn refusal(error: webpki::Error) -> Refusal {
    if matches!(error, webpki::Error::CertExpired { .. }) {
        return Refusal::Expired;
    }
    if matches!(error, webpki::Error::CertNotValidYet { .. }) {
        return Refusal::NotYetValid;
    }
    Refusal::Path(error)
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};

    use super::*;
    use crate::domain::identity::Mapping;
    use crate::domain::time::Millis;

    /// One that ends when this year begins.
    fn anchor(until_year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://trust".try_into().expect("ASCII"))];
        params.not_after = date_time_ymd(until_year, 1, 1);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("an anchor").der().clone()
    }

    fn trust(sites: &[(&str, &[CertificateDer<'static>])]) -> Trust {
        let trust_domain = "trust".parse().expect("legal");
        let mut trust = Trust::new(Naming { trust_domain, mapping: Mapping::PathSite });
        for (site, anchors) in sites {
            trust.set_anchors(site.parse().expect("legal"), anchors).expect("anchors");
        }
        trust
    }

    /// Whoever plans by this moment renews in time, and is not called for an anchor that has a successor.
    #[test]
    fn the_end_of_all_anchors_is_that_of_the_first_site_which_nobody_can_vouch_for_any_more() {
        let year = |year| u64::try_from(date_time_ymd(year, 1, 1).unix_timestamp()).expect("since 1970");
        let (old, new, other) = (anchor(2_030), anchor(2_040), anchor(2_035));
        let site_a: &[_] = &[old, new];
        for (sites, wanted) in [
            (&[] as &[(&str, &[_])], None),
            (&[("a", &site_a[..1])], Some(2_030)),
            (&[("a", site_a)], Some(2_040)),
            (&[("a", site_a), ("b", &[other])], Some(2_035)),
        ] {
            let wanted = wanted.map(|wanted| Wall::default().plus(Millis::from_secs(year(wanted))));
            assert_eq!(trust(sites).anchors.ends(), wanted, "{} sites", sites.len());
        }
    }

    /// New settings say nothing of a site whose anchors come from elsewhere: it goes on with those in use, and no other site
    /// is given any.
    #[test]
    fn a_site_keeps_the_anchors_in_use_whatever_new_settings_have_of_it() {
        let (used, written, other) = (anchor(2_040), anchor(2_041), anchor(2_042));
        let of = |used: &CertificateDer<'_>| vec![Fingerprint::of_der(used)];
        let in_use = trust(&[("a", from_ref(&used)), ("b", from_ref(&used))]);
        let mut anchors =
            trust(&[("a", from_ref(&written)), ("b", from_ref(&other)), ("c", from_ref(&written))]).anchors;
        let trust_domain = "trust".parse().expect("legal");
        for site in ["a", "c", "d"] {
            anchors.keep(&in_use.anchors, &trust_domain, &site.parse().expect("legal"));
        }
        for (site, wanted) in [("a", of(&used)), ("b", of(&other)), ("c", Vec::new()), ("d", Vec::new())] {
            let signers = anchors.of_site(&trust_domain, &site.parse().expect("legal"));
            assert_eq!(signers.iter().map(|signer| signer.certificate).collect::<Vec<_>>(), wanted, "{site}");
        }
    }
}

//! A site's trust bundle: which authorities speak for it, numbered, so that nobody is led back to an earlier set.
//!
//! A bundle comes by a signed file or from the endpoint of its site. Either way it takes the place of the one before only if
//! its number has risen, or if it says the same again, which confirms it. How long it may go unconfirmed is bounded: after that
//! its site is still read and no longer written, in either direction, because a key that was taken back would not be noticed.

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::domain::id::SiteId;
use crate::domain::identity::anchors::{ANCHORS_PER_SITE_MAX, AnchorFault, Trust};
use crate::domain::identity::authority::is_signed_by;
use crate::domain::identity::{Bans, Naming, TrustDomain, svid};
use crate::domain::time::{Millis, Wall};

/// How soon to ask for a bundle again where it does not say (SPIFFE Trust Domain and Bundle, section 4.1.3).
pub const REFRESH_DEFAULT: Millis = Millis::from_secs(300);

/// Never asked more often: a partner's hint must not become a loop.
pub const REFRESH_MIN: Millis = Millis::from_secs(5);

/// Longest that a file is relied on, whatever it says: as long as the longest certificate.
pub const FILE_LIFE_MAX: Millis = Millis::from_hours(397 * 24);

/// How far the clock may be behind the last confirmation before that is no longer believed.
const SKEW: Millis = Millis::from_secs(300);

/// The authorities of one site at one time. Which site it is, is not in it: that is for whoever has fetched it to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Rises with every change.
    pub sequence: u64,
    /// How soon to ask again, as the site wishes.
    pub refresh_hint: Option<Millis>,
    /// The certificates of its authorities; none says that nobody speaks for the site.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Why a bundle was not taken. What is known stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be the trust of this site.
    #[error("{0}")]
    Anchors(#[from] AnchorFault),
    /// A later one is known.
    #[error("its sequence is {offered}, and {known} is known already: ask the site for its present bundle")]
    GoesBack {
        /// What is known.
        known: u64,
        /// What was offered.
        offered: u64,
    },
    /// One number, two contents.
    #[error(
        "its sequence is {0} as that of the known bundle, and its authorities are others: ask the site which is right"
    )]
    SameSequence(u64),
    /// Signed for a time that is over.
    #[error("it has expired: ask the site for a new one, and compare the clocks")]
    Expired,
}

/// How a bundle came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the endpoint of its site, now.
    Endpoint,
    /// In a file that says until when it may be relied on.
    File {
        /// Until when.
        expires: Wall,
    },
}

/// The bundle of a partner as it is known here, with what confirms it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The bundle.
    pub bundle: Bundle,
    /// When it last came, by either way.
    pub confirmed: Wall,
    /// When the endpoint last said so.
    pub endpoint_at: Option<Wall>,
    /// Until when a file lets it be relied on that came after the endpoint has last spoken.
    pub file_expires: Option<Wall>,
}

impl Taken {
    /// What is known after this bundle of `site` has come.
    pub fn after(
        known: Option<&Self>,
        bundle: Bundle,
        way: Way,
        naming: &Naming,
        site: &SiteId,
        now: Wall,
    ) -> Result<Self, Refused> {
        check_authorities(&bundle, naming, site)?;
        let mut taken = Self { bundle, confirmed: now, endpoint_at: None, file_expires: None };
        if let Some(known) = known {
            let (known_at, offered) = (known.bundle.sequence, taken.bundle.sequence);
            if offered < known_at {
                return Err(Refused::GoesBack { known: known_at, offered });
            }
            if offered == known_at {
                if sorted(&known.bundle) != sorted(&taken.bundle) {
                    return Err(Refused::SameSequence(known_at));
                }
                // The same again: what confirmed it before goes on to count, but for a moment that a clock which ran ahead has noted.
                taken.endpoint_at = known.endpoint_at.filter(|at| *at <= now.plus(SKEW));
                taken.file_expires = known.file_expires;
            }
        }
        match way {
            // Whoever is asked speaks for himself: a file from before must not outlive his silence.
            Way::Endpoint => {
                taken.endpoint_at = Some(now);
                taken.file_expires = None;
            }
            Way::File { expires } if expires < now => return Err(Refused::Expired),
            Way::File { expires } => {
                taken.file_expires = taken.file_expires.max(Some(expires.min(now.plus(FILE_LIFE_MAX))))
            }
        }
        Ok(taken)
    }

    /// How far it may be relied on, if the endpoint has to confirm it within `age_max`.
    pub fn standing(&self, age_max: Millis) -> Standing {
        let fresh_until = self.endpoint_at.map(|at| at.plus(age_max)).max(self.file_expires);
        Standing { known: Some(Known { sequence: self.bundle.sequence, confirmed: self.confirmed }), fresh_until }
    }
}

/// Whether the same authorities stand in both, whatever their order.
fn sorted(bundle: &Bundle) -> Vec<&[u8]> {
    let mut all: Vec<&[u8]> = bundle.authorities.iter().map(AsRef::as_ref).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// None are fine: the site takes back all that it has said.
fn check_authorities(bundle: &Bundle, naming: &Naming, site: &SiteId) -> Result<(), AnchorFault> {
    if bundle.authorities.is_empty() {
        return Ok(());
    }
    Trust::new(naming.clone()).set_anchors(site.clone(), &bundle.authorities)
}

/// Which bundle of a partner is known, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub sequence: u64,
    /// When it was last confirmed.
    pub confirmed: Wall,
}

/// How far the bundle of a partner may be relied on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is known; nothing until a bundle has come.
    pub known: Option<Known>,
    /// Until when writes may rest on it.
    pub fresh_until: Option<Wall>,
}

/// Why no write may rest on a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// None has come.
    #[error("no bundle of the site has come yet")]
    Never,
    /// Too long ago.
    #[error("the site's bundle was last confirmed {} s ago, which is too long", .0.0.wrapping_div(1_000))]
    Over(Millis),
    /// The clock has gone back behind its confirmation.
    #[error("the site's bundle was confirmed at a moment that is still to come by this clock")]
    Ahead,
}

impl Standing {
    /// Whether writes may rest on it now.
    pub fn check(&self, now: Wall) -> Result<(), Stale> {
        let (Some(known), Some(until)) = (self.known, self.fresh_until) else { return Err(Stale::Never) };
        if now.plus(SKEW) < known.confirmed {
            return Err(Stale::Ahead);
        }
        if until < now { Err(Stale::Over(known.age(now))) } else { Ok(()) }
    }
}

impl Known {
    /// Time since it was last confirmed.
    pub const fn age(&self, now: Wall) -> Millis {
        Millis(now.as_millis().saturating_sub(self.confirmed.as_millis()))
    }
}

/// How soon to ask again: as the site wishes, neither in a loop nor so late that one failure makes it stale.
pub fn refresh_after(hint: Option<Millis>, age_max: Millis) -> Millis {
    let latest = Millis(age_max.0.wrapping_div(4)).max(REFRESH_MIN);
    hint.unwrap_or(REFRESH_DEFAULT).clamp(REFRESH_MIN, latest)
}

/// Whether a confirmation is worth a write to the disk: not each one, and often enough that a restart costs little. One that
/// takes the place of a file, or of a moment that a clock which ran ahead has noted, is written at once.
pub fn is_worth_keeping(known: Option<&Taken>, taken: &Taken, age_max: Millis) -> bool {
    let Some(known) = known else { return true };
    let step = Millis(age_max.0.wrapping_div(8));
    let is_ahead = taken.confirmed.plus(SKEW) < known.confirmed;
    let is_of_another_kind = known.bundle != taken.bundle || known.file_expires != taken.file_expires;
    is_of_another_kind || is_ahead || known.endpoint_at.is_none_or(|at| at.plus(step) <= taken.confirmed)
}

/// Whether one of these authorities signed the message, one that is neither over nor banned.
pub fn is_signed_by_any(
    authorities: &[CertificateDer<'_>],
    trust_domain: &TrustDomain,
    bans: &Bans,
    now: Wall,
    message: &[u8],
    signature: &[u8],
) -> bool {
    authorities.iter().take(ANCHORS_PER_SITE_MAX).any(|der| {
        let Ok(signer) = svid::read_signer(der, trust_domain) else { return false };
        let is_usable = signer.not_before <= now
            && now <= signer.not_after
            && bans.on_certificate(signer.certificate, signer.key).is_none();
        is_usable && EndEntityCert::try_from(der).is_ok_and(|it| is_signed_by(&it, message, signature))
    })
}

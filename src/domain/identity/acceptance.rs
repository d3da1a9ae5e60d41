//! Whose answer a node takes for a key that it has made itself: the authority of its site, as somebody has accepted it.
//!
//! A certificate and its anchors travel from the authority to the node, and whoever carries them may exchange both: anybody can
//! make an authority that calls itself by the site's name. So the node keeps beside its key by what it knows the right one: the
//! pin of a join token, or the certificates of the anchors that were accepted. An authority that changes its key follows by
//! itself: as long as it has both keys the older one signs the newer (`Succession`), in the file in which anchors travel. A key
//! whose successor is noted names no other one: who has stolen it comes too late then.
//!
//! A succession is not held against the clock: it was signed while the older key was the authority's, and a node may be away
//! for years. A ban on the older key ends it. Where the file lies and what follows from a refusal is not here.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::domain::id::SiteId;
use crate::domain::identity::anchors::ANCHORS_PER_SITE_MAX;
use crate::domain::identity::authority::is_signed_by;
use crate::domain::identity::svid;
use crate::domain::identity::{Bans, Fingerprint, TrustDomain};

/// Most successions that are read of one file: more changes of key than a node sleeps through.
pub const SUCCESSIONS_MAX: usize = 16;

/// What begins a line with a succession. To whoever reads only the certificates of the file it is a remark between them.
const SUCCESSION: &str = "# succession ";

/// Separates a succession from everything else that an authority's key signs.
const CONTEXT: &[u8] = b"trust-runtime succession of anchors v1\0";

const HEAD: &str =
    "# The authority that this key takes certificates of, as `trust-runtime identity enrol` and `accept` note it.\n";

/// By what the right authority is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    site: SiteId,
    /// The name of the anchors' file, from a join token of which no answer was seen yet.
    pinned: Option<Fingerprint>,
    /// The certificates of the anchors that were accepted; none where nobody has accepted any.
    accepted: Vec<CertificateDer<'static>>,
    /// Which of them another key has followed, and which key.
    followed: Vec<[CertificateDer<'static>; 2]>,
}

/// The anchors of the own site as they have come.
#[derive(Debug, Clone)]
pub struct Came {
    /// The name of the file's bytes, as its authority shows it in words.
    pub print: Fingerprint,
    /// What stands in it.
    pub anchors: Vec<CertificateDer<'static>>,
    /// The changes of key that it tells of.
    pub successions: Vec<Succession>,
}

/// Why anchors do not count for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unaccepted {
    /// Nobody has accepted any.
    #[error("nobody has accepted its authority yet")]
    NothingYet,
    /// They are not those that the join token names.
    #[error("it is not of the authority that made the join token")]
    NotThePinned,
    /// Others were accepted.
    #[error("it is of another authority than the one that was accepted, and no accepted key has signed a change to it")]
    Another,
}

/// A text that is no acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {0}: wanted `site <name>`, `pinned <hex>`, `accepted <base64>` or `followed <base64> <base64>` as `identity enrol` \
     writes them: enrol again"
)]
pub struct NotAnAcceptance(usize);

impl Acceptance {
    /// What a new key expects: the anchors that a join token names, or nothing yet.
    pub const fn expecting(site: SiteId, pinned: Option<Fingerprint>) -> Self {
        Self { site, pinned, accepted: Vec::new(), followed: Vec::new() }
    }

    /// The same with the pin of a join token that was used since; what was accepted goes on to count.
    #[must_use]
    pub fn pinned_to(self, pin: Fingerprint) -> Self {
        Self { pinned: Some(pin), ..self }
    }

    /// These anchors, and no others from now on. Somebody has vouched for all that their file says: each anchor that another one
    /// has followed by it is followed by no third, whatever was noted before; what was noted of the rest goes on.
    #[must_use]
    pub fn accepting(self, came: &Came) -> Self {
        let followed = came.pairs(|older| {
            // An anchor without a name is of no authority that tells of successors.
            let told = svid::domain_of_signer(older).map(|it| came.told(older, &it, &self.site, &Bans::default()));
            told.flatten().or(self.successor_of(older))
        });
        Self { site: self.site, pinned: None, accepted: came.anchors.clone(), followed }
    }

    /// The same once these anchors, which were found in order, are in use: no others from now on, and each that another one has
    /// followed is followed by no third. A pin waits for the anchors that it names.
    #[must_use]
    pub fn noting(&self, came: &Came, trust_domain: &TrustDomain, bans: &Bans) -> Self {
        let told = |older| came.told(older, trust_domain, &self.site, bans);
        let followed = came.pairs(|older| self.successor_of(older).or_else(|| told(older)));
        let pinned = self.pinned.filter(|pin| *pin != came.print);
        Self { site: self.site.clone(), pinned, accepted: came.anchors.clone(), followed }
    }

    /// The key that is noted as the next after this one.
    fn successor_of(&self, key: &CertificateDer<'_>) -> Option<&CertificateDer<'static>> {
        self.followed.iter().find(|[older, _]| older == key).map(|[_, newer]| newer)
    }

    /// The site whose authority it is.
    pub const fn site(&self) -> &SiteId {
        &self.site
    }

    /// Whether every one of these anchors was accepted, or follows one that was. One among them that does not would make
    /// certificates of this site as the others do.
    pub fn judge(&self, came: &Came, trust_domain: &TrustDomain, bans: &Bans) -> Result<(), Unaccepted> {
        if self.pinned == Some(came.print) {
            return Ok(());
        }
        let mut accepted: Vec<&CertificateDer<'_>> = self.accepted.iter().collect();
        for succession in came.successions.iter().take(SUCCESSIONS_MAX) {
            let follows = |older: &&CertificateDer<'_>| {
                self.successor_of(older).is_none_or(|noted| *noted == succession.newer)
                    && succession.follows(older, trust_domain, &self.site, bans)
            };
            if accepted.iter().any(follows) {
                accepted.push(&succession.newer);
            }
        }
        if came.anchors.iter().all(|anchor| accepted.contains(&anchor)) {
            return Ok(());
        }
        Err(match (self.pinned, self.accepted.is_empty()) {
            (Some(_), true) => Unaccepted::NotThePinned,
            (None, true) => Unaccepted::NothingYet,
            (_, false) => Unaccepted::Another,
        })
    }
}

impl Came {
    /// Which of the anchors follows this one, as the file itself tells.
    fn told(
        &self,
        older: &CertificateDer<'_>,
        trust_domain: &TrustDomain,
        site: &SiteId,
        bans: &Bans,
    ) -> Option<&CertificateDer<'static>> {
        let told = self.successions.iter().take(SUCCESSIONS_MAX);
        let told = told.filter(|it| it.newer != *older && self.anchors.contains(&it.newer));
        told.filter(|it| it.follows(older, trust_domain, site, bans)).map(|it| &it.newer).next()
    }

    /// Each anchor that has a successor, with it.
    fn pairs<'a>(
        &'a self,
        successor: impl Fn(&'a CertificateDer<'static>) -> Option<&'a CertificateDer<'static>>,
    ) -> Vec<[CertificateDer<'static>; 2]> {
        self.anchors.iter().filter_map(|older| Some([older.clone(), successor(older)?.clone()])).collect()
    }
}

/// One line for each thing that it says.
impl fmt::Display for Acceptance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, pinned, accepted, followed } = self;
        writeln!(formatter, "{HEAD}site {site}")?;
        if let Some(pin) = pinned {
            writeln!(formatter, "pinned {pin}")?;
        }
        accepted.iter().try_for_each(|der| writeln!(formatter, "accepted {}", STANDARD.encode(der)))?;
        let mut followed = followed.iter().map(|pair| pair.each_ref().map(|der| STANDARD.encode(der)));
        followed.try_for_each(|[older, newer]| writeln!(formatter, "followed {older} {newer}"))
    }
}

impl FromStr for Acceptance {
    type Err = NotAnAcceptance;

    /// A text with a line that cannot be read is refused as a whole: it is not known what it would have said.
    fn from_str(text: &str) -> Result<Self, NotAnAcceptance> {
        let (mut site, mut pinned, mut accepted, mut followed) = (None, None, Vec::new(), Vec::new());
        let mut last = 0;
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            last = index.saturating_add(1);
            let wrong = NotAnAcceptance(last);
            match line.split_once(' ').ok_or(wrong)? {
                ("site", name) if site.is_none() => site = Some(name.parse().map_err(|_no_name| wrong)?),
                ("pinned", hex) if pinned.is_none() => pinned = Some(hex.parse().map_err(|_no_hex| wrong)?),
                ("accepted", der) if accepted.len() < ANCHORS_PER_SITE_MAX => {
                    accepted.push(decoded(der).ok_or(wrong)?.into());
                }
                ("followed", pair) if followed.len() < ANCHORS_PER_SITE_MAX => {
                    let (older, newer) = pair.split_once(' ').ok_or(wrong)?;
                    followed.push([decoded(older).ok_or(wrong)?.into(), decoded(newer).ok_or(wrong)?.into()]);
                }
                _ => return Err(wrong),
            }
        }
        let site = site.ok_or(NotAnAcceptance(last.saturating_add(1)))?;
        Ok(Self { site, pinned, accepted, followed })
    }
}

/// That a site's authority goes on with another key, signed by the key before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    newer: CertificateDer<'static>,
    signature: Vec<u8>,
}

impl Succession {
    /// A newer certificate with what the older key has signed of it: `Self::message`.
    pub const fn new(newer: CertificateDer<'static>, signature: Vec<u8>) -> Self {
        Self { newer, signature }
    }

    /// What the older key signs: for one site only, though the authorities of several may be of one trust domain.
    pub fn message(trust_domain: &TrustDomain, site: &SiteId, newer: &CertificateDer<'_>) -> Vec<u8> {
        // Neither a trust domain nor a site may hold a slash.
        let place = format!("{trust_domain}/{site}/");
        [CONTEXT, place.as_bytes(), newer].concat()
    }

    /// All that the text of an anchors' file tells of, the oldest first. A line that cannot be read proves nothing.
    pub fn all_of(text: &str) -> Vec<Self> {
        text.lines().filter_map(|line| line.parse().ok()).take(SUCCESSIONS_MAX).collect()
    }

    /// Whether this certificate's key signed it, and nobody has shut that key out.
    fn follows(&self, older: &CertificateDer<'_>, trust_domain: &TrustDomain, site: &SiteId, bans: &Bans) -> bool {
        let Ok(signer) = svid::read_signer(older, trust_domain) else { return false };
        let Ok(certificate) = EndEntityCert::try_from(older) else { return false };
        let message = Self::message(trust_domain, site, &self.newer);
        bans.on_certificate(signer.certificate, signer.key).is_none()
            && is_signed_by(&certificate, &message, &self.signature)
    }
}

impl fmt::Display for Succession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SUCCESSION}{} {}", STANDARD.encode(&self.newer), STANDARD.encode(&self.signature))
    }
}

/// A line that is no succession.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted a succession as `identity rotate` writes it")]
pub struct NotASuccession;

impl FromStr for Succession {
    type Err = NotASuccession;

    fn from_str(line: &str) -> Result<Self, NotASuccession> {
        let (newer, signature) =
            line.strip_prefix(SUCCESSION).and_then(|it| it.split_once(' ')).ok_or(NotASuccession)?;
        let newer = decoded(newer).ok_or(NotASuccession)?;
        Ok(Self { newer: newer.into(), signature: decoded(signature).ok_or(NotASuccession)? })
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim_end()).ok()
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType, SigningKey,
    };

    use super::*;

    /// An authority that calls itself as it likes.
    struct Ca(CertifiedIssuer<'static, KeyPair>);

    impl Ca {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.subject_alt_names = vec![SanType::URI("spiffe://trust".try_into().expect("ASCII"))];
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("made"))
        }

        fn der(&self) -> CertificateDer<'static> {
            self.0.der().clone()
        }

        /// Says that another one follows it, in this site.
        fn followed_by(&self, newer: &Self, site: &str) -> Succession {
            let message = Succession::message(&domain(), &site.parse().expect("a site"), &newer.der());
            Succession::new(newer.der(), self.0.key().sign(&message).expect("signed"))
        }

        fn banned(&self) -> Bans {
            let print = Fingerprint::of_der(&self.der());
            format!("certificate {print}\n").parse().expect("a list")
        }
    }

    fn domain() -> TrustDomain {
        "trust".parse().expect("legal")
    }

    fn north() -> SiteId {
        "north".parse().expect("legal")
    }

    fn came(anchors: &[&Ca], successions: &[Succession]) -> Came {
        let anchors: Vec<_> = anchors.iter().map(|it| it.der()).collect();
        let bytes: Vec<u8> = anchors.iter().flat_map(|it| it.to_vec()).collect();
        let print = Fingerprint::of_der(&bytes);
        Came { print, anchors, successions: successions.to_vec() }
    }

    fn judged(acceptance: &Acceptance, came: &Came) -> Result<(), Unaccepted> {
        acceptance.judge(came, &domain(), &Bans::default())
    }

    #[test]
    fn a_key_takes_what_was_accepted_or_pinned_and_nothing_beside_it() {
        let (right, other) = (Ca::new(), Ca::new());
        let (one, both, wrong) = (came(&[&right], &[]), came(&[&right, &other], &[]), came(&[&other], &[]));
        let fresh = Acceptance::expecting(north(), None);
        assert_eq!(judged(&fresh, &one), Err(Unaccepted::NothingYet));
        let pinned = Acceptance::expecting(north(), Some(one.print));
        let accepted = fresh.accepting(&one);
        for (acceptance, refusal) in [(&pinned, Unaccepted::NotThePinned), (&accepted, Unaccepted::Another)] {
            assert_eq!(judged(acceptance, &one), Ok(()));
            assert_eq!(judged(acceptance, &wrong), Err(refusal));
            assert_eq!(judged(acceptance, &both), Err(refusal), "one beside the right one would vouch as well");
        }
        assert_eq!(judged(&accepted.clone().pinned_to(wrong.print), &wrong), Ok(()), "a later token counts too");
        assert_eq!(judged(&accepted.clone().pinned_to(wrong.print), &one), Ok(()), "and what was accepted goes on");
        assert_eq!(judged(&accepted.accepting(&wrong), &one), Err(Unaccepted::Another), "the last word counts");
    }

    #[test]
    fn an_authority_that_changes_its_key_is_followed_through_every_step() {
        let [one, two, three, evil] = std::array::from_fn(|_| Ca::new());
        let accepted = Acceptance::expecting(north(), None).accepting(&came(&[&one], &[]));
        let (first, second) = (one.followed_by(&two, "north"), two.followed_by(&three, "north"));
        let told = [first.clone(), second.clone()];
        for (anchors, successions) in [
            (vec![&one, &two], &told[..1]),
            (vec![&two], &told[..1]),
            (vec![&two, &three], &told[..]),
            (vec![&three], &told[..]),
        ] {
            assert_eq!(judged(&accepted, &came(&anchors, successions)), Ok(()));
        }
        for (anchors, successions, why) in [
            (vec![&one, &two], vec![], "nobody signed the change"),
            (vec![&three], vec![second.clone()], "a step is missing"),
            (vec![&evil], vec![evil.followed_by(&evil, "north")], "signed by itself"),
            (vec![&evil], vec![two.followed_by(&evil, "north")], "signed by a key that was not accepted"),
            (vec![&two], vec![one.followed_by(&two, "south")], "said of another site"),
            (vec![&two, &evil], vec![first.clone()], "one more beside it"),
        ] {
            assert_eq!(judged(&accepted, &came(&anchors, &successions)), Err(Unaccepted::Another), "{why}");
        }
        let fresh = Acceptance::expecting(north(), None);
        assert_eq!(judged(&fresh, &came(&[&one, &two], &told)), Err(Unaccepted::NothingYet));
        let banned = accepted.judge(&came(&[&two], &told), &domain(), &one.banned());
        assert_eq!(banned, Err(Unaccepted::Another), "a key that is shut out names no successor");
        let late = [vec![second; SUCCESSIONS_MAX], vec![first]].concat();
        assert_eq!(judged(&accepted, &came(&[&two], &late)), Err(Unaccepted::Another), "no more are looked at");
    }

    /// A rotation may be made because the old key was seen by somebody.
    #[test]
    fn a_key_whose_successor_is_noted_names_no_other() {
        let [one, two, three, evil] = std::array::from_fn(|_| Ca::new());
        let told = [one.followed_by(&two, "north"), two.followed_by(&three, "north")];
        let accepted = Acceptance::expecting(north(), None).accepting(&came(&[&one], &[]));
        let noted = accepted.noting(&came(&[&one, &two], &told), &domain(), &Bans::default());
        let forks = [one.followed_by(&evil, "north"), told[0].clone()];
        for anchors in [&[&one, &evil][..], &[&evil], &[&one, &two, &evil]] {
            assert_eq!(judged(&noted, &came(anchors, &forks)), Err(Unaccepted::Another));
        }
        assert_eq!(judged(&noted, &came(&[&two, &three], &told)), Ok(()), "the true one goes on");
        // Anchors from before the change, once more: the change itself counts again, and still no other.
        let back = noted.noting(&came(&[&one], &[]), &domain(), &Bans::default());
        assert_eq!(judged(&back, &came(&[&one, &two], &told)), Ok(()));
        assert_eq!(judged(&back, &came(&[&one, &evil], &forks)), Err(Unaccepted::Another));
        let gone = back.noting(&came(&[&two], &told), &domain(), &Bans::default());
        assert!(gone.followed.is_empty(), "what is gone names nobody at all: {gone}");
    }

    /// Whoever accepts anchors vouches for what their file tells, and takes nothing back that was known.
    #[test]
    fn anchors_that_somebody_accepts_say_which_key_is_followed_by_no_third() {
        let [one, two, three, evil] = std::array::from_fn(|_| Ca::new());
        let (good, other) = (one.followed_by(&two, "north"), one.followed_by(&evil, "north"));
        let both = came(&[&one, &two], from_ref(&good));
        let fork = came(&[&one, &two, &evil], &[other.clone(), good.clone()]);
        let fresh = Acceptance::expecting(north(), None);
        let untold = fresh.clone().accepting(&came(&[&one, &two], &[]));
        assert_eq!((untold.followed.len(), judged(&untold, &fork)), (0, Ok(())), "nobody has said what follows what");
        for before in [
            fresh.clone(),
            untold.clone(),
            untold.noting(&both, &domain(), &Bans::default()),
            // Even where the other one came first: the last word of a person counts.
            fresh.clone().accepting(&came(&[&one, &evil], from_ref(&other))),
        ] {
            let accepted = before.accepting(&both);
            assert_eq!(accepted.followed, [[one.der(), two.der()]]);
            for anchors in [&[&one, &two, &evil][..], &[&one, &evil], &[&evil]] {
                let forked = came(anchors, &[other.clone(), good.clone()]);
                assert_eq!(judged(&accepted, &forked), Err(Unaccepted::Another));
            }
            // A file that does not tell of it does not take it back.
            for quiet in [came(&[&one, &two], &[]), came(&[&one], &[])] {
                assert_eq!(accepted.clone().accepting(&quiet).followed, [[one.der(), two.der()]]);
            }
            let gone = accepted.accepting(&came(&[&two], from_ref(&good)));
            assert_eq!(gone.followed, [] as [[CertificateDer<'_>; 2]; 0], "what is gone names nobody at all");
            let next = came(&[&two, &three], &[good.clone(), two.followed_by(&three, "north")]);
            assert_eq!(gone.accepting(&next).followed, [[two.der(), three.der()]]);
        }
        // Words for this site's anchors say nothing of another's, and a key does not follow itself.
        for beside in [one.followed_by(&two, "south"), one.followed_by(&one, "north"), evil.followed_by(&two, "north")]
        {
            let accepted = fresh.clone().accepting(&came(&[&one, &two], &[beside]));
            assert_eq!(accepted.followed.len(), 0);
        }
    }

    #[test]
    fn a_pin_waits_for_the_anchors_that_it_names() {
        let [one, two] = std::array::from_fn(|_| Ca::new());
        let (old, new) = (came(&[&one], &[]), came(&[&two], &[]));
        let accepted = Acceptance::expecting(north(), None).accepting(&old).pinned_to(new.print);
        let noted = accepted.noting(&old, &domain(), &Bans::default());
        assert_eq!(judged(&noted, &new), Ok(()), "what is in use does not end it");
        let noted = noted.noting(&new, &domain(), &Bans::default());
        assert_eq!((noted.pinned, judged(&noted, &old)), (None, Err(Unaccepted::Another)), "it has done its work");
    }

    #[test]
    fn what_is_noted_is_read_as_it_was_written_and_nothing_else_is() {
        let (one, two) = (Ca::new(), Ca::new());
        let fresh = Acceptance::expecting(north(), None);
        let pinned = fresh.clone().pinned_to(Fingerprint([7; 32]));
        let accepted = fresh.clone().accepting(&came(&[&one, &two], &[]));
        let both = came(&[&one, &two], &[one.followed_by(&two, "north")]);
        let followed = accepted.noting(&both, &domain(), &Bans::default());
        assert_eq!(followed.to_string().matches("\nfollowed ").count(), 1, "{followed}");
        for noted in [&fresh, &pinned, &accepted, &followed, &followed.clone().pinned_to(Fingerprint([8; 32]))] {
            assert_eq!(noted.to_string().parse().as_ref(), Ok(noted));
        }
        let good = accepted.to_string();
        for (text, line) in [
            (String::new(), 1),
            (HEAD.to_owned(), 1),
            ("site north\nsite north\n".to_owned(), 2),
            ("site a/b\n".to_owned(), 1),
            (format!("{good}more\n"), 5),
            (format!("{good}else x\n"), 5),
            (format!("{good}accepted !\n"), 5),
            (format!("{good}followed AAAA\n"), 5),
            (format!("{good}followed AAAA !\n"), 5),
            (format!("{good}pinned 12\n"), 5),
            (format!("{pinned}pinned {}\n", Fingerprint([7; 32])), 4),
            (format!("site north\n{}", "accepted AAAA\n".repeat(ANCHORS_PER_SITE_MAX + 1)), ANCHORS_PER_SITE_MAX + 2),
            (
                "site north
followed A= A=
"
                .to_owned(),
                2,
            ),
            (
                format!("site north\n{}", "followed AAAA AAAA\n".repeat(ANCHORS_PER_SITE_MAX + 1)),
                ANCHORS_PER_SITE_MAX + 2,
            ),
        ] {
            assert_eq!(text.parse::<Acceptance>(), Err(NotAnAcceptance(line)), "{text}");
        }
    }

    #[test]
    fn successions_are_found_between_certificates_and_nonsense_is_none() {
        let (one, two) = (Ca::new(), Ca::new());
        let told = one.followed_by(&two, "north");
        let text =
            format!("-----BEGIN X-----\n{told}\n# succession\n# succession ! AAAA\n# succession AAAA !\n{told}\r\n");
        assert_eq!(Succession::all_of(&text), [told.clone(), told.clone()]);
        assert_eq!(Succession::all_of(&format!("{told}\n").repeat(SUCCESSIONS_MAX + 1)).len(), SUCCESSIONS_MAX);
    }
}

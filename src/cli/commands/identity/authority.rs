//! A site's authority in a folder: which keys it has, which one signs, and what its anchors are.
//!
//! `authority.json` says what is the case; it is written last and as a whole. The anchors that nodes get are made from it, so
//! that a crash between the two is healed by the next command.

use std::path::{Path, PathBuf};

use rcgen::{Issuer, KeyPair, PublicKeyData, SigningKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::cli::commands::identity::certificate::{self, Names, Span};
use crate::cli::commands::identity::disk::{self, Lock, PUBLIC, SECRET};
use crate::cli::commands::identity::join;
use crate::cli::commands::identity::ledger::{Entry, Ledger};
use crate::cli::exit::{Exit, Failure};
use crate::domain::id::SiteId;
use crate::domain::identity::acceptance::Succession;
use crate::domain::identity::anchors::{Trust, Usage};
use crate::domain::identity::svid::{self, Signer, Svid};
use crate::domain::identity::{Bans, Fingerprint, Mapping, Naming, Subject};
use crate::domain::time::{Millis, Wall};
use crate::node::draft;

const STATE: &str = "authority.json";
const BANS: &str = "bans.txt";
const VERSION: u32 = 1;
/// The ending of the file in which the key before has signed this one.
const SUCCESSION: &str = "succession";
/// How many changes of key the anchors tell of: a node that was away for more is given words again.
const SUCCESSIONS_KEPT: u32 = 8;
const BANS_HEAD: &str = "# Who is shut out, one a line: certificate <hex>, key <hex> or id <SPIFFE ID>.\n";

/// What is the case, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    site: String,
    trust_domain: String,
    mapping: String,
    /// How long the certificate of a key of this authority holds, in years.
    years: u32,
    /// The number of the key that signs.
    pub(super) active: u32,
    /// The key that will sign after the next `activate`.
    pub(super) next: Option<u32>,
    /// The key that signed before the last `activate`.
    pub(super) previous: Option<u32>,
    /// The number of the present set of anchors, as its bundle has it.
    #[serde(default)]
    pub(super) sequence: u64,
}

impl State {
    /// The keys that the anchors name, the oldest first.
    pub(super) fn anchors(&self) -> Vec<u32> {
        self.previous.into_iter().chain([self.active]).chain(self.next).collect()
    }

    /// Numbers a changed set of anchors. By the time, so that an authority that was restored from a backup does not use a
    /// number again that its partners know.
    pub(super) fn count_on(&mut self, now: Wall) {
        self.sequence = self.sequence.saturating_add(1).max(seconds(now));
    }
}

/// A certificate that was issued and passed the check that every node makes.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) der: CertificateDer<'static>,
    pub(super) svid: Svid,
    pub(super) serial: String,
}

/// An authority whose folder was read.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) folder: PathBuf,
    pub(super) state: State,
    pub(super) site: SiteId,
    pub(super) naming: Naming,
    _lock: Lock,
}

impl Authority {
    /// Makes a new one. A folder that has one is left as it is.
    pub(super) fn init(folder: &Path, site: &str, naming: Naming, years: u32, now: Wall) -> Result<Self, Failure> {
        let site: SiteId =
            site.parse().map_err(|error| Failure::new(Exit::Usage, format!("--site {site:?}: {error}")))?;
        naming.domain_of(&site).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        disk::make_folder(folder)?;
        let lock = Lock::take(folder)?;
        if folder.join(STATE).exists() {
            let message = format!("{}: there is an authority already: choose another folder", folder.display());
            return Err(Failure::new(Exit::Conflict, message));
        }
        let state = State {
            version: VERSION,
            site: site.to_string(),
            trust_domain: naming.trust_domain.to_string(),
            mapping: mapping_text(naming.mapping).to_owned(),
            years,
            active: 1,
            next: None,
            previous: None,
            sequence: seconds(now),
        };
        let authority = Self { folder: folder.to_owned(), state, site, naming, _lock: lock };
        authority.make_key(1, now)?;
        disk::write(&authority.folder.join(BANS), BANS_HEAD.as_bytes(), PUBLIC)?;
        authority.save()?;
        Ok(authority)
    }

    /// Opens an existing one, and heals what a crash has left.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(STATE);
        if !path.exists() {
            let message = format!("{}: no authority here: make one with `identity init-site`", folder.display());
            return Err(Failure::new(Exit::Configuration, message));
        }
        let lock = Lock::take(folder)?;
        let wrong = |what: String| Failure::new(Exit::Configuration, format!("{}: {what}", path.display()));
        let state: State = serde_json::from_str(&disk::read(&path)?).map_err(|error| wrong(error.to_string()))?;
        if state.version != VERSION {
            return Err(wrong(format!("wanted version {VERSION}, got {}", state.version)));
        }
        let site = state.site.parse().map_err(|error| wrong(format!("site: {error}")))?;
        let trust_domain = state.trust_domain.parse().map_err(|error| wrong(format!("trust_domain: {error}")))?;
        let mapping = parse_mapping(&state.mapping).ok_or_else(|| wrong(format!("mapping {:?}", state.mapping)))?;
        let naming = Naming { trust_domain, mapping };
        let authority = Self { folder: folder.to_owned(), state, site, naming, _lock: lock };
        authority.sweep();
        authority.heal()?;
        Ok(authority)
    }

    /// Signs a certificate, notes it, and gives it once every node of the site would take it.
    pub(super) fn issue(
        &self,
        subject: &Subject,
        names: &Names,
        key: &impl PublicKeyData,
        life: Millis,
        now: Wall,
    ) -> Result<Issued, Failure> {
        let span = Span::new(now, life);
        let signer = self.signer(self.state.active)?;
        if span.until > signer.not_after {
            let message = "the authority's own certificate ends before that: ask for fewer days, or begin a rotation";
            return Err(Failure::new(Exit::Conflict, message));
        }
        let params = certificate::of_subject(&self.naming, subject, names, span)?;
        let serial = params.serial_number.as_ref().map(|serial| hex(&serial.to_bytes())).unwrap_or_default();
        let der = certificate::sign(&params, key, &self.issuer()?)?;
        let svid = self.check(&der, now)?;
        Ledger::of(&self.folder).append(&Entry {
            serial: serial.clone(),
            id: svid.id.to_string(),
            generation: self.state.active,
            issued: seconds(now),
            not_after: seconds(svid.not_after),
            certificate: svid.certificate.to_string(),
            key: svid.key.to_string(),
        })?;
        Ok(Issued { der, svid, serial })
    }

    /// What every node of the site will ask: whoever is banned is told here and not at the gate.
    pub(super) fn check(&self, der: &CertificateDer<'static>, now: Wall) -> Result<Svid, Failure> {
        let mut trust = Trust::new(self.naming.clone());
        let anchors: Result<Vec<_>, _> = self.state.anchors().into_iter().map(|it| self.certificate(it)).collect();
        let set = trust.set_anchors(self.site.clone(), &anchors?);
        set.map_err(|fault| Failure::new(Exit::Configuration, fault.to_string()))?;
        trust.bans = self.bans()?;
        let verified = trust.verify_chain(std::slice::from_ref(der), now, Usage::Server);
        let verified = verified.map_err(|refusal| Failure::new(Exit::Denied, format!("not issued: {refusal}")))?;
        Ok(verified.svid)
    }

    /// Makes the files of a key. They count when the state names them.
    pub(super) fn make_key(&self, number: u32, now: Wall) -> Result<(), Failure> {
        let days = u64::from(self.state.years).saturating_mul(365).saturating_add(u64::from(self.state.years / 4));
        let span = Span::new(now, Millis::from_hours(days.saturating_mul(24)));
        let params = certificate::of_authority(&self.naming, self.site.as_str(), number, span)?;
        let key = KeyPair::generate().map_err(certificate::cannot)?;
        // Of a key of this number that a restored backup does not know.
        disk::remove(&self.file(number, SUCCESSION))?;
        let made = params.self_signed(&key).map_err(certificate::cannot)?;
        disk::write(&self.file(number, "key"), key.serialize_pem().as_bytes(), SECRET)?;
        disk::write(&self.file(number, "pem"), pem(made.der()).as_bytes(), PUBLIC)
    }

    /// Makes the state durable, and then what follows from it.
    pub(super) fn save(&self) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(&self.state).map_err(|error| Failure::failed(error.to_string()))?;
        disk::write(&self.folder.join(STATE), format!("{text}\n").as_bytes(), PUBLIC)?;
        self.heal()
    }

    /// Takes away what a crash has left of files of this folder that were being written, also of a key that nothing names yet.
    fn sweep(&self) {
        let keys = self.state.anchors();
        let begun = keys.iter().copied().max().unwrap_or_default().saturating_add(1);
        let keys = keys.into_iter().chain([begun]);
        let of_keys = keys.flat_map(|number| ["key", "pem", SUCCESSION].map(|ending| self.file(number, ending)));
        let of_all = [self.folder.join(STATE), self.folder.join(join::FILE), self.bans_path(), self.anchors_path()];
        let files: Vec<_> = of_keys.chain(of_all).collect();
        draft::sweep(files.iter().map(PathBuf::as_path));
    }

    fn heal(&self) -> Result<(), Failure> {
        self.name_successor()?;
        let wanted = self.bundle()?;
        let path = self.anchors_path();
        if !path.exists() || disk::read(&path)? != wanted {
            disk::write(&path, wanted.as_bytes(), PUBLIC)?;
        }
        let kept = self.state.anchors();
        (1..self.state.active)
            .filter(|number| !kept.contains(number))
            .try_for_each(|it| disk::remove(&self.file(it, "key")))
    }

    /// As long as there are two keys the older one signs that the newer follows it: whoever has accepted the older one goes on
    /// with the newer without a person's word.
    fn name_successor(&self) -> Result<(), Failure> {
        let [older, newer] = self.state.anchors()[..] else { return Ok(()) };
        let path = self.file(newer, SUCCESSION);
        // An older key that was taken away, as one may be that somebody has seen, signs nothing more; the authority goes on.
        if path.exists() || !self.file(older, "key").exists() {
            return Ok(());
        }
        let domain = self.naming.domain_of(&self.site);
        let domain = domain.map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
        let newer = self.certificate(newer)?;
        let message = Succession::message(&domain, &self.site, &newer);
        let signature = self.key(older)?.sign(&message).map_err(certificate::cannot)?;
        disk::write(&path, format!("{}\n", Succession::new(newer, signature)).as_bytes(), PUBLIC)
    }

    /// The anchors that nodes need, as PEM, and after them which key has followed which.
    pub(super) fn bundle(&self) -> Result<String, Failure> {
        let anchors = self.state.anchors();
        let newest = anchors.iter().copied().max().unwrap_or_default();
        let pems: Result<String, Failure> =
            anchors.into_iter().map(|number| Ok(pem(&self.certificate(number)?))).collect();
        let kept = newest.saturating_sub(SUCCESSIONS_KEPT).saturating_add(1)..=newest;
        let paths = kept.map(|number| self.file(number, SUCCESSION)).filter(|path| path.exists());
        let told: Result<String, Failure> = paths.map(|path| disk::read(&path)).collect();
        Ok(pems? + &told?)
    }

    /// Names the anchors as they are handed out: what is spoken where they are accepted.
    pub(super) fn anchors_print(&self) -> Result<Fingerprint, Failure> {
        Ok(Fingerprint::of_der(self.bundle()?.as_bytes()))
    }

    pub(super) fn anchors_path(&self) -> PathBuf {
        self.folder.join(anchors_file(&self.site))
    }

    pub(super) fn bans_path(&self) -> PathBuf {
        self.folder.join(BANS)
    }

    /// Who is shut out.
    pub(super) fn bans(&self) -> Result<Bans, Failure> {
        let path = self.bans_path();
        let wrong = |fault| Failure::new(Exit::Configuration, format!("{}: {fault}", path.display()));
        disk::read(&path)?.parse().map_err(wrong)
    }

    /// The certificate of a key, held against the profile.
    pub(super) fn signer(&self, number: u32) -> Result<Signer, Failure> {
        let domain = self.naming.domain_of(&self.site);
        let domain = domain.map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
        svid::read_signer(&self.certificate(number)?, &domain).map_err(|fault| {
            Failure::new(Exit::Configuration, format!("{}: {fault}", self.file(number, "pem").display()))
        })
    }

    pub(super) fn certificate(&self, number: u32) -> Result<CertificateDer<'static>, Failure> {
        let path = self.file(number, "pem");
        CertificateDer::from_pem_slice(disk::read(&path)?.as_bytes())
            .map_err(|error| Failure::new(Exit::Configuration, format!("{}: not PEM ({error})", path.display())))
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Failure> {
        let key = self.key(self.state.active)?;
        Issuer::from_ca_cert_der(&self.certificate(self.state.active)?, key).map_err(certificate::cannot)
    }

    /// A key of this authority, held against its certificate.
    pub(super) fn key(&self, number: u32) -> Result<KeyPair, Failure> {
        let path = self.file(number, "key");
        let wrong = |what: &str| Failure::new(Exit::Configuration, format!("{}: {what}", path.display()));
        let key =
            KeyPair::from_pem(&disk::read_secret(&path)?).map_err(|_unreadable| wrong("not a private key in PEM"))?;
        if Fingerprint::of_der(&key.subject_public_key_info()) != self.signer(number)?.key {
            return Err(wrong("not the key of the certificate beside it: restore both from a backup"));
        }
        Ok(key)
    }

    fn file(&self, number: u32, ending: &str) -> PathBuf {
        self.folder.join(format!("ca-{number}.{ending}"))
    }
}

/// The name of the file with a site's anchors, wherever it is put.
pub(super) fn anchors_file(site: &SiteId) -> String {
    format!("anchors-{site}.pem")
}

/// Certificates as text.
pub(super) fn pem(der: &CertificateDer<'_>) -> String {
    section("CERTIFICATE", der)
}

fn section(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let characters: Vec<char> = text.chars().collect();
    let lines: String = characters.chunks(64).map(|line| line.iter().collect::<String>() + "\n").collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

/// The stable text of a mapping, as in the settings.
pub(super) fn mapping_text(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::PathSite => "path-site",
        Mapping::DomainSite => "domain-site",
    }
}

fn parse_mapping(text: &str) -> Option<Mapping> {
    [Mapping::PathSite, Mapping::DomainSite].into_iter().find(|mapping| mapping_text(*mapping) == text)
}

pub(super) fn seconds(at: Wall) -> u64 {
    at.as_millis().wrapping_div(1_000)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! What the certificates of an authority look like: its own, and those it issues. Nothing here touches a file.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;

use crate::cli::exit::{Exit, Failure};
use crate::domain::identity::{Naming, Subject, SubjectName};
use crate::domain::time::{Millis, Wall};

/// Certificates begin a little in the past, because clocks of a plant differ.
const SKEW: Millis = Millis::from_secs(300);
/// Most further names in one certificate: a node with more addresses is a router, which is not dialed by them.
const NAMES_MAX: usize = 16;

/// Names under which a node is reached, beside its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) dns: Vec<String>,
    pub(super) ip: Vec<IpAddr>,
}

impl Names {
    /// Takes names that a certificate may have.
    pub(super) fn new(dns: &[String], ip: &[IpAddr]) -> Result<Self, Failure> {
        if dns.len().saturating_add(ip.len()) > NAMES_MAX {
            return Err(Failure::new(Exit::Usage, format!("wanted at most {NAMES_MAX} DNS names and addresses")));
        }
        for name in dns {
            DnsName::try_from(name.as_str())
                .map_err(|error| Failure::new(Exit::Usage, format!("--dns {name:?}: {error}")))?;
        }
        Ok(Self { dns: dns.to_vec(), ip: ip.to_vec() })
    }
}

/// From when until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Wall,
    pub(super) until: Wall,
}

impl Span {
    pub(super) fn new(now: Wall, life: Millis) -> Self {
        Self { from: now.minus(SKEW), until: now.plus(life) }
    }
}

/// An authority's own certificate: it signs leaves and no other authority.
pub(super) fn of_authority(
    naming: &Naming,
    site: &str,
    generation: u32,
    span: Span,
) -> Result<CertificateParams, Failure> {
    let site_id = site.parse().map_err(|error| Failure::new(Exit::Usage, format!("site {site:?}: {error}")))?;
    let domain = naming.domain_of(&site_id).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let mut params = begin(span)?;
    params.distinguished_name = distinguished(site, &format!("CA {generation}"));
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate for somebody.
pub(super) fn of_subject(
    naming: &Naming,
    subject: &Subject,
    names: &Names,
    span: Span,
) -> Result<CertificateParams, Failure> {
    let id = naming.id_of(subject).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let (SubjectName::Actor(name) | SubjectName::Runtime(name)) = &subject.name;
    let mut params = begin(span)?;
    params.distinguished_name = distinguished(subject.site.as_str(), name.as_str());
    params.subject_alt_names = vec![uri(&id.to_string())?];
    for name in &names.dns {
        params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
    }
    params.subject_alt_names.extend(names.ip.iter().copied().map(SanType::IpAddress));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Signs a certificate for a public key.
pub(super) fn sign(
    params: &CertificateParams,
    key: &impl PublicKeyData,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<CertificateDer<'static>, Failure> {
    let made = params.signed_by(key, issuer).map_err(cannot)?;
    Ok(made.der().clone())
}

/// What a library says when it cannot make something.
pub(super) fn cannot(error: rcgen::Error) -> Failure {
    Failure::failed(format!("the certificate cannot be made: {error}"))
}

/// A point of our time as certificates and people write it.
pub(super) fn moment(at: Wall) -> Result<OffsetDateTime, Failure> {
    let seconds = i64::try_from(at.as_millis().wrapping_div(1_000)).ok();
    let moment = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    moment.ok_or_else(|| Failure::failed(format!("{at} is beyond the reach of certificates")))
}

fn begin(span: Span) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::default();
    params.not_before = moment(span.from)?;
    params.not_after = moment(span.until)?;
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

/// 127 random bits: nobody can guess the next one, and it is positive in at most 20 bytes (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<SerialNumber, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("the system's random bytes: {error}")))?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn distinguished(site: &str, name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, site);
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn uri(text: &str) -> Result<SanType, Failure> {
    ia5(text).map(SanType::URI)
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, Failure> {
    text.try_into().map_err(cannot)
}

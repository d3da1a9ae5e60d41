//! What a certificate must look like to be somebody's identity here: the X.509-SVID profile, strictly.
//!
//! A path to an anchor proves who signed a certificate, not that it is an identity: the libraries that check paths do not look
//! at key usage, names or the number of them. Where the specification leaves a choice, the strict side is taken, because a
//! plant issues its own certificates: constraints that are absent, usages that are not critical and a site's id in capitals are
//! refused. Nothing here checks a signature or a moment; that is `anchors`.

use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::domain::identity::{ActorError, Fingerprint, Naming, NamingError, SpiffeId, Subject, TrustDomain};
use crate::domain::time::{Millis, Wall};

/// Longest accepted certificate in bytes: an RSA-4096 one with an id of 2,048 bytes and a dozen names has less than half.
pub const CERTIFICATE_BYTES_MAX: usize = 8_192;

/// Which rule of the profile a certificate breaks, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than any honest one.
    #[error("a certificate has at most {CERTIFICATE_BYTES_MAX} bytes, this one has {0}: issue one with fewer names")]
    TooLarge(usize),
    /// Not DER, or not a certificate.
    #[error("not an X.509 certificate in DER ({0}): export it anew")]
    Malformed(String),
    /// Something follows the certificate.
    #[error("{0} bytes follow the certificate: export it anew, alone")]
    Trailing(usize),
    /// An extension's name is written in a way that hides it from those who look for it.
    #[error("the name of an extension is not written in its shortest form: issue the certificate anew")]
    HiddenExtension,
    /// One extension stands twice.
    #[error("the extension {0} stands twice: issue the certificate anew")]
    RepeatedExtension(String),
    /// A name that cannot be read.
    #[error("a subject alternative name cannot be read: issue the certificate anew")]
    MalformedName,
    /// Not exactly one URI among the names.
    #[error("wanted exactly one URI among the subject alternative names, got {0}: issue it with its SPIFFE ID alone")]
    UriCount(usize),
    /// The URI is no canonical SPIFFE ID.
    #[error("the URI among the subject alternative names is no SPIFFE ID: {0}: issue it with a canonical one")]
    Id(#[source] ActorError),
    /// The id names nobody here.
    #[error("{0}")]
    Name(#[source] NamingError),
    /// Without a subject the alternative names are the only name and must be critical.
    #[error("the subject is empty, so the subject alternative names must be critical: issue it so, or with a subject")]
    NamesNotCritical,
    /// Nothing says that it is no CA.
    #[error("basic constraints are absent: issue it with basic constraints that say CA:FALSE")]
    ConstraintsMissing,
    /// A CA presented as somebody.
    #[error("it is a CA's certificate and signs only: present one that the CA has issued (CA:FALSE)")]
    LeafIsCa,
    /// Nothing says what the key is for.
    #[error("key usage is absent: issue it with key usage digitalSignature, critical")]
    UsageMissing,
    /// Who does not know key usage may ignore it.
    #[error("key usage is not critical: issue it with key usage digitalSignature, critical")]
    UsageNotCritical,
    /// The key is not for signatures.
    #[error("key usage lacks digitalSignature: issue it with key usage digitalSignature, critical")]
    NoSignature,
    /// The key may sign certificates or lists.
    #[error("key usage has {0}, which is a CA's alone: issue it with key usage digitalSignature only")]
    UsageOfCa(&'static str),
    /// Purposes are named, and one of the two is missing.
    #[error("extended key usage lacks {0}: issue it with serverAuth and clientAuth, or without the extension")]
    PurposeMissing(&'static str),
    /// A certificate that signs is no CA's.
    #[error("it signs others and is no CA's: sign with a certificate that has CA:TRUE")]
    SignerIsNotCa,
    /// A CA's key may not sign certificates.
    #[error("a CA's certificate lacks key usage keyCertSign: issue the CA's certificate with it")]
    NoCertSign,
    /// A CA's id has a path.
    #[error("a CA's SPIFFE ID has no path, this one is {0}: issue the CA's certificate with spiffe://<trust-domain>")]
    SignerPath(SpiffeId),
    /// A CA of another trust domain.
    #[error("the CA is of trust domain {got}, wanted {wanted}: use a CA of that trust domain")]
    SignerDomain {
        /// Whom it signs for here.
        wanted: TrustDomain,
        /// Whose it says it is.
        got: TrustDomain,
    },
}

/// Somebody's identity, as its certificate says. Proves nothing until a path to an anchor is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// The SPIFFE ID, in its canonical bytes.
    pub id: SpiffeId,
    /// Whom the id names: the site, and in it an actor or a runtime.
    pub subject: Subject,
    /// From when it holds.
    pub not_before: Wall,
    /// The last second in which it holds.
    pub not_after: Wall,
    /// SHA-256 of the public key with its algorithm (SubjectPublicKeyInfo in DER).
    pub key: Fingerprint,
    /// SHA-256 of the certificate in DER.
    pub certificate: Fingerprint,
    /// The public key with its algorithm (SubjectPublicKeyInfo in DER).
    pub public_key: Arc<[u8]>,
}

/// A CA's certificate that keeps the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// From when it holds.
    pub not_before: Wall,
    /// The last second in which it holds.
    pub not_after: Wall,
    /// SHA-256 of the public key with its algorithm.
    pub key: Fingerprint,
    /// SHA-256 of the certificate in DER.
    pub certificate: Fingerprint,
    /// How many further signers may stand between it and a leaf; any number if it does not say.
    pub signers_below: Option<u32>,
}

/// Reads a certificate that stands for somebody.
pub fn read_leaf(der: &[u8], naming: &Naming) -> Result<Svid, Fault> {
    let certificate = parse(der)?;
    check_leaf_constraints(&certificate)?;
    check_leaf_usage(&certificate)?;
    check_purposes(&certificate)?;
    let id = read_id(&certificate)?.ok_or(Fault::UriCount(0))?;
    let subject = naming.subject(&id).map_err(Fault::Name)?;
    let validity = certificate.validity();
    Ok(Svid {
        id,
        subject,
        not_before: wall(validity.not_before),
        not_after: wall(validity.not_after),
        key: Fingerprint::of_der(certificate.public_key().raw),
        certificate: Fingerprint::of_der(der),
        public_key: certificate.public_key().raw.into(),
    })
}

/// Reads a certificate that signs others, on a path or at its end.
pub fn read_signer(der: &[u8], trust_domain: &TrustDomain) -> Result<Signer, Fault> {
    let certificate = parse(der)?;
    let constraints = certificate.basic_constraints().map_err(|_twice| repeated("basic constraints"))?;
    let Some(constraints) = constraints.filter(|it| it.value.ca) else { return Err(Fault::SignerIsNotCa) };
    let usage = certificate.key_usage().map_err(|_unreadable| malformed("key usage"))?;
    if !usage.is_some_and(|it| it.value.key_cert_sign()) {
        return Err(Fault::NoCertSign);
    }
    match read_id(&certificate)? {
        Some(id) if !id.path.is_empty() => Err(Fault::SignerPath(id)),
        Some(id) if id.trust_domain != *trust_domain => {
            Err(Fault::SignerDomain { wanted: trust_domain.clone(), got: id.trust_domain })
        }
        // A CA should have an id and need not (X.509-SVID section 3.2).
        Some(_) | None => Ok(describe(&certificate, der, constraints.value.path_len_constraint)),
    }
}

/// The trust domain that a certificate which signs others names; none where it has no id.
pub fn domain_of_signer(der: &[u8]) -> Option<TrustDomain> {
    let id = parse(der).and_then(|certificate| read_id(&certificate));
    id.ok().flatten().map(|id| id.trust_domain)
}

/// The last second in which a certificate holds, be it of this profile or not.
pub fn end_of(der: &[u8]) -> Option<Wall> {
    let (_rest, certificate) = X509Certificate::from_der(der).ok()?;
    Some(wall(certificate.validity().not_after))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Fault> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(Fault::TooLarge(der.len()));
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| Fault::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Fault::Trailing(rest.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for extension in certificate.extensions() {
        if !is_shortest(extension.oid.as_bytes()) {
            return Err(Fault::HiddenExtension);
        }
        if !seen.insert(extension.oid.as_bytes()) {
            return Err(repeated(&extension.oid.to_id_string()));
        }
    }
    Ok(certificate)
}

/// Whether no number of an object identifier begins with an empty group of bits. Otherwise `2.5.29.37` could be written so
/// that it is not found, and what is absent here is what somebody else finds.
fn is_shortest(oid: &[u8]) -> bool {
    let mut is_start = true;
    oid.iter().all(|byte| {
        let is_padding = is_start && *byte == 0x80;
        is_start = byte & 0x80 == 0;
        !is_padding
    })
}

fn check_leaf_constraints(certificate: &X509Certificate<'_>) -> Result<(), Fault> {
    let constraints = certificate.basic_constraints().map_err(|_twice| repeated("basic constraints"))?;
    let constraints = constraints.ok_or(Fault::ConstraintsMissing)?;
    if constraints.value.ca { Err(Fault::LeafIsCa) } else { Ok(()) }
}

fn check_leaf_usage(certificate: &X509Certificate<'_>) -> Result<(), Fault> {
    let usage = certificate.key_usage().map_err(|_unreadable| malformed("key usage"))?;
    let usage = usage.ok_or(Fault::UsageMissing)?;
    if usage.value.key_cert_sign() {
        return Err(Fault::UsageOfCa("keyCertSign"));
    }
    if usage.value.crl_sign() {
        return Err(Fault::UsageOfCa("cRLSign"));
    }
    if !usage.value.digital_signature() {
        return Err(Fault::NoSignature);
    }
    if usage.critical { Ok(()) } else { Err(Fault::UsageNotCritical) }
}

/// Whoever names purposes names both: a node is a server and a client (X.509-SVID section 4.4).
fn check_purposes(certificate: &X509Certificate<'_>) -> Result<(), Fault> {
    let purposes = certificate.extended_key_usage().map_err(|_unreadable| malformed("extended key usage"))?;
    match purposes {
        Some(purposes) if !purposes.value.server_auth => Err(Fault::PurposeMissing("serverAuth")),
        Some(purposes) if !purposes.value.client_auth => Err(Fault::PurposeMissing("clientAuth")),
        Some(_) | None => Ok(()),
    }
}

/// The one URI among the names as an id; none if there is no URI.
fn read_id(certificate: &X509Certificate<'_>) -> Result<Option<SpiffeId>, Fault> {
    let names = certificate.subject_alternative_name().map_err(|_unreadable| Fault::MalformedName)?;
    let Some(names) = names else { return Ok(None) };
    if names.value.general_names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(Fault::MalformedName);
    }
    let uris: Vec<&str> = names.value.general_names.iter().filter_map(as_uri).collect();
    let id = match uris.as_slice() {
        [] => return Ok(None),
        [uri] => uri.parse().map_err(Fault::Id)?,
        more => return Err(Fault::UriCount(more.len())),
    };
    if certificate.subject().iter().next().is_none() && !names.critical {
        return Err(Fault::NamesNotCritical);
    }
    Ok(Some(id))
}

fn as_uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(uri) = name { Some(uri) } else { None }
}

fn describe(certificate: &X509Certificate<'_>, der: &[u8], signers_below: Option<u32>) -> Signer {
    let validity = certificate.validity();
    Signer {
        not_before: wall(validity.not_before),
        not_after: wall(validity.not_after),
        key: Fingerprint::of_der(certificate.public_key().raw),
        certificate: Fingerprint::of_der(der),
        signers_below,
    }
}

/// A moment before 1970 is 1970; one beyond the reach of our time is its end.
fn wall(time: ASN1Time) -> Wall {
    Wall(0).plus(Millis::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}

fn repeated(name: &str) -> Fault {
    Fault::RepeatedExtension(name.to_owned())
}

fn malformed(name: &str) -> Fault {
    Fault::Malformed(format!("{name} cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_identifier_has_one_form() {
        assert!(is_shortest(&[0x55, 0x1d, 0x25]));
        assert!(is_shortest(&[0x2b, 0x86, 0x80, 0x01]), "a group in the middle may be empty");
        assert!(!is_shortest(&[0x55, 0x1d, 0x80, 0x25]));
        assert!(!is_shortest(&[0x80, 0x55]));
    }

    #[test]
    fn what_is_no_certificate_is_refused_before_it_is_read() {
        let naming = Naming {
            trust_domain: "trust".parse().expect("legal"),
            mapping: crate::domain::identity::Mapping::PathSite,
        };
        assert_eq!(read_leaf(&vec![0x30; 8_193], &naming), Err(Fault::TooLarge(8_193)));
        assert!(matches!(read_leaf(&vec![0x30; 8_192], &naming), Err(Fault::Malformed(_))));
        assert!(matches!(read_leaf(&[], &naming), Err(Fault::Malformed(_))));
    }

    /// Whoever is warned of an end is warned of any certificate's, such as one for browsers.
    #[test]
    fn a_certificate_of_any_profile_says_until_when_it_holds() {
        let mut params = rcgen::CertificateParams::new(vec!["panel.example".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(2_030, 5, 17);
        let end = u64::try_from(params.not_after.unix_timestamp()).expect("since 1970");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        assert_eq!(end_of(certificate.der()), Some(Wall::default().plus(Millis::from_secs(end))));
        assert_eq!(end_of(b"no certificate"), None);
    }
}

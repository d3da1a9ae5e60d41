//! A node's own key and its request for a certificate, and what the authority reads out of a request.
//!
//! Of a request only the key, the id and the names under which the node is reached are taken, and only after the request has
//! proved that whoever made it has the key. What the certificate may be used for is the authority's to say.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PublicKey, PublicKeyData, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

use crate::cli::commands::identity::accept;
use crate::cli::commands::identity::certificate::{self, Names, Span};
use crate::cli::commands::identity::disk::{self, PUBLIC, SECRET};
use crate::cli::exit::{Exit, Failure};
use crate::domain::identity::{Fingerprint, Naming, SpiffeId, Subject, SubjectName};
use crate::domain::time::{Millis, Wall};

/// What `enrol` has made.
#[derive(Debug)]
pub(super) struct Enrolled {
    pub(super) key_path: PathBuf,
    pub(super) request_path: PathBuf,
    pub(super) is_new_key: bool,
    /// Where it is noted whose answer the key takes; nothing for an actor's, and for one from before there were such notes.
    pub(super) expects: Option<PathBuf>,
    pub(super) fingerprint: Fingerprint,
    pub(super) id: SpiffeId,
}

/// A request whose maker has the key.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) key: PublicKey,
    pub(super) fingerprint: Fingerprint,
    pub(super) id: SpiffeId,
    pub(super) subject: Subject,
    pub(super) names: Names,
}

/// What the files of a subject are called.
pub(super) fn file_name(subject: &Subject, ending: &str) -> String {
    match &subject.name {
        SubjectName::Runtime(name) => format!("node-{name}.{ending}"),
        SubjectName::Actor(name) => format!("actor-{name}.{ending}"),
    }
}

/// Makes a key where there is none, and a request with it. The pin is that of the join token, if there is one.
pub(super) fn enrol(
    folder: &Path,
    naming: &Naming,
    subject: &Subject,
    names: &Names,
    pin: Option<Fingerprint>,
) -> Result<Enrolled, Failure> {
    disk::make_folder(folder)?;
    let key_path = folder.join(file_name(subject, "key"));
    let request_path = folder.join(file_name(subject, "csr"));
    let is_new_key = !key_path.exists();
    // Before the key: none may be left by a crash of which nobody knows what it waits for.
    let expects = match &subject.name {
        SubjectName::Runtime(_) => accept::expect(&key_path, is_new_key, &subject.site, pin)?,
        SubjectName::Actor(_) => None,
    };
    let key = if is_new_key { make_key(&key_path)? } else { read_key(&key_path)? };
    let id = naming.id_of(subject).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let whole = certificate::of_subject(naming, subject, names, Span::new(Wall(0), Millis(0)))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = whole.distinguished_name;
    params.subject_alt_names = whole.subject_alt_names;
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(certificate::cannot)?;
    disk::write(&request_path, request.as_bytes(), PUBLIC)?;
    let fingerprint = Fingerprint::of_der(&key.subject_public_key_info());
    Ok(Enrolled { key_path, request_path, is_new_key, expects, fingerprint, id })
}

/// A new P-256 key in a file that only its owner may read.
pub(super) fn make_key(path: &Path) -> Result<KeyPair, Failure> {
    let key = KeyPair::generate().map_err(certificate::cannot)?;
    disk::write(path, key.serialize_pem().as_bytes(), SECRET)?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<KeyPair, Failure> {
    KeyPair::from_pem(&disk::read_secret(path)?).map_err(|_unreadable| {
        let message = format!("{}: not a private key in PEM: remove it to begin with a new key", path.display());
        Failure::new(Exit::Configuration, message)
    })
}

/// Reads a request and checks that its maker has the key.
pub(super) fn read(path: &Path, naming: &Naming) -> Result<Request, Failure> {
    let wrong = |what: String| Failure::new(Exit::Configuration, format!("{}: {what}", path.display()));
    let der = CertificateSigningRequestDer::from_pem_slice(disk::read(path)?.as_bytes())
        .map_err(|error| wrong(format!("not a request in PEM ({error}): make one with `identity enrol`")))?;
    let request = CertificateSigningRequestParams::from_der(&der).map_err(|error| {
        if error == rcgen::Error::InvalidCertificationRequestSignature {
            let message = "its signature does not hold: whoever made it does not have the key";
            return Failure::new(Exit::Denied, format!("{}: {message}", path.display()));
        }
        wrong(format!("{error}: make one with `identity enrol`"))
    })?;
    if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(wrong("wanted an ECDSA P-256 key: make one with `identity enrol`".to_owned()));
    }
    let (id, names) = read_names(&request.params.subject_alt_names).map_err(wrong)?;
    let subject = naming.subject(&id).map_err(|error| wrong(error.to_string()))?;
    let names = Names::new(&names.dns, &names.ip)?;
    let fingerprint = Fingerprint::of_der(&request.public_key.subject_public_key_info());
    Ok(Request { key: request.public_key, fingerprint, id, subject, names })
}

/// The one id among the names, and the names under which the node is reached.
fn read_names(all: &[SanType]) -> Result<(SpiffeId, Names), String> {
    let mut names = Names::default();
    let mut ids = Vec::new();
    for name in all {
        if let SanType::URI(uri) = name {
            ids.push(uri.to_string());
        } else if let SanType::DnsName(name) = name {
            names.dns.push(name.to_string());
        } else if let SanType::IpAddress(address) = name {
            names.ip.push(*address);
        } else {
            return Err("wanted a SPIFFE ID, DNS names and addresses, got another name".to_owned());
        }
    }
    let [id] = ids.as_slice() else { return Err(format!("wanted one SPIFFE ID, got {}", ids.len())) };
    Ok((id.parse().map_err(|error| format!("{id:?}: {error}"))?, names))
}

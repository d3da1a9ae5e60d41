//! Asks the rules who a peer is, during the handshake. Signatures are checked by the provider, never here.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::Subject;
use crate::domain::identity::anchors::{Refusal, Usage};
use crate::tls::config::ClientCertificates;
use crate::tls::identity::Identity;
use crate::tls::link::{self, WrongName};
use crate::tls::signatures;

/// Somebody with a good certificate who is not the one that was dialed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted runtime {wanted}, got {got}: check the address, or who listens there")]
pub struct WrongPeer {
    /// Who was dialed.
    pub wanted: RuntimeId,
    /// Who answered.
    pub got: Subject,
}

/// The rule that ended a handshake on this side, for the log. The peer is told no more than that it was refused.
pub fn refusal_of(error: &io::Error) -> Option<&Refusal> {
    other(error).and_then(|cause| cause.downcast_ref())
}

/// Why a handshake failed, in the words of the rule where one ended it.
pub fn explain(error: &io::Error) -> String {
    other(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn other(error: &io::Error) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else { return None };
    Some(cause.as_ref())
}

fn refused(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(cause))))
}

/// Verifies callers.
#[derive(Debug)]
pub(super) struct Callers {
    identity: Arc<Identity>,
    certificates: ClientCertificates,
}

impl Callers {
    pub(super) fn new(identity: Arc<Identity>, certificates: ClientCertificates) -> Self {
        Self { identity, certificates }
    }
}

impl ClientCertVerifier for Callers {
    /// What is presented must hold, whether it must be presented or not: a refused certificate never becomes "none".
    fn client_auth_mandatory(&self) -> bool {
        self.certificates == ClientCertificates::Required
    }

    /// A stranger is not told which authorities there are.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        self.identity.verify(&chain, Usage::Client).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures::of_tls13!();
}

/// Who may answer.
#[derive(Debug)]
pub(super) enum Expected {
    /// One runtime, at whatever address. An address can be anybody's, the id is one runtime's.
    Runtime(RuntimeId),
    /// Whichever node of this site its certificate allows to be at the address that was dialed.
    Neighbour(SiteId),
}

/// Verifies who is dialed.
#[derive(Debug)]
pub(super) struct Dialed {
    identity: Arc<Identity>,
    expected: Expected,
}

impl Dialed {
    pub(super) fn new(identity: Arc<Identity>, expected: Expected) -> Self {
        Self { identity, expected }
    }
}

impl ServerCertVerifier for Dialed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        let verified = self.identity.verify(&chain, Usage::Server).map_err(refused)?;
        let got = verified.svid.subject;
        match &self.expected {
            Expected::Runtime(wanted) if got != Subject::of_runtime(wanted) => {
                return Err(refused(WrongPeer { wanted: wanted.clone(), got }));
            }
            Expected::Runtime(_) => {}
            Expected::Neighbour(site) => {
                link::check_neighbour(site, &got).map_err(refused)?;
                let named =
                    EndEntityCert::try_from(end_entity).and_then(|it| it.verify_is_valid_for_subject_name(name));
                named.map_err(|_other| refused(WrongName { dialed: name.to_str().into_owned(), got }))?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures::of_tls13!();
}

fn chain<'a>(end_entity: &CertificateDer<'a>, intermediates: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    [end_entity].into_iter().chain(intermediates).cloned().collect()
}

//! Calls to a listener whose key the caller already knows: the command line of a project and the node of that project share
//! the state folder, so neither settings nor an authority stand between them, and a node can be asked to reload a repaired
//! file, or a renewed certificate, when nothing else about it is in order.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use crate::domain::identity::Fingerprint;
use crate::tls::identity::provider;
use crate::tls::signatures;

/// For a call to whoever holds this key. Presents nothing.
pub fn client(key: Fingerprint) -> Result<ClientConfig, Error> {
    let verifier = Pinned { key };
    let config = ClientConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(&[&TLS13])?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = config.with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Verifies that the listener has the key. Its certificate's time and path do not matter: the key is who it is.
#[derive(Debug)]
struct Pinned {
    key: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_malformed| CertificateError::BadEncoding)?;
        if Fingerprint::of_der(certificate.subject_public_key_info().as_ref()) == self.key {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    signatures::of_tls13!();
}

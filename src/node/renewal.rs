//! The own certificate's renewal: asked for in time, checked by all rules, written as a whole. The reload takes it up.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::domain::audit::Hash;
use crate::domain::id::RuntimeId;
use crate::domain::identity::{Subject, renewal};
use crate::domain::time::Wall;
use crate::engine::Entropy as _;
use crate::engine::view::View;
use crate::mesh::{Mesh, Verb};
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::draft::replace;
use crate::node::issuer::Issuer;
use crate::tls;
use crate::wire::mesh::{self as message, CertificateKey, Renewed};

/// How long the issuer may take: it reads its folder and writes to two disks.
const BUDGET: Duration = Duration::from_secs(15);

/// The mode of a certificate's file: everybody may read it.
const PUBLIC: u32 = 0o644;

/// The certificate that is to be renewed, and who is asked.
#[derive(Debug, Clone)]
pub struct Renewing {
    /// The identity in use.
    pub identity: Arc<tls::Identity>,
    /// Its file.
    pub svid: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// The node that is asked; the own one where it holds the authority itself.
    pub issuer: RuntimeId,
}

/// Asks until the node stops.
#[derive(Debug)]
pub(super) struct Renewer {
    pub(super) clock: Clock,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) own_issuer: Option<Arc<Issuer>>,
    pub(super) options: Renewing,
}

impl Renewer {
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            let own = self.options.identity.snapshot();
            let (from, until) = (own.own().svid.not_before, own.own().until);
            let mut random = [0; 1];
            SystemEntropy.fill(&mut random);
            let [chance] = random;
            let pause = Duration::from_millis(renewal::pause(until, self.clock.now().wall, chance).0);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            if renewal::is_due(from, until, self.clock.now().wall)
                && let Some(Err(reason)) = stop.run_until_cancelled(self.renew(&own)).await
            {
                tracing::warn!(issuer = %self.options.issuer, %reason, "the certificate was not renewed; it is tried again");
            }
        }
    }

    async fn renew(&self, own: &tls::Snapshot) -> Result<(), String> {
        let issued = match &self.own_issuer {
            Some(issuer) if self.options.issuer == *self.views.load().me() => {
                let certificate = own.chain().first().ok_or("there is no certificate")?.clone();
                issuer.issue(self.views.load().me(), &certificate).await?
            }
            Some(_) | None => self.ask(own).await?,
        };
        let until = self.check(own, &issued)?;
        let path = self.options.svid.clone();
        let written = tokio::task::spawn_blocking(move || replace(&path, pem(&issued).as_bytes(), PUBLIC)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tracing::info!(issuer = %self.options.issuer, %until, "the certificate was renewed");
        Ok(())
    }

    async fn ask(&self, own: &tls::Snapshot) -> Result<CertificateDer<'static>, String> {
        let issuer = &self.options.issuer;
        let (sealed, digest) = question(own, issuer, self.clock.now().wall).ok_or("the key does not sign")?;
        let opened = OnceLock::new();
        let accept = |bytes: &[u8]| {
            let now = self.clock.now().wall;
            let renewed = message::open_renewed(&self.views.load(), issuer, digest, bytes, now);
            renewed.is_ok_and(|renewed| opened.set(renewed).is_ok())
        };
        let answered = self.mesh.query(issuer, Verb::Renew, sealed, BUDGET, &accept).await;
        match (opened.into_inner(), answered) {
            (Some(Renewed::Issued(certificate)), _) => Ok(certificate),
            (Some(Renewed::Refused(reason)), _) => Err(format!("the issuer refuses: {reason}")),
            (None, Err(error)) => Err(error.to_string()),
            (None, Ok(_)) => Err("an answer came that is not the issuer's".to_owned()),
        }
    }

    /// By all rules that hold at a start, and it must prolong the one in force.
    fn check(&self, own: &tls::Snapshot, issued: &CertificateDer<'static>) -> Result<Wall, String> {
        let key = tls::files::private_key(&self.options.key).map_err(|error| error.to_string())?;
        let subject = Subject::of_runtime(self.views.load().me());
        let now = self.clock.now().wall;
        let next = tls::Snapshot::new(vec![issued.clone()], key, own.trust().clone(), &subject, now);
        let next = next.map_err(|fault| fault.to_string())?;
        renewal::prolongs(&own.own().svid, &next.own().svid).map_err(|fault| fault.to_string())?;
        Ok(next.own().until)
    }
}

/// The question, signed by the key of the certificate in force.
fn question(own: &tls::Snapshot, issuer: &RuntimeId, now: Wall) -> Option<(Vec<u8>, Hash)> {
    let sign = |message: &[u8]| own.sign(message);
    let certificate = CertificateKey { key: own.own().svid.key, chain: own.chain(), sign: &sign };
    message::seal_renewal(&certificate, issuer, now)
}

pub(super) fn pem(der: &CertificateDer<'_>) -> String {
    let characters: Vec<char> = STANDARD.encode(der).chars().collect();
    let lines: String = characters.chunks(64).map(|line| line.iter().collect::<String>() + "\n").collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

//! The site's authority on a running node: it renews certificates of nodes that prove the key of the one in force.
//!
//! The authority's key is read by a process of its own, `trust-runtime identity renew`, for as long as one certificate takes:
//! the process that listens on the network never has it in its memory. That process checks everything again.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::domain::audit::Outcome;
use crate::domain::id::RuntimeId;
use crate::domain::identity::Fingerprint;
use crate::engine::input::Request;
use crate::engine::renewal_draft;
use crate::mesh::{self, Responder};
use crate::node::clock::SystemEntropy;
use crate::node::driver::Mail;
use crate::node::ingress::Ingress;
use crate::wire::mesh::{self as message, Renewed};

/// Longest reason that is handed on, in characters.
const REASON_CHARS_MAX: usize = 300;

/// The authority's folder and the program that works on it.
#[derive(Debug)]
pub(super) struct Issuer {
    folder: PathBuf,
    mailbox: mpsc::Sender<Mail>,
    /// One at a time: whoever comes meanwhile comes again.
    work: Mutex<()>,
}

impl Issuer {
    pub(super) fn new(folder: PathBuf, mailbox: mpsc::Sender<Mail>) -> Self {
        Self { folder, mailbox, work: Mutex::new(()) }
    }

    /// Renews a certificate whose key was proved. It is on record before it is given.
    pub(super) async fn issue(
        &self,
        runtime: &RuntimeId,
        certificate: &CertificateDer<'static>,
    ) -> Result<CertificateDer<'static>, String> {
        let Ok(_one_at_a_time) = self.work.try_lock() else { return Err("server_busy".to_owned()) };
        let (folder, in_force) = (self.folder.clone(), certificate.clone());
        let run = tokio::task::spawn_blocking(move || run(&folder, &in_force)).await;
        let issued = run.map_err(|error| error.to_string())??;
        let detail = format!("certificate {}", Fingerprint::of_der(&issued));
        let (reply, recorded) = oneshot::channel();
        let request = Request::Renewed { runtime: runtime.clone(), detail };
        let sent = self.mailbox.send(Mail::Request(request, reply)).await;
        match (sent, recorded.await) {
            (Ok(()), Ok(Ok(crate::engine::effect::Answer::Recorded))) => Ok(issued),
            (_, _) => Err("it could not be put on record".to_owned()),
        }
    }
}

/// Lets the program issue, with nothing of this process but the certificate in force.
fn run(folder: &std::path::Path, certificate: &CertificateDer<'_>) -> Result<CertificateDer<'static>, String> {
    let failed = |error: std::io::Error| format!("the authority's program: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["identity", "renew", "--certificate", "-", "--ca"]).arg(folder).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(super::renewal::pem(certificate).as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(text.lines().last().unwrap_or("refused").chars().take(REASON_CHARS_MAX).collect());
    }
    CertificateDer::from_pem_slice(&output.stdout).map_err(|error| format!("the authority's program: {error}"))
}

impl Ingress {
    /// Answers a node that asks for its next certificate.
    pub(super) async fn renew(&self, origin: &RuntimeId, payload: &[u8], responder: Responder) {
        let view = self.views.load_full();
        let question = match message::open_renewal(&view, origin, payload, self.clock.now().wall) {
            Ok(question) => question,
            Err(refusal) => return self.refuse(refusal, responder),
        };
        let renewed = match &self.issuer {
            None => Err("this node holds no authority".to_owned()),
            Some(_) if view.is_read_only => Err("storage_unavailable".to_owned()),
            Some(issuer) => issuer.issue(&question.runtime, &question.certificate).await,
        };
        let renewed = renewed.map_or_else(
            |reason| {
                self.refused.count("renewal_refused");
                let now = self.clock.now();
                let detail = reason.clone();
                let settings = &view.settings;
                let draft =
                    renewal_draft(now, &mut SystemEntropy, settings, &question.runtime, Outcome::Denied, detail);
                if self.store.append_read(draft).is_err() {
                    self.refused.count("unrecorded_read");
                }
                tracing::warn!(runtime_id = %question.runtime, %reason, "a certificate was not renewed");
                Renewed::Refused(reason)
            },
            Renewed::Issued,
        );
        let sealed = message::seal_renewed(&self.keyring.keys(), question.digest, &renewed);
        responder.answer(mesh::Answer::Reply(sealed));
    }
}

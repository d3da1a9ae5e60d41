//! The site's authority on a running node: it renews certificates of nodes that prove the key of the one in force.
//!
//! The authority's key is read by a process of its own, `trust-runtime identity renew`, for as long as one certificate takes:
//! the process that listens on the network never has it in its memory. That process checks everything again.
//!
//! It may hang: on a folder that does not answer, or because somebody has stopped it. Then it is ended, and whoever waits for
//! his turn gets it while his own question still counts.

mod program;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{self, PoisonError};
use std::time::Duration;

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

/// How long the program may take. It reads a folder and writes a line.
const PROGRAM_MAX: Duration = Duration::from_secs(5);
/// How long somebody waits for his turn: with the program's time and a record, less than he waits for the answer.
const TURN_MAX: Duration = Duration::from_secs(7);
/// How many nodes wait at once; each asks again by itself.
const WAITING_MAX: usize = 16;
/// Told to whoever is to ask again.
const BUSY: &str = "server_busy";

/// The authority's folder and the program that works on it.
#[derive(Debug)]
pub(super) struct Issuer {
    program: Program,
    mailbox: mpsc::Sender<Mail>,
    /// One at a time, because the folder takes no more. A program that could not be ended stays here, and nothing is started
    /// beside it.
    turn: Mutex<Option<Child>>,
    /// Whose questions are here: one of each node, so that nobody has all the places.
    asking: sync::Mutex<BTreeSet<RuntimeId>>,
}

/// What is started, and how long it may take.
#[derive(Debug, Clone)]
struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    time: Duration,
}

impl Issuer {
    pub(super) fn new(folder: PathBuf, mailbox: mpsc::Sender<Mail>) -> Self {
        let arguments = ["identity", "renew", "--certificate", "-", "--ca"].map(OsString::from);
        let arguments = arguments.into_iter().chain([folder.into_os_string()]).collect();
        // The running program itself, as long as it runs.
        let path = PathBuf::from("/proc/self/exe");
        Self::of(Program { path, arguments, time: PROGRAM_MAX }, mailbox)
    }

    fn of(program: Program, mailbox: mpsc::Sender<Mail>) -> Self {
        Self { program, mailbox, turn: Mutex::default(), asking: sync::Mutex::default() }
    }

    /// Renews a certificate whose key was proved. It is on record before it is given.
    pub(super) async fn issue(
        &self,
        runtime: &RuntimeId,
        certificate: &CertificateDer<'static>,
    ) -> Result<CertificateDer<'static>, String> {
        let _place = self.enter(runtime).ok_or(BUSY)?;
        let issued = self.run(certificate).await?;
        let detail = format!("certificate {}", Fingerprint::of_der(&issued));
        let (reply, recorded) = oneshot::channel();
        let request = Request::Renewed { runtime: runtime.clone(), detail };
        let sent = self.mailbox.send(Mail::Request(request, reply)).await;
        match (sent, recorded.await) {
            (Ok(()), Ok(Ok(crate::engine::effect::Answer::Recorded))) => Ok(issued),
            (_, _) => Err("it could not be put on record".to_owned()),
        }
    }

    /// Waits for its turn, and gives it back however the program ends.
    async fn run(&self, certificate: &CertificateDer<'static>) -> Result<CertificateDer<'static>, String> {
        let turn = tokio::time::timeout(TURN_MAX, self.turn.lock()).await;
        let mut left = turn.map_err(|_elapsed| BUSY)?;
        if let Some(child) = left.as_mut() {
            program::ended(child).ok_or("the authority's program hangs and cannot be ended: look at its folder")?;
        }
        *left = None;
        let (program, input) = (self.program.clone(), super::renewal::pem(certificate).into_bytes());
        let run = tokio::task::spawn_blocking(move || program::run(&program, input)).await;
        match run.map_err(|error| error.to_string())? {
            Ok(output) => issued(&output),
            Err(program::Failed::Hangs(child)) => {
                *left = child;
                Err(format!("the authority's program did not end within {} ms", self.program.time.as_millis()))
            }
            Err(program::Failed::System(error)) => Err(format!("the authority's program: {error}")),
        }
    }

    /// A place, given back when it is dropped.
    fn enter(&self, runtime: &RuntimeId) -> Option<Place<'_>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = asking.len() < WAITING_MAX && asking.insert(runtime.clone());
        is_in.then(|| Place { asking: &self.asking, runtime: runtime.clone() })
    }
}

struct Place<'a> {
    asking: &'a sync::Mutex<BTreeSet<RuntimeId>>,
    runtime: RuntimeId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.runtime);
    }
}

fn issued(output: &program::Output) -> Result<CertificateDer<'static>, String> {
    if !output.is_success {
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

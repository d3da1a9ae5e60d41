//! Carries one envelope to its target and brings back what is known: the hands of `engine::exchange`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::domain::audit::Hash;
use crate::domain::envelope::Envelope;
use crate::domain::id::RuntimeId;
use crate::domain::time::Millis;
use crate::engine::exchange::{Event, Exchange, Finding, Question, Step, Waits};
use crate::engine::view::View;
use crate::mesh::{Mesh, PAYLOAD_BYTES_MAX, QueryError, Verb};
use crate::node::clock::Clock;
use crate::node::ingress::Counters;
use crate::node::keyring::Keyring;
use crate::node::trace;
use crate::wire;

/// How long after the stop an answer may still come. What has none then is told what is known, so that every caller has a
/// whole answer while the listener still waits for it (1.2 s).
const STOP_GRACE: Duration = Duration::from_millis(500);

/// Sends envelopes and checks receipts.
#[derive(Debug)]
pub(super) struct Courier {
    pub(super) clock: Clock,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) sequence: AtomicU64,
    pub(super) refused: Counters,
    pub(super) stop: CancellationToken,
}

/// What came of carrying one envelope.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) finding: Finding,
    /// The signed receipt as it came.
    pub(super) receipt: Option<Vec<u8>>,
}

impl Courier {
    /// Asks until the exchange is over: at most the budget, and half a second more for the outcome of a write. A stop ends it
    /// early, with what is known.
    pub(super) async fn carry(&self, mut envelope: Envelope, budget: Millis) -> Delivery {
        envelope.sequence = self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let (mut exchange, mut step) =
            Exchange::begin(envelope.action.kind().is_read(), self.clock.now().monotonic, budget);
        if self.stop.is_cancelled() {
            return Delivery { finding: exchange.cut(Waits::ToAsk), receipt: None };
        }
        let (sealed, digest) = wire::mesh::seal_envelope(&self.keyring.keys(), &envelope);
        let mut cut = std::pin::pin!(self.cut());
        let mut receipt = None;
        loop {
            match step {
                Step::Done(finding) => {
                    tracing::debug!(target = %envelope.target, code = code(&finding), "a target has answered or was given up");
                    return Delivery { finding: *finding, receipt };
                }
                Step::Ask { question, after, within } => {
                    tracing::debug!(target = %envelope.target, ?question, "an envelope goes out");
                    let mut waits = Waits::ToAsk;
                    let asked = async {
                        if after > Millis(0) {
                            tokio::time::sleep(Duration::from_millis(after.0)).await;
                        }
                        waits = Waits::ForAnswer;
                        self.ask(&envelope.target, question, sealed.clone(), digest, within).await
                    };
                    let answered = tokio::select! {
                        biased;
                        answered = asked => Some(answered),
                        () = &mut cut => None,
                    };
                    let Some((event, bytes)) = answered else {
                        return Delivery { finding: exchange.cut(waits), receipt: None };
                    };
                    receipt = bytes;
                    step = exchange.next(self.clock.now().monotonic, event);
                }
            }
        }
    }

    /// Resolves when nobody can wait any longer.
    async fn cut(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    }

    async fn ask(
        &self,
        target: &RuntimeId,
        question: Question,
        sealed: Vec<u8>,
        digest: Hash,
        within: Millis,
    ) -> (Event, Option<Vec<u8>>) {
        let verb = match question {
            Question::Act => Verb::Act,
            Question::Outcome => Verb::Outcome,
        };
        let is_too_large = sealed.len() > PAYLOAD_BYTES_MAX;
        let opened = OnceLock::new();
        let accept = |bytes: &[u8]| match wire::mesh::open_receipt(
            &self.views.load(),
            target,
            digest,
            bytes,
            self.clock.now().wall,
        ) {
            Ok(receipt) => opened.set(receipt).is_ok(),
            Err(refusal) => {
                self.refused.count(refusal.as_str());
                tracing::warn!(runtime_id = %target, %refusal, "a receipt does not verify");
                false
            }
        };
        match self.mesh.query(target, verb, sealed, Duration::from_millis(within.0), &accept).await {
            Ok(bytes) => match opened.into_inner() {
                Some(receipt) => (Event::Answered(Box::new(receipt)), Some(bytes)),
                None => (Event::Forged, None),
            },
            Err(QueryError::NoReply) => (Event::NoReply, None),
            Err(QueryError::Timeout) => (Event::Silence, None),
            Err(QueryError::Refused(text)) => (Event::Refused(text), None),
            // An answer that is too large is no receipt of ours, and the question may have been heard.
            Err(QueryError::TooLarge(_)) if !is_too_large => (Event::Forged, None),
            Err(QueryError::TooLarge(_) | QueryError::Session(_)) => (Event::Unsent, None),
        }
    }
}

/// What is known, as it stands in the log.
fn code(finding: &Finding) -> &'static str {
    match finding {
        Finding::Denied(denial) => denial.code.as_str(),
        Finding::Receipt(receipt) => trace::code(trace::ruled(&receipt.ruling)),
    }
}

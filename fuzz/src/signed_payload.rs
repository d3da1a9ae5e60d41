//! What a peer that is trusted signs and sends: its key is good, and its bytes are whatever it likes.
//!
//! The first byte names the kind of message, from `a` on; the rest is signed as it is.

use std::sync::LazyLock;

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::identity::IdentityKey;
use trust_runtime::domain::run::RunId;
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::judge;
use trust_runtime::engine::word::Word;
use trust_runtime::wire::mesh::{self, Keys, RunAsked};

use crate::world::{NOW, VIEW, origin};

/// The questions that the samples answer.
const NONCE: &str = "00112233445566778899aabbccddeeff";
const RUN: [u8; 10] = [7; 10];

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let (from, until) = (NOW, NOW.plus(Millis::from_hours(1)));
    mesh::delegate(&IdentityKey::from_seed([2; 32]), IdentityKey::from_seed([9; 32]), &origin(), from, until)
});

fn sealed(data: &[u8]) -> Option<(PayloadType, Vec<u8>)> {
    let (first, payload) = data.split_first()?;
    let kind = *PayloadType::ALL.get(usize::from(first.checked_sub(b'a')?))?;
    Some((kind, mesh::seal(&KEYS, kind, payload)))
}

/// Whether it says what it may say.
pub fn is_accepted(data: &[u8]) -> bool {
    let Some((kind, bytes)) = sealed(data) else { return false };
    match kind {
        PayloadType::Action => {
            let received = mesh::open_envelope(&VIEW, &origin(), &bytes, NOW);
            received.is_ok_and(|received| judge::judge(&VIEW, &received, NOW).is_ok())
        }
        PayloadType::Echo => mesh::open_echo(&VIEW, &origin(), NONCE, &bytes, NOW).is_ok(),
        PayloadType::Identity | PayloadType::Observation => {
            mesh::open_word(&VIEW, &origin(), kind, &bytes, NOW).is_ok()
        }
        PayloadType::PointersAsked => mesh::open_pointers_asked(&VIEW, &origin(), &bytes, NOW).is_ok(),
        PayloadType::Receipt => mesh::open_receipt(&VIEW, &origin(), question(), &bytes, NOW).is_ok(),
        PayloadType::RunAsked => mesh::open_run_question(&VIEW, &origin(), &bytes, NOW).is_ok(),
        PayloadType::Bundle
        | PayloadType::Countersignature
        | PayloadType::Delegation
        | PayloadType::Head
        | PayloadType::Pointers
        | PayloadType::Renewal
        | PayloadType::Renewed
        | PayloadType::RunAnswer => false,
    }
}

fn question() -> Hash {
    Hash::of(b"an envelope")
}

/// What opens is in its sender's name, and says the same when it is written down again.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = sealed(data) else { return };
    let (view, peer) = (&*VIEW, &origin());
    if let Ok(received) = mesh::open_envelope(view, peer, &bytes, NOW) {
        assert_eq!((kind, received.signer.runtime()), (PayloadType::Action, peer));
        drop(judge::judge(view, &received, NOW));
        let again = mesh::seal_envelope(&KEYS, &received.envelope).0;
        let again = mesh::open_envelope(view, peer, &again, NOW).expect("it opened before");
        assert_eq!(again.envelope, received.envelope);
    }
    if let Ok(receipt) = mesh::open_receipt(view, peer, question(), &bytes, NOW) {
        let again = mesh::open_receipt(view, peer, question(), &mesh::seal_receipt(&KEYS, &receipt), NOW);
        assert_eq!(again.expect("it opened before"), receipt);
    }
    if let Ok((signer, word)) = mesh::open_word(view, peer, kind, &bytes, NOW) {
        assert_eq!(signer.runtime(), peer);
        let again = match &word {
            Word::Identity(identity) => mesh::seal_identity(&KEYS, identity),
            Word::Observation(observation) => mesh::seal_observation(&KEYS, observation),
            Word::Echo(_) => unreachable!("an echo is no published document"),
        };
        let again = mesh::open_word(view, peer, kind, &again, NOW).expect("it opened before").1;
        assert_eq!(format!("{again:?}"), format!("{word:?}"));
    }
    if let Ok(question) = mesh::open_run_question(view, peer, &bytes, NOW) {
        assert!(question.read.envelope.action.kind().is_read());
    }
    open_the_rest(&bytes);
}

/// Answers to questions that nobody has asked, and what another kind of message is read by: no panic is all that is held.
fn open_the_rest(bytes: &[u8]) {
    let (view, peer, run) = (&*VIEW, &origin(), RunId::new(NOW, RUN));
    drop(mesh::open_echo(view, peer, NONCE, bytes, NOW));
    drop(mesh::open_head(view, peer, bytes, NOW));
    drop(mesh::open_countersignature(view, peer, question(), bytes, NOW));
    drop(mesh::open_pointers_asked(view, peer, bytes, NOW));
    drop(mesh::open_pointers(view, peer, question(), bytes, NOW));
    drop(mesh::open_run_answer(view, peer, (question(), run, &RunAsked::Record), bytes, NOW));
}

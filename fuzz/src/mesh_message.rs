//! What comes over the mesh beside actions: keys, documents, receipts, echoes, probes.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::mesh::key::{Key, SERVICE_DEFAULT, Space};
use trust_runtime::wire::mesh::{self, Probe};

use crate::world::{NOW, VIEW, good_samples, me, origin, signed};

static SIGNED: LazyLock<BTreeSet<Hash>> = LazyLock::new(|| signed(&good_samples("mesh_message")));

const DOCUMENTS: [PayloadType; 2] = [PayloadType::Identity, PayloadType::Observation];

/// Whether it is a key, a probe, or a message that the origin has signed.
pub fn is_accepted(data: &[u8]) -> bool {
    let is_key = std::str::from_utf8(data).is_ok_and(|text| space().parse(text).is_ok());
    let is_word = |kind| mesh::open_word(&VIEW, &origin(), kind, data, NOW).is_ok();
    is_key || Probe::parse(data).is_ok() || DOCUMENTS.into_iter().any(is_word) || is_answer(data) || is_about_runs(data)
}

fn is_about_runs(data: &[u8]) -> bool {
    mesh::open_run_question(&VIEW, &origin(), data, NOW).is_ok()
        || mesh::open_pointers_asked(&VIEW, &origin(), data, NOW).is_ok()
}

/// The samples answer this question.
fn is_answer(data: &[u8]) -> bool {
    let nonce = "00112233445566778899aabbccddeeff";
    mesh::open_receipt(&VIEW, &origin(), Hash::of(b"an envelope"), data, NOW).is_ok()
        || mesh::open_echo(&VIEW, &origin(), nonce, data, NOW).is_ok()
}

/// A key has one text; a document is what its runtime signed; a probe is written as it was read.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check_key(text);
    }
    if let Ok(probe) = Probe::parse(data) {
        assert_eq!(Probe::parse(&probe.to_bytes()), Ok(probe));
    }
    for kind in PayloadType::ALL {
        if let Ok(opened) = mesh::open(&VIEW, &origin(), kind, data, NOW) {
            assert!(SIGNED.contains(&Hash::of(&opened.payload)), "opened what nobody signed as {kind:?}");
        }
        // Somebody else's name never opens it, nor does a message open as the target's own word.
        assert!(mesh::open(&VIEW, &me(), kind, data, NOW).is_err());
    }
    for kind in DOCUMENTS {
        if let Ok((signer, _)) = mesh::open_word(&VIEW, &origin(), kind, data, NOW) {
            assert_eq!(signer.runtime(), &origin());
        }
    }
    is_answer(data);
    check_runs(data);
}

/// A question about a run is a read, and opens as nothing else.
fn check_runs(data: &[u8]) {
    if let Ok(question) = mesh::open_run_question(&VIEW, &origin(), data, NOW) {
        assert!(question.read.envelope.action.kind().is_read());
        assert!(mesh::open_envelope(&VIEW, &origin(), data, NOW).is_err());
    }
    if let Ok((signer, asked, _)) = mesh::open_pointers_asked(&VIEW, &origin(), data, NOW) {
        assert_eq!((signer.runtime(), asked.owner), (&origin(), me()));
    }
}

fn space() -> Space {
    Space::new(SERVICE_DEFAULT).expect("a service")
}

fn check_key(text: &str) {
    let back = match space().parse(text) {
        Err(_) => return,
        Ok(Key::Document { runtime, document }) => space().document(&runtime, document),
        Ok(Key::Liveliness { runtime, boot }) => space().liveliness(&runtime, boot),
        Ok(Key::Rpc { target, verb, origin }) => space().rpc(&target, verb, &origin),
    };
    assert_eq!(back, text);
}

//! Signed actions, as they arrive at a target that knows their origin.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use trust_runtime::domain::audit::Hash;
use trust_runtime::engine::judge;
use trust_runtime::wire::mesh;

use crate::world::{NOW, VIEW, good_samples, origin, signed};

static SIGNED: LazyLock<BTreeSet<Hash>> = LazyLock::new(|| signed(&good_samples("envelope")));

/// Whether it opens and the target would act on it.
pub fn is_accepted(data: &[u8]) -> bool {
    mesh::open_envelope(&VIEW, &origin(), data, NOW).is_ok_and(|received| judge::judge(&VIEW, &received, NOW).is_ok())
}

/// Nothing opens but what was signed, byte for byte, whatever stands around it.
pub fn run(data: &[u8]) {
    if let Ok(received) = mesh::open_envelope(&VIEW, &origin(), data, NOW) {
        assert!(SIGNED.contains(&received.digest), "opened what nobody signed: {:?}", received.envelope);
        assert_eq!(received.signer.runtime(), &origin());
        // Judged without a panic, whatever the verdict.
        drop(judge::judge(&VIEW, &received, NOW));
    }
}

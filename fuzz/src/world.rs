//! A target with one known peer, at a fixed moment, with keys that everybody can make.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::identity::IdentityKey;
use trust_runtime::domain::time::{Now, Wall};
use trust_runtime::engine::view::{ClockState, Peer, Settings, View};

/// The moment of the conformance cases, from which the signed samples come.
pub(crate) const NOW: Wall = Wall::from_millis(1_800_000_000_000);

pub(crate) fn me() -> RuntimeId {
    "site-a/target".parse().expect("a runtime")
}

pub(crate) fn origin() -> RuntimeId {
    "site-a/origin".parse().expect("a runtime")
}

/// What the target believes: it knows the origin by its key and nothing else.
pub(crate) static VIEW: LazyLock<View> = LazyLock::new(|| {
    let pinned = IdentityKey::from_seed([2; 32]).fingerprint();
    let peer = Peer { boot: 5, ..Peer::unheard(pinned) };
    let settings = settings();
    View {
        generation: 1,
        limits: settings.limits,
        settings: Arc::new(settings),
        identity: IdentityKey::from_seed([1; 32]).fingerprint(),
        boot: 3,
        started: Now::default(),
        peers: [(origin(), Arc::new(peer))].into_iter().collect(),
        witnessing: Arc::default(),
        overlay: Arc::default(),
        runs: Arc::default(),
        retired: Arc::default(),
        timeline: Arc::default(),
        clock: ClockState::Certain,
        refused: Arc::default(),
        is_read_only: false,
    }
});

fn settings() -> Settings {
    Settings::unset(me(), "trust".parse().expect("a trust domain"))
}

/// The samples of one target that are as they should be.
pub(crate) fn good_samples(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = std::fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("an entry"));
    let good = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("valid-"));
    good.map(|entry| std::fs::read(entry.path()).expect("a sample")).collect()
}

/// Hashes of what the keys of this world have signed: nobody else can make more.
pub(crate) fn signed(samples: &[Vec<u8>]) -> BTreeSet<Hash> {
    let payload = |sample: &Vec<u8>| {
        let outer: serde_json::Value = serde_json::from_slice(sample).ok()?;
        let kind = outer.get("payloadType")?.as_str()?.to_owned();
        let kind =
            trust_runtime::domain::envelope::dsse::PayloadType::ALL.into_iter().find(|it| it.as_str() == kind)?;
        let opened = trust_runtime::wire::mesh::open(&VIEW, &origin(), kind, sample, NOW).ok()?;
        Some(Hash::of(&opened.payload))
    };
    samples.iter().filter_map(payload).collect()
}

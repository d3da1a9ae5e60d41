//! What a large fleet costs each of its nodes: words heard, and the state that readers get.
//!
//! The engine hears the regular words of 50, 1,000 and 2,000 runtimes, and after each word readers have a new view, as on a
//! node. The floor is what such a word costs before that in any case: one check of an Ed25519 signature. The state is that
//! of the same fleets, each runtime linked with five others. The floor of a change is to write the same document from memory
//! and to hash it; that of a reader, to copy its bytes.
//!
//! `cargo bench --bench fleet` prints a table; `-- --json` prints JSON; `-- --rounds N` changes the length.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark reads the clock, prints, and may stop at the first surprise"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use ed25519_dalek::{Signer as _, SigningKey};
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::PublicKey;
use trust_runtime::domain::envelope::{Delegation, Health, Voucher};
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::identity::anchors::Trust;
use trust_runtime::domain::identity::authority::{Authority, Vouched};
use trust_runtime::domain::identity::{Fingerprint, Mapping, Naming, Role};
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::{Edge, EdgeState};
use trust_runtime::domain::time::{Millis, Monotonic, Now, Wall};
use trust_runtime::engine::effect::Effects;
use trust_runtime::engine::input::Input;
use trust_runtime::engine::view::{Settings, View};
use trust_runtime::engine::word::{Observation, Signer, Word};
use trust_runtime::engine::{Engine, Entropy};
use trust_runtime::wire::api::v1::state::Snapshot;

use rows::{Arguments, Row, median, micros};

#[path = "stand/rows.rs"]
mod rows;

/// The fleets: a site, and the largest two that the state is made for (DESIGN, *Scale*).
const FLEETS: [usize; 3] = [50, 1_000, 2_000];

/// Links of each runtime: together as many as the state shows of the largest fleet.
const LINKS: usize = 5;

/// Words of which one number is the mean.
const WORDS: usize = 2_000;

/// States, and readers of one, of which one number is the mean.
const STATES: usize = 5;
const READERS: usize = 200;

/// What is signed by whoever says a regular word: about so many bytes.
const WORD_BYTES: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::given();
    let rounds = arguments.value("--rounds").map_or(Ok(5), str::parse)?;
    let mut rows = Vec::new();
    for size in FLEETS {
        let mut fleet = Fleet::of(size);
        rows.push(row(format!("a word heard, {size} peers"), rounds, 0.25, || (fleet.hear(), check_signatures())));
        if FLEETS[0] < size {
            rows.push(row(format!("state, {size} nodes: a change"), rounds, 2.0, || fleet.change()));
            rows.push(row(format!("state, {size} nodes: a reader"), rounds, 1.5, || fleet.read()));
        }
    }
    rows::print(&rows, &arguments);
    Ok(())
}

fn row(name: String, rounds: usize, aim: f64, mut measure: impl FnMut() -> (f64, f64)) -> Row {
    let (node, floor) = (0..rounds).map(|_| measure()).unzip();
    Row { name, node: median(node), floor: median(floor), unit: "us", aim }
}

/// The mean time of doing something so often, in microseconds.
fn mean(times: usize, mut act: impl FnMut(usize)) -> f64 {
    let began = Instant::now();
    (0..times).for_each(&mut act);
    micros(began.elapsed()) / f64::from(u32::try_from(times).expect("small"))
}

fn check_signatures() -> f64 {
    let key = SigningKey::from_bytes(&[7; 32]);
    let word = [7; WORD_BYTES];
    let (signature, public) = (key.sign(&word), key.verifying_key());
    mean(WORDS / 10, |_| public.verify_strict(black_box(&word), &signature).expect("its own"))
}

/// A node that knows so many peers, and what they say in turn.
struct Fleet {
    engine: Engine,
    signers: Vec<Signer>,
    /// What readers hold, as on a node: the engine must not change it.
    view: Arc<View>,
    now: Now,
    spoken: usize,
}

impl Fleet {
    fn of(size: usize) -> Self {
        let now = Now { wall: Wall::from_millis(1_800_000_000_000), monotonic: Monotonic(1) };
        let (engine, _effects) =
            Engine::start(settings(), Fingerprint([0; 32]), [], now, &mut Nothing).expect("an empty store");
        let signers = (0..size).map(|number| signer(number, now.wall)).collect();
        let mut fleet = Self { view: Arc::new(engine.view()), engine, signers, now, spoken: 0 };
        (0..2 * size).for_each(|_| fleet.take_word());
        let online = fleet.view.peers.size();
        assert_eq!(online, size, "every peer has to be known");
        fleet
    }

    /// Each runtime speaks once in a period, one after the other.
    fn take_word(&mut self) {
        let size = self.signers.len();
        let signer = self.signers[self.spoken % size].clone();
        self.now.monotonic.0 += self.engine.view().limits.period.0 * 1_000_000 / size as u64;
        self.now.wall.0 += self.engine.view().limits.period.0 * 1_000_000 / size as u64;
        let word = observation(signer.runtime().clone(), size, self.spoken, self.now.wall);
        self.spoken += 1;
        let mut effects = Effects::default();
        self.engine.handle(self.now, &mut Nothing, Input::Word { signer, word: Word::Observation(word) }, &mut effects);
        self.view = Arc::new(self.engine.view());
    }

    fn hear(&mut self) -> f64 {
        let before = self.view.generation;
        let mean = mean(WORDS, |_| {
            self.take_word();
            black_box(self.engine.next_deadline());
        });
        assert!(before < self.view.generation, "the words have to count");
        mean
    }

    fn change(&self) -> (f64, f64) {
        let node = mean(STATES, |_| drop(black_box(Snapshot::take(&self.view, None, self.now))));
        let document: serde_json::Value = serde_json::from_slice(&self.document()).expect("JSON");
        let floor = mean(STATES, |_| {
            let bytes = serde_json::to_vec(black_box(&document)).expect("JSON");
            black_box(Hash::of(&bytes));
        });
        (node, floor)
    }

    fn read(&self) -> (f64, f64) {
        let snapshot = Snapshot::take(&self.view, None, self.now);
        let document = self.document();
        let actor = "spiffe://trust/site-a/engineer-1";
        let node = mean(READERS, |_| drop(black_box(snapshot.answer(actor, Role::Viewer, self.now.wall))));
        let floor = mean(READERS, |_| drop(black_box(black_box(&document).clone())));
        (node, floor)
    }

    fn document(&self) -> Vec<u8> {
        Snapshot::take(&self.view, None, self.now).answer("nobody", Role::Viewer, self.now.wall)
    }
}

fn runtime(number: usize) -> RuntimeId {
    format!("site-a/runtime-{number}").parse().expect("legal")
}

fn signer(number: usize, now: Wall) -> Signer {
    let identity = Fingerprint(Hash::of(&number.to_be_bytes()).0);
    let delegation = Delegation {
        runtime: runtime(number),
        voucher: Voucher::Certificate(identity),
        envelope_key: PublicKey::new([7; 32]),
        not_before: now,
        not_after: now.plus(Millis::from_hours(24)),
    };
    let vouched = Some(Vouched { until: now.plus(Millis::from_hours(24)), authority: authority().name() });
    Signer { delegation: Arc::new(delegation), delegation_hash: Hash::of(&identity.0), identity, vouched }
}

fn observation(runtime: RuntimeId, size: usize, spoken: usize, now: Wall) -> Observation {
    let edge = |step: usize| Edge {
        target: self::runtime((spoken + step) % size),
        state: EdgeState::Healthy,
        latency_p95_us: Some(200),
        loss_pct: 0,
        last_ok: Some(now),
    };
    Observation {
        runtime,
        boot: 1,
        sequence: spoken as u64 + 1,
        at: now,
        health: Health::Healthy,
        config_revision: 1,
        runs_head: None,
        // Links travel when they change and every tenth time.
        edges: (spoken < 2 * size || spoken.is_multiple_of(10)).then(|| (1..=LINKS).map(edge).collect()),
        is_leaving: false,
    }
}

/// A trust in which nobody is known by an anchor: what is vouched for under its name counts.
fn authority() -> Authority {
    let trust_domain = "trust".parse().expect("legal");
    Authority::new(Trust::new(Naming { trust_domain, mapping: Mapping::PathSite }))
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        profile: Profile::Plant,
        is_mesh_on_loopback: false,
        is_secure: true,
        policy_hash: Hash::of(b"a policy"),
        authority: Some(authority()),
        ..Settings::unset("site-a/me".parse().expect("legal"), "trust".parse().expect("legal"))
    })
}

/// No chance at all: no word here draws any.
struct Nothing;

impl Entropy for Nothing {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

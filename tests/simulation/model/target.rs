//! One target with its disk, its clock and the letters that were ever written to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::{AuditId, Hash};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::config::Value;
use trust_runtime::domain::envelope::dsse::PublicKey;
use trust_runtime::domain::envelope::{Delegation, Envelope, Response, Ruling, Voucher};
use trust_runtime::domain::id::RequestId;
use trust_runtime::domain::identity::authority::Vouched;
use trust_runtime::domain::identity::{Fingerprint, TrustState};
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::time::{Millis, Monotonic, NANOS_PER_MILLI, Now, Wall};
use trust_runtime::engine::effect::{Effect, Effects};
use trust_runtime::engine::input::{Input, QueryId, Received, ReplyId, Request};
use trust_runtime::engine::record::{Peer, Receipt, Record, RequestKey};
use trust_runtime::engine::view::{ClockState, Settings};
use trust_runtime::engine::word::Signer;
use trust_runtime::engine::{Engine, Entropy};

use crate::authority::authority;
use crate::disk::Facts;
use crate::model::oracle::{self, Expected, Known, Watch};
use crate::model::step::{Content, Fate, Source, Step};
use crate::node::{Setup, asker, runtime, settings, true_wall};

/// Most letters in one run: what is sent twice, and another between the two.
pub(super) const LETTERS_MAX: usize = 3;

const ORIGIN: usize = 0;
const TARGET: usize = 1;
const BOOT: u64 = 5;

/// By how much the origin's clock runs ahead: all that is permitted, so that the edges meet.
const AHEAD: Millis = Millis::from_secs(30);

/// So long as a receipt is kept at least: no letter of its request can be in time any more.
const KEPT: Millis = Millis::from_secs(180);

/// Most receipts of one origin.
const OF_ORIGIN_MAX: usize = 10_000;

/// Chance plays no part in what is remembered; without it the same content has the same bytes.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// What can be said of a state in numbers.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) executed: usize,
    pub(super) repeated: usize,
    pub(super) forgotten: usize,
    pub(super) is_uncertain: bool,
}

/// A letter's own name: which content, written when, to which life of the target.
type LetterName = (Content, Wall, Option<u64>);

fn name((content, letter): &(Content, Envelope)) -> LetterName {
    (*content, letter.issued, letter.target_boot)
}

/// What a batch changes, known to the disk or not yet.
#[derive(Debug, Clone, PartialEq)]
struct Memory {
    facts: Facts,
    executed: BTreeMap<LetterName, Receipt>,
    /// The youngest receipt that was dropped.
    dropped: Option<Wall>,
}

/// What a crash takes away.
#[derive(Debug, Clone)]
pub(super) struct Live {
    engine: Engine,
    booted_at: u64,
    /// What is in the batch that is gathered, and for which letter each answer is.
    held: Option<(Effects, Vec<LetterName>)>,
    /// What will be durable once the batch is.
    soon: Memory,
    watch: Watch,
    /// What was refused in this life, and why: no copy of it may be carried out.
    refused: BTreeMap<LetterName, Code>,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    settings: Arc<Settings>,
    profile: Profile,
    true_ms: u64,
    fault_ms: u64,
    is_fault_free: bool,
    pub(super) letters: Vec<(Content, Envelope)>,
    durable: Memory,
    durable_watch: Wall,
    /// Letters of which somebody heard, signed, that they were refused.
    told_refused: BTreeSet<LetterName>,
    repeated: usize,
    pub(super) live: Option<Live>,
}

fn target_settings(profile: Profile, receipts_kept: Millis) -> Arc<Settings> {
    let setup = Setup { nodes: 2, profile, is_loopback: profile == Profile::Dev };
    let settings = settings(setup, TARGET, 0);
    Arc::new(Settings { receipts_kept, ..(*settings).clone() })
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let delegation = Delegation {
        runtime: runtime(ORIGIN),
        voucher: Voucher::Certificate(fingerprint(ORIGIN)),
        envelope_key: PublicKey::new([9; 32]),
        not_before: Wall(0),
        not_after: Wall(u64::MAX),
    };
    let vouched = Vouched { until: Wall(u64::MAX), authority: authority(Profile::Plant).expect("one in plant").name() };
    let delegation = Arc::new(delegation);
    Signer { delegation, delegation_hash: Hash([2; 32]), identity: fingerprint(ORIGIN), vouched: Some(vouched) }
});

fn fingerprint(node: usize) -> Fingerprint {
    Fingerprint([u8::try_from(node).unwrap_or(u8::MAX); 32])
}

fn key(content: Content) -> RequestKey {
    let id: &str = match content {
        Content::First | Content::FirstOther => "first",
        Content::Second => "second",
    };
    RequestKey { actor: asker("alice").actor, request_id: id.parse::<RequestId>().expect("legal") }
}

fn letter(content: Content, issued: Wall, target_boot: u64) -> Envelope {
    let level = match content {
        Content::First => "debug",
        Content::FirstOther => "warn",
        Content::Second => "info",
    };
    let values = [("log.level".to_owned(), Value::Text(level.to_owned()))];
    let action = Action::cfg_apply(values.into()).expect("one setting");
    let asker = asker("alice");
    Envelope {
        target: runtime(TARGET),
        target_key: fingerprint(TARGET),
        target_boot: Some(target_boot),
        origin: runtime(ORIGIN),
        actor: asker.actor,
        role: asker.role,
        actor_verified: true,
        request_id: key(content).request_id,
        expires: issued.plus(action.kind().window()),
        action,
        issued,
        boot: BOOT,
        sequence: 0,
        policy_hash: Hash([3; 32]),
    }
}

impl Memory {
    /// Whether one more receipt fits: if need be in place of the oldest, when nobody can repeat its request any more.
    fn has_room(&self, now: Wall, is_uncertain: bool) -> bool {
        let receipts = &self.facts.receipts;
        let is_over = |oldest: Wall| !is_uncertain && oldest.plus(KEPT) <= now;
        receipts.len() < OF_ORIGIN_MAX || receipts.values().map(|receipt| receipt.at).min().is_some_and(is_over)
    }

    /// Takes in what was decided on one input.
    fn take(&mut self, records: &[Record], letter: Option<&(Content, Envelope)>) -> Result<(), String> {
        let executed = self.executed.len();
        for record in records {
            match record {
                Record::Receipt(receipt) => {
                    let Some(letter) = letter else { return Err(format!("{receipt:?} out of nothing")) };
                    if self.facts.receipts.contains_key(&receipt.key) {
                        return Err(format!("{receipt:?}: a request whose receipt is kept took effect again"));
                    }
                    if self.executed.insert(name(letter), receipt.clone()).is_some() {
                        return Err(format!("{receipt:?}: one letter took effect twice"));
                    }
                }
                Record::ReceiptDropped(key) => {
                    let at = self.facts.receipts.get(key).map(|receipt| receipt.at);
                    self.dropped = self.dropped.max(at);
                }
                Record::Boot { .. }
                | Record::ClockMark { .. }
                | Record::Countersigned(_)
                | Record::CountersignedForgotten { .. }
                | Record::Deed(_)
                | Record::DeedClosed(_)
                | Record::DroppedUntil { .. }
                | Record::Head { .. }
                | Record::HeadForgotten { .. }
                | Record::Intent(_)
                | Record::IntentClosed(_)
                | Record::Overlay(_)
                | Record::Peer(_)
                | Record::PeerForgotten { .. }
                | Record::Run(_)
                | Record::RunClosed(_) => {}
            }
            self.facts.take(record.clone());
        }
        let effects = records.iter().filter(|record| matches!(record, Record::Overlay(_))).count();
        if self.executed.len() - executed < effects {
            return Err("an effect has no receipt".to_owned());
        }
        Ok(())
    }
}

impl Target {
    /// One that knows its origin, and has carried out nothing.
    pub(super) fn new(profile: Profile) -> Self {
        // As short as it gets, so that what is forgotten is within reach.
        Self::remembering(profile, Millis(0), std::iter::empty())
    }

    /// One that has carried out so much for its origin that no further receipt fits, all of it just now, and that keeps
    /// receipts for a day unless it needs their room.
    pub(super) fn crowded(profile: Profile) -> Self {
        let receipts = (0..OF_ORIGIN_MAX).map(|number| Receipt {
            key: RequestKey {
                actor: asker("alice").actor,
                request_id: format!("old-{number}").parse().expect("legal"),
            },
            origin: runtime(ORIGIN),
            digest: Hash([0; 32]),
            at: true_wall(0),
            audit_id: AuditId::new(true_wall(0), [0; 10]),
            response: Response::Pong,
        });
        Self::remembering(profile, Millis::from_hours(24), receipts)
    }

    fn remembering(profile: Profile, receipts_kept: Millis, receipts: impl Iterator<Item = Receipt>) -> Self {
        let peer =
            Peer { runtime: runtime(ORIGIN), pinned: fingerprint(ORIGIN), trust: TrustState::Trusted, boot: BOOT };
        let mut facts = Facts::default();
        facts.take(Record::Peer(peer));
        receipts.for_each(|receipt| facts.take(Record::Receipt(receipt)));
        let mut target = Self {
            settings: target_settings(profile, receipts_kept),
            profile,
            true_ms: 0,
            fault_ms: 0,
            is_fault_free: true,
            letters: Vec::new(),
            durable: Memory { facts, executed: BTreeMap::new(), dropped: None },
            durable_watch: Wall(0),
            told_refused: BTreeSet::new(),
            repeated: 0,
            live: None,
        };
        target.start().expect("it starts");
        target
    }

    /// Lets something happen. Gives the sentence that it breaks.
    pub(super) fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Arrive(source, fate) => {
                let letter = match source {
                    Source::Again(index) => self.letters[index].clone(),
                    Source::New(content) => self.write(content),
                };
                self.receive(letter)?;
                return self.meet(fate);
            }
            Step::Delay(content) => drop(self.write(content)),
            Step::Crash => self.live = None,
            Step::Start => return self.start(),
            Step::Repair => return self.repair(),
            Step::Pass(millis) => self.true_ms += millis,
            Step::Jump(millis) => {
                self.fault_ms += millis;
                self.is_fault_free = false;
            }
            Step::SetRight => self.fault_ms = 0,
            Step::Reset => return self.reset(),
        }
        let moves_time = matches!(step, Step::Pass(_) | Step::Jump(_) | Step::SetRight);
        if moves_time && self.live.is_some() { self.tick() } else { Ok(()) }
    }

    fn write(&mut self, content: Content) -> (Content, Envelope) {
        // The origin has heard of every life of the target, down to the present one or the last.
        let boot = self.durable.facts.boot.unwrap_or_default();
        let letter = (content, letter(content, true_wall(self.true_ms).plus(AHEAD), boot));
        if !self.letters.contains(&letter) {
            self.letters.push(letter.clone());
        }
        letter
    }

    fn now(&self) -> Now {
        let booted_at = self.live.as_ref().map_or(self.true_ms, |live| live.booted_at);
        let monotonic = Monotonic((self.true_ms - booted_at) * NANOS_PER_MILLI);
        Now { wall: true_wall(self.true_ms + self.fault_ms), monotonic }
    }

    fn start(&mut self) -> Result<(), String> {
        let now = self.now();
        let settings = Arc::clone(&self.settings);
        let records = self.durable.facts.recall();
        let (engine, effects) =
            Engine::start(settings, fingerprint(TARGET), records, now, &mut Zeros).expect("facts hold no removal");
        let mut soon = self.durable.clone();
        soon.take(&effects.batch.records, None)?;
        let watch = Watch::start(now, self.durable_watch);
        self.live = Some(Live {
            engine,
            booted_at: self.true_ms,
            held: Some((effects, Vec::new())),
            soon,
            watch,
            refused: BTreeMap::new(),
        });
        self.meet(Fate::Kept)
    }

    /// What the loop hears every second anyway.
    fn tick(&mut self) -> Result<(), String> {
        let is_idle = self.is_idle();
        self.handle(Input::Timer, None)?;
        if is_idle { self.meet(Fate::Kept) } else { Ok(()) }
    }

    fn repair(&mut self) -> Result<(), String> {
        let now = self.now();
        let Some(live) = self.live.as_mut() else { return Ok(()) };
        let mut effects = Effects::default();
        live.engine.resume_writing(now, &mut Zeros, &mut effects);
        live.soon.take(&effects.batch.records, None)?;
        live.held = Some((effects, Vec::new()));
        self.tick()?;
        self.meet(Fate::Kept)
    }

    fn reset(&mut self) -> Result<(), String> {
        let now = self.now();
        let request = Request::TimeReset { asker: asker("admin") };
        if let Some(live) = self.live.as_mut() {
            live.watch.reset(now);
            live.soon.dropped = live.soon.dropped.map(|dropped| dropped.min(now.wall));
        }
        self.handle(Input::Request { reply: ReplyId(1), request }, None)?;
        self.meet(Fate::Kept)
    }

    fn receive(&mut self, letter: (Content, Envelope)) -> Result<(), String> {
        let signer = Signer { vouched: SIGNER.vouched.filter(|_| self.profile != Profile::Dev), ..SIGNER.clone() };
        let digest = Hash::of(format!("{:?}", letter.1).as_bytes());
        let received = Received { signer, envelope: letter.1.clone(), digest };
        self.handle(Input::Act { query: QueryId(0), received }, Some(&letter))
    }

    /// Lets the engine decide, and holds what it decides against the oracle.
    fn handle(&mut self, input: Input, letter: Option<&(Content, Envelope)>) -> Result<(), String> {
        let now = self.now();
        let Some(live) = self.live.as_mut() else { return Ok(()) };
        let before = live.soon.clone();
        let (effects, answers) = live.held.get_or_insert_default();
        let (records, spoken) = (effects.batch.records.len(), effects.after.len());
        live.engine.handle(now, &mut Zeros, input, effects);
        let view = live.engine.view();
        let is_uncertain = view.clock == ClockState::Uncertain;
        if live.watch.read(now) && !is_uncertain {
            return Err("a clock that went wrong is believed".to_owned());
        }
        if is_uncertain && self.is_fault_free {
            return Err("a clock that was never wrong is not believed".to_owned());
        }
        if !is_uncertain && !view.is_read_only {
            live.watch.believe();
        }
        let dropped = dropped_early(&effects.batch.records[records..], &before.facts, now.wall, is_uncertain);
        if let Some(receipt) = dropped {
            return Err(format!("{receipt:?} was dropped too early, or by a clock that is not believed"));
        }
        live.soon.take(&effects.batch.records[records..], letter)?;
        let Some(letter) = letter else { return Ok(()) };
        let name = name(letter);
        let is_executed = before.executed.len() < live.soon.executed.len();
        if is_executed && self.told_refused.contains(&name) {
            return Err(format!("{name:?}: a write whose refusal was signed was carried out"));
        }
        answers.push(name);
        let known = Known {
            now: now.wall,
            profile: self.profile,
            is_uncertain,
            is_read_only: view.is_read_only,
            has_room: before.has_room(now.wall, is_uncertain),
            receipt: before.facts.receipts.get(&key(letter.0)),
            dropped: before.dropped,
            boot: before.facts.boot.unwrap_or_default(),
            refused: live.refused.get(&name).copied(),
        };
        let expected = oracle::expected(&known, &letter.1);
        if let Expected::Refused(code) = expected {
            live.refused.insert(name, code);
        }
        let given = given(&effects.after[spoken..])?;
        self.repeated += usize::from(matches!(expected, Expected::Stored(_)));
        hold(&expected, &given, live.soon.executed.get(&name), is_executed)
    }

    /// What becomes of the batch.
    fn meet(&mut self, fate: Fate) -> Result<(), String> {
        let now = self.now();
        let Some(live) = self.live.as_mut() else { return Ok(()) };
        match fate {
            Fate::Held => return Ok(()),
            Fate::Kept => {
                self.durable = live.soon.clone();
                let Some((effects, letters)) = live.held.take() else { return Ok(()) };
                if !live.engine.view().is_read_only {
                    live.watch.commit();
                    self.durable_watch = live.watch.durable();
                }
                return self.speak(&effects, &letters);
            }
            Fate::Failed => {
                live.held = None;
                live.soon = self.durable.clone();
                live.engine = live.engine.rebuilt(self.durable.facts.recall(), now).expect("facts hold no removal");
                live.engine.stop_writing();
            }
        }
        Ok(())
    }

    /// Whoever hears that a write was carried out hears of one that is durable, and whoever hears that it was not may rely on it.
    fn speak(&mut self, effects: &Effects, letters: &[LetterName]) -> Result<(), String> {
        let answers = effects
            .after
            .iter()
            .filter_map(|effect| if let Effect::Answer { receipt, .. } = effect { Some(receipt) } else { None });
        for (receipt, letter) in answers.zip(letters) {
            let Ruling::Done(response) = &receipt.ruling else {
                self.told_refused.insert(*letter);
                continue;
            };
            let is_it = |kept: &&Receipt| kept.audit_id == receipt.audit_id && kept.response == *response;
            if self.durable.executed.values().find(is_it).is_none() {
                return Err(format!("{letter:?} was answered with what is not durable: {receipt:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.fault_ms != 0
    }

    pub(super) fn is_idle(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.held.is_none())
    }

    pub(super) fn is_uncertain(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.engine.view().clock == ClockState::Uncertain)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.engine.view().is_read_only)
    }

    pub(super) fn told(&self) -> Told {
        Told {
            executed: self.durable.executed.len(),
            repeated: self.repeated,
            forgotten: usize::from(self.durable.dropped.is_some()),
            is_uncertain: self.is_uncertain(),
        }
    }

    /// The same for the same state, however it was reached. What only counts or tells is left out; what is too much in it
    /// costs time and hides nothing.
    pub(super) fn fingerprint(&self) -> Hash {
        let Self { true_ms, fault_ms, is_fault_free, letters, durable, durable_watch, told_refused, live, .. } = self;
        let letters: Vec<_> = letters.iter().map(name).collect();
        let live = live.as_ref().map(|live| {
            let Live { engine, booted_at, held, soon, watch, refused } = live;
            format!("{}{booted_at}{held:?}{soon:?}{watch:?}{refused:?}", decisive(engine))
        });
        Hash::of(
            format!(
                "{true_ms} {fault_ms} {is_fault_free} {letters:?} {durable:?} {durable_watch} {told_refused:?} {live:?}"
            )
            .as_bytes(),
        )
    }
}

/// A receipt that went before it may.
fn dropped_early<'a>(records: &[Record], facts: &'a Facts, now: Wall, is_uncertain: bool) -> Option<&'a Receipt> {
    let dropped = records.iter().filter_map(|record| match record {
        Record::ReceiptDropped(key) => facts.receipts.get(key),
        Record::Boot { .. }
        | Record::ClockMark { .. }
        | Record::Countersigned(_)
        | Record::CountersignedForgotten { .. }
        | Record::Deed(_)
        | Record::DeedClosed(_)
        | Record::DroppedUntil { .. }
        | Record::Head { .. }
        | Record::HeadForgotten { .. }
        | Record::Intent(_)
        | Record::IntentClosed(_)
        | Record::Overlay(_)
        | Record::Peer(_)
        | Record::PeerForgotten { .. }
        | Record::Receipt(_)
        | Record::Run(_)
        | Record::RunClosed(_) => None,
    });
    dropped.into_iter().find(|receipt| is_uncertain || now < receipt.at.plus(KEPT))
}

/// The engine without the parts that only tell.
fn decisive(engine: &Engine) -> String {
    let text = format!("{engine:?}");
    let from = text.find(", limits: ").expect("limits stand behind the settings");
    let told = text.rfind(", timeline: ").expect("it has a timeline");
    let rest = text.rfind(", is_read_only: ").expect("it is read-only or not");
    format!("{}{}", &text[from..told], &text[rest..])
}

/// What whoever sent the letter is told.
enum Given {
    Done { receipt: Box<trust_runtime::domain::envelope::Receipt> },
    Refused(Code),
}

fn given(effects: &[Effect]) -> Result<Given, String> {
    let mut given = None;
    for effect in effects {
        let one = match effect {
            Effect::Answer { receipt, .. } => match &receipt.ruling {
                Ruling::Done(_) => Given::Done { receipt: receipt.clone() },
                Ruling::Refused(denial) => Given::Refused(denial.code),
            },
            Effect::Refuse { code, .. } => Given::Refused(*code),
            Effect::Apply { .. }
            | Effect::AuditLightly { .. }
            | Effect::CancelRun(_)
            | Effect::Perform(_)
            | Effect::Reply { .. }
            | Effect::StartRun(_) => continue,
        };
        if given.replace(one).is_some() {
            return Err("a letter was answered twice".to_owned());
        }
    }
    given.ok_or_else(|| "a letter was not answered".to_owned())
}

fn hold(expected: &Expected, given: &Given, executed: Option<&Receipt>, is_executed: bool) -> Result<(), String> {
    let is_held = match (expected, given) {
        (Expected::Refused(wanted), Given::Refused(code)) => wanted == code && !is_executed,
        (Expected::Stored(stored), Given::Done { receipt }) => {
            is_the_answer_of(stored, receipt) && receipt.repeated && !is_executed
        }
        (Expected::CarriedOut, Given::Done { receipt }) => {
            executed.is_some_and(|stored| is_the_answer_of(stored, receipt)) && !receipt.repeated && is_executed
        }
        (Expected::Refused(_), Given::Done { .. })
        | (Expected::Stored(_) | Expected::CarriedOut, Given::Refused(_)) => false,
    };
    let shown = match given {
        Given::Done { receipt } => format!("{receipt:?}"),
        Given::Refused(code) => format!("refused with {code}"),
    };
    if is_held { Ok(()) } else { Err(format!("wanted {expected:?}, got {shown}, took effect: {is_executed}")) }
}

fn is_the_answer_of(stored: &Receipt, receipt: &trust_runtime::domain::envelope::Receipt) -> bool {
    let Ruling::Done(response) = &receipt.ruling else { return false };
    (stored.audit_id, stored.at, &stored.response) == (receipt.audit_id, receipt.at, response)
}

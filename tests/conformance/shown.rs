//! Heads of logs shown to a witness, and what the witness answers, as bytes: honest ones, forged ones, and of each what the
//! receiver makes of it.
//!
//! As with envelopes, the bytes stand in the files beside the recipe that must give them.

use std::fs;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;
use trust_runtime::domain::audit::witness::{Break, Head};
use trust_runtime::domain::audit::{Checkpoint, Extension, Hash, NoteKey, Tree};
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::identity::TrustState;
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::time::{Millis, Now, Wall};
use trust_runtime::engine::effect::{Answer, Effect, Effects, Witnessed};
use trust_runtime::engine::input::{Input, ReplyId, Request};
use trust_runtime::engine::record::{NotContinued, Peer, Record};
use trust_runtime::engine::view::View;
use trust_runtime::engine::{Engine, Entropy};
use trust_runtime::wire::mesh::{self, Heard, WitnessWord};

use crate::case_file::{assert_none, is_updating, path, text};
use crate::sealed::{ME, ORIGIN, Recipe, fingerprint, key, origin_keys, payload_of};
use crate::world::{self, now, parsed};

const HEADS: &str = "head/heads.json";
const WORDS: &str = "head/countersignatures.json";

/// What lies between two heads of one boot at least.
const PAUSE: Millis = Millis::from_secs(30);

/// Records of the origin's log that the target has countersigned, a minute before the moment of the cases.
const KNOWN: u8 = 3;
const KNOWN_BOOT: u64 = 4;

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// How a log differs from one that has grown by four records since it was countersigned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Log {
    /// The name of the log and of its key.
    name: String,
    /// Who signs the checkpoint, and whose key it says that is.
    signer: String,
    key: String,
    size: u8,
    /// From this record on the records are others.
    other_from: u8,
    boot: u64,
    /// The size from which the log says what has grown, and how many hashes more or fewer it shows than there are.
    old: u8,
    more: i8,
    /// When it was shown, in milliseconds from the moment of the cases.
    at_ms: i64,
    /// A text of the note, and what stands in its place after it was signed.
    note: Option<(String, String)>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            name: format!("trust-runtime/{ORIGIN}"),
            signer: "origin's log key".to_owned(),
            key: "origin's log key".to_owned(),
            size: KNOWN + 4,
            other_from: u8::MAX,
            boot: KNOWN_BOOT,
            old: KNOWN,
            more: 0,
            at_ms: 0,
            note: None,
        }
    }
}

impl Log {
    fn known() -> Self {
        Self { size: KNOWN, old: 0, at_ms: -60_000, ..Self::default() }
    }

    fn key_of(&self, whose: &str) -> NoteKey {
        NoteKey::new(self.name.clone(), key(whose))
    }

    fn tree(&self) -> (Tree, Extension) {
        let (mut tree, mut extension) = (Tree::EMPTY, Extension::after(self.old.into()));
        for number in 0..self.size {
            let record = [number, u8::from(self.other_from <= number)];
            tree.push(&record);
            if self.old <= number {
                extension.push(&record);
            }
        }
        (tree, extension)
    }

    fn signed(&self) -> String {
        let text = Checkpoint::of(&self.name, &self.tree().0, self.boot).text();
        let note = self.key_of(&self.signer).sign(&text);
        self.note.iter().fold(note, |note, (from, to)| {
            assert_eq!(note.matches(from.as_str()).count(), 1, "{from} in {note}");
            note.replace(from.as_str(), to)
        })
    }

    fn at(&self) -> Wall {
        Wall::from_millis(now().wall.as_millis().checked_add_signed(self.at_ms).expect("in time"))
    }

    fn head(&self) -> mesh::Head {
        let mut extension = self.tree().1.subtrees();
        let shown = extension.len().checked_add_signed(self.more.into()).expect("so many");
        extension.resize(shown, Hash([0; 32]));
        mesh::Head {
            witness: parsed(ME),
            at: self.at(),
            key: self.key_of(&self.key).verifier().to_string(),
            note: self.signed(),
            old: self.old.into(),
            extension,
        }
    }

    fn kept(&self) -> Head {
        let key = self.key_of(&self.key).verifier();
        Head::restore(key, self.signed(), &self.tree().0.subtrees(), self.at(), None).expect("belong together")
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadRow {
    name: String,
    #[serde(default)]
    log: Log,
    /// How the message around it differs.
    #[serde(default)]
    recipe: Recipe,
    /// Who the mesh key says is asking, if not the origin.
    claimed: Option<String>,
    /// Whether the witness has seen this log before.
    #[serde(default = "yes")]
    is_known: bool,
    /// `countersigned`, or what it is instead and why.
    verdict: String,
    #[serde(default)]
    bytes: String,
}

const fn yes() -> bool {
    true
}

impl HeadRow {
    fn made(&self) -> Vec<u8> {
        let payload = payload_of(&mesh::seal_head(&origin_keys(), &self.log.head()).0);
        self.recipe.sealed(PayloadType::Head, &payload)
    }

    fn verdict(&self) -> String {
        let mut records = vec![Record::Peer(Peer {
            runtime: parsed(ORIGIN),
            pinned: fingerprint("origin"),
            trust: TrustState::Trusted,
            boot: 1,
        })];
        if self.is_known {
            let head = Box::new(Log::known().kept());
            records.push(Record::Head { runtime: parsed(ORIGIN), head });
        }
        let settings = Arc::new(world::settings(ME, Profile::Dev, Policy::default()));
        let mut engine = Engine::recover(settings, fingerprint("target"), records, now()).expect("facts");
        let claimed = parsed(self.claimed.as_deref().unwrap_or(ORIGIN));
        match mesh::open_head(&engine.view(), &claimed, self.bytes.as_bytes(), now().wall) {
            Err(refusal) => format!("refused: {refusal}"),
            Ok((signer, claim, _)) => {
                let request = Request::Witness { signer: Box::new(signer), claim: Box::new(claim), pause: PAUSE };
                said(&mut engine, now(), request)
            }
        }
    }
}

/// What the witness says, and that it has kept what it countersigns.
fn said(engine: &mut Engine, now: Now, request: Request) -> String {
    let mut effects = Effects::default();
    engine.handle(now, &mut Zeros, Input::Request { reply: ReplyId(1), request }, &mut effects);
    let is_kept = effects.batch.records.iter().any(|record| matches!(record, Record::Head { .. }));
    let answer = effects
        .after
        .iter()
        .find_map(|effect| if let Effect::Reply { answer, .. } = effect { Some(answer.as_ref()) } else { None });
    let Some(Answer::Witnessed(said)) = answer else { panic!("{effects:?}") };
    match said {
        Witnessed::Behind(size) => format!("behind: {size}"),
        Witnessed::Broken(found) => format!("broken: {}", found.reason.as_str()),
        Witnessed::Continues if is_kept => "countersigned".to_owned(),
        Witnessed::Continues => "countersigned without keeping it".to_owned(),
        Witnessed::Refused(reason) => format!("nothing: {reason}"),
    }
}

/// The head that the target has shown, and that the origin answers about.
fn shown() -> Log {
    Log {
        name: format!("trust-runtime/{ME}"),
        key: "target's log key".to_owned(),
        signer: "target's log key".to_owned(),
        ..Log::default()
    }
}

/// A witness's word, as a case says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Word {
    Behind(u64),
    /// By this key under this name, over the text of this head; an earlier one if it is `None`.
    Countersigned {
        signer: String,
        name: String,
        size: u8,
    },
    /// The reason, and how the head that is shown with it differs from the one that was shown.
    Broken {
        reason: String,
        #[serde(default)]
        size: Option<u8>,
        #[serde(default)]
        boot: Option<u64>,
        #[serde(default)]
        other_from: Option<u8>,
        #[serde(default)]
        signer: Option<String>,
        #[serde(default)]
        name: Option<String>,
    },
    Refused(String),
}

impl Word {
    fn word(&self) -> WitnessWord {
        match self {
            Self::Behind(size) => WitnessWord::Behind(*size),
            Self::Refused(reason) => WitnessWord::Refused(reason.clone()),
            Self::Countersigned { signer, name, size } => {
                let by = NoteKey::new(name.clone(), key(signer));
                let log = Log { size: *size, ..shown() };
                let text = Checkpoint::of(&log.name, &log.tree().0, log.boot).text();
                let line = by.countersign(&text, now().wall.as_millis() / 1_000);
                WitnessWord::Countersigned { key: Box::new(by.countersigner()), line }
            }
            Self::Broken { reason, size, boot, other_from, signer, name } => {
                let usual = shown();
                let held = Log {
                    size: size.unwrap_or(usual.size),
                    boot: boot.unwrap_or(usual.boot),
                    other_from: other_from.unwrap_or(usual.other_from),
                    signer: signer.clone().unwrap_or_else(|| usual.signer.clone()),
                    name: name.clone().unwrap_or_else(|| usual.name.clone()),
                    ..usual
                };
                let reason = Break::ALL.into_iter().find(|it| it.as_str() == reason).expect("a break");
                WitnessWord::Broken(NotContinued { reason, held: held.signed() })
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordRow {
    name: String,
    word: Word,
    #[serde(default)]
    recipe: Recipe,
    /// Whose key is pinned for the witness, if not its own.
    pinned: Option<String>,
    /// Whether it answers about another head.
    #[serde(default)]
    is_of_another_head: bool,
    verdict: String,
    #[serde(default)]
    bytes: String,
}

impl WordRow {
    fn asked(&self) -> Hash {
        let head = Log { at_ms: if self.is_of_another_head { -1 } else { 0 }, ..shown() }.head();
        mesh::seal_head(&origin_keys(), &head).1
    }

    fn made(&self) -> Vec<u8> {
        let payload = payload_of(&mesh::seal_countersignature(&origin_keys(), self.asked(), &self.word.word()));
        self.recipe.sealed(PayloadType::Countersignature, &payload)
    }

    fn verdict(&self) -> String {
        let mut view: View = world::view(world::settings(ME, Profile::Dev, Policy::default()), fingerprint("target"));
        let pinned = fingerprint(self.pinned.as_deref().unwrap_or("origin"));
        view.peers = [(parsed(ORIGIN), Arc::new(world::peer(pinned, Presence::default())))].into_iter().collect();
        let asked = mesh::seal_head(&origin_keys(), &shown().head()).1;
        let word = mesh::open_countersignature(&view, &parsed(ORIGIN), asked, self.bytes.as_bytes(), now().wall);
        let word = match word {
            Err(refusal) => return format!("refused: {refusal}"),
            Ok(word) => word,
        };
        let own = shown().key_of("target's log key").verifier();
        match word.heard(&own, &shown().signed(), &parsed(ORIGIN)) {
            Err(unheard) => format!("nothing: {unheard}"),
            Ok(Heard::Behind(size)) => format!("behind: {size}"),
            Ok(Heard::Kept(kept)) => match kept.refused {
                None => "countersigned".to_owned(),
                Some(found) => format!("contradicted: {}", found.reason.as_str()),
            },
        }
    }
}

pub(crate) fn fault(made: &[u8], bytes: &str, verdict: &str, wanted: &str) -> Option<String> {
    if made != bytes.as_bytes() {
        return Some("its recipe gives other bytes than the stored ones".to_owned());
    }
    (verdict != wanted).then(|| format!("wanted {wanted}, got {verdict}"))
}

/// Makes the bytes of every row that has none. Stored ones stay as they are.
pub(crate) fn store_bytes(name: &str, made: impl Fn(Json) -> Vec<u8>) {
    let mut rows: Vec<Json> = serde_json::from_str(&text(name)).expect("rows");
    for row in rows.iter_mut().filter(|row| row.get("bytes").is_none()) {
        row["bytes"] = String::from_utf8(made(row.clone())).expect("JSON").into();
    }
    fs::write(path(name), serde_json::to_string_pretty(&rows).expect("JSON") + "\n").expect("written");
}

#[test]
fn heads_shown_to_a_witness() {
    if is_updating() {
        store_bytes(HEADS, |row| serde_json::from_value::<HeadRow>(row).expect("a row").made());
    }
    let rows: Vec<HeadRow> = serde_json::from_str(&text(HEADS)).expect("rows");
    let faults =
        rows.iter().filter_map(|row| Some((row, fault(&row.made(), &row.bytes, &row.verdict(), &row.verdict)?)));
    assert_none(&faults.map(|(row, fault)| format!("{}: {fault}", row.name)).collect::<Vec<_>>());
}

#[test]
fn words_of_a_witness() {
    if is_updating() {
        store_bytes(WORDS, |row| serde_json::from_value::<WordRow>(row).expect("a row").made());
    }
    let rows: Vec<WordRow> = serde_json::from_str(&text(WORDS)).expect("rows");
    let faults =
        rows.iter().filter_map(|row| Some((row, fault(&row.made(), &row.bytes, &row.verdict(), &row.verdict)?)));
    assert_none(&faults.map(|(row, fault)| format!("{}: {fault}", row.name)).collect::<Vec<_>>());
}

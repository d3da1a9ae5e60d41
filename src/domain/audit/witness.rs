//! What a witness makes of the head of another runtime's log: does it continue the one that was countersigned last?
//!
//! The decision is a function of what is known and what is claimed; who claims it, and that the note is signed, is checked
//! before.

use super::{Checkpoint, Hash, NoteError, Tree, Verifier};
use crate::domain::time::{Millis, Wall};

/// Most hashes of a claim: twice the height of a tree of 2^63 records.
pub const EXTENSION_MAX: usize = 126;

/// The head of a log as its runtime shows it, its signature checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    key: Verifier,
    note: String,
    checkpoint: Checkpoint,
    at: Wall,
    old: u64,
    extension: Vec<Hash>,
}

impl Claim {
    /// Reads a note that this key must have signed. `old` is the size that `extension` goes on from.
    pub fn read(key: Verifier, note: String, at: Wall, old: u64, extension: Vec<Hash>) -> Result<Self, NoteError> {
        let text = key.open(&note)?;
        let checkpoint = Checkpoint::parse(text).map_err(|_no_checkpoint| NoteError::Form)?;
        if checkpoint.origin != key.name() || EXTENSION_MAX < extension.len() {
            return Err(NoteError::Form);
        }
        Ok(Self { key, note, checkpoint, at, old, extension })
    }

    /// Whose log it is, by the name of its key.
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// The text that a countersignature stands for.
    pub fn text(&self) -> String {
        // As it was signed, with lines that only a later version understands.
        let text = self.note.rsplit_once("\n\n").map(|(text, _signatures)| format!("{text}\n"));
        text.unwrap_or_else(|| self.checkpoint.text())
    }
}

/// How a log was found not to continue what was countersigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Break {
    /// Another key signs for it.
    AnotherKey,
    /// It holds other records than before.
    Forked,
    /// It holds fewer records, or was opened in an earlier boot, than before.
    WentBack,
}

impl Break {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::AnotherKey, Self::Forked, Self::WentBack];

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnotherKey => "another_key",
            Self::Forked => "forked",
            Self::WentBack => "went_back",
        }
    }

    /// One sentence about the log.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::AnotherKey => "its checkpoints are signed by another key than before",
            Self::Forked => "it holds other records than those that were countersigned",
            Self::WentBack => "it went back behind what was countersigned",
        }
    }
}

/// The newest head of a log that was countersigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The log's key.
    pub key: Verifier,
    /// The checkpoint as its runtime signed it.
    pub note: String,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The tree behind it.
    pub tree: Tree,
    /// When it was shown, by its runtime's clock.
    pub at: Wall,
    /// What was found wrong since, first of all.
    pub broken: Option<Break>,
}

impl Head {
    /// Puts a stored head together. `None` where its parts contradict each other.
    pub fn restore(key: Verifier, note: String, subtrees: &[u8], at: Wall, broken: Option<Break>) -> Option<Self> {
        let checkpoint = Checkpoint::parse(key.open(&note).ok()?).ok()?;
        let tree = Tree::restore(checkpoint.size, subtrees).filter(|tree| tree.root() == checkpoint.root)?;
        Some(Self { key, note, checkpoint, tree, at, broken })
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It begins elsewhere than at what is known: `extension` has to go on from this size.
    Behind(u64),
    /// The log does not continue what was countersigned.
    Broken(Break),
    /// It continues what is known: this is its newest head from now on.
    Continues(Box<Head>),
    /// It says nothing, for this reason.
    Refused(&'static str),
}

/// Judges a claim by the head that was countersigned last. `skew` is how far clocks may differ, `pause` what lies between two
/// heads of one boot at least: each costs the witness a write.
pub fn judge(known: Option<&Head>, claim: &Claim, now: Wall, skew: Millis, pause: Millis) -> Judgement {
    if now.plus(skew) < claim.at || claim.at.plus(skew) < now {
        return Judgement::Refused("not_of_now");
    }
    let Some(head) = known else { return first(claim) };
    // An earlier claim that somebody kept back is no sign of a log that went back.
    if claim.at <= head.at {
        return Judgement::Refused("repeated_head");
    }
    if claim.key != head.key {
        return Judgement::Broken(Break::AnotherKey);
    }
    let (before, after) = (&head.checkpoint, &claim.checkpoint);
    if after.size < before.size || after.boot < before.boot || after.tails.went_back(&before.tails) {
        return Judgement::Broken(Break::WentBack);
    }
    if after.tails.forked(&before.tails) {
        return FORKED;
    }
    if after.size == before.size {
        return if after.root == before.root { keep(head, claim, head.tree.clone()) } else { FORKED };
    }
    if claim.old != before.size {
        return Judgement::Behind(before.size);
    }
    if after.boot == before.boot && claim.at < head.at.plus(pause) {
        return Judgement::Refused("head_too_soon");
    }
    match head.tree.extended(after.size, &claim.extension) {
        Some(tree) if tree.root() == after.root => keep(head, claim, tree),
        Some(_) => FORKED,
        None => Judgement::Refused("bad_extension"),
    }
}

const FORKED: Judgement = Judgement::Broken(Break::Forked);

/// Of a log that was never seen, its present state is taken as it is.
fn first(claim: &Claim) -> Judgement {
    if claim.old != 0 {
        return Judgement::Behind(0);
    }
    match Tree::EMPTY.extended(claim.checkpoint.size, &claim.extension) {
        Some(tree) if tree.root() == claim.checkpoint.root => {
            Judgement::Continues(Box::new(head_of(claim, tree, None)))
        }
        Some(_) | None => Judgement::Refused("bad_extension"),
    }
}

/// What was found wrong once stays until a person forgets the runtime, even if the right log comes back.
fn keep(head: &Head, claim: &Claim, tree: Tree) -> Judgement {
    Judgement::Continues(Box::new(head_of(claim, tree, head.broken)))
}

fn head_of(claim: &Claim, tree: Tree, broken: Option<Break>) -> Head {
    let Claim { key, note, checkpoint, at, .. } = claim.clone();
    Head { key, note, checkpoint, tree, at, broken }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Extension, NoteKey, Tail, Tails};
    use crate::domain::identity::IdentityKey;

    const SKEW: Millis = Millis::from_secs(30);
    const PAUSE: Millis = Millis::from_secs(20);

    fn records(count: u8, other_from: u8) -> Vec<Vec<u8>> {
        (0..count).map(|number| vec![number, u8::from(other_from <= number)]).collect()
    }

    fn at(second: u64) -> Wall {
        Wall::default().plus(Millis::from_secs(second.saturating_add(1_000)))
    }

    fn key(seed: u8) -> NoteKey {
        NoteKey::new("log", IdentityKey::from_seed([seed; 32]))
    }

    fn claim_by(key: &NoteKey, records: &[Vec<u8>], old: usize, boot: u64, second: u64) -> Claim {
        let mut tree = Tree::EMPTY;
        records.iter().for_each(|record| tree.push(record));
        let mut extension = Extension::after(old as u64);
        records.iter().skip(old).for_each(|record| extension.push(record));
        let note = key.sign(&Checkpoint::of("log", &tree, boot).text());
        Claim::read(key.verifier(), note, at(second), old as u64, extension.subtrees()).expect("signed")
    }

    /// A log of so many true records that states so many refusals.
    fn claim_with_refusals(size: u8, boot: u64, second: u64, refusals: u64) -> Claim {
        let bare = claim(&records(size, 99), if second == 0 { 0 } else { 10 }, boot, second);
        let tail = Tail { size: refusals, hash: Hash([1; 32]), first: 1 };
        let checkpoint = bare.checkpoint.with(Tails { refusals: Some(tail), ..Tails::default() });
        let note = key(1).sign(&checkpoint.text());
        Claim::read(key(1).verifier(), note, bare.at, bare.old, bare.extension).expect("signed")
    }

    #[test]
    fn a_countersignature_is_for_the_text_that_was_signed_with_lines_of_a_later_version() {
        let text = format!("{}later 1\n", claim_with_refusals(10, 2, 0, 7).text());
        assert!(text.contains("\nrefusals 7 "), "{text}");
        let claim = Claim::read(key(1).verifier(), key(1).sign(&text), at(0), 0, Vec::new()).expect("signed");
        assert_eq!(claim.text(), text);
    }

    fn claim(records: &[Vec<u8>], old: usize, boot: u64, second: u64) -> Claim {
        claim_by(&key(1), records, old, boot, second)
    }

    fn judged(known: Option<&Head>, claim: &Claim) -> Judgement {
        judge(known, claim, claim.at, SKEW, PAUSE)
    }

    fn head(claim: &Claim) -> Head {
        let Judgement::Continues(head) = judged(None, claim) else { panic!("the first of a log") };
        *head
    }

    #[test]
    fn a_log_that_only_grows_is_followed_and_one_that_does_not_is_named() {
        let head = head(&claim_with_refusals(10, 2, 0, 7));
        for (what, claim, wanted) in [
            ("the same", claim(&records(10, 99), 10, 2, 60), None),
            ("more", claim(&records(17, 99), 10, 2, 60), None),
            ("another boot", claim(&records(10, 99), 10, 3, 1), None),
            ("fewer", claim(&records(9, 99), 9, 2, 60), Some(Break::WentBack)),
            ("fewer in a later boot", claim(&records(9, 99), 9, 3, 60), Some(Break::WentBack)),
            ("an earlier boot", claim(&records(12, 99), 10, 1, 60), Some(Break::WentBack)),
            ("as many others", claim(&records(10, 9), 10, 2, 60), Some(Break::Forked)),
            ("an older copy that went on", claim(&records(17, 8), 10, 3, 60), Some(Break::Forked)),
            ("as many refusals or more", claim_with_refusals(10, 2, 60, 7), None),
            ("fewer refusals", claim_with_refusals(10, 3, 60, 6), Some(Break::WentBack)),
            ("fewer refusals and more writes", claim_with_refusals(17, 2, 60, 6), Some(Break::WentBack)),
            ("another key", claim_by(&key(2), &records(17, 99), 10, 2, 60), Some(Break::AnotherKey)),
        ] {
            match (judged(Some(&head), &claim), wanted) {
                (Judgement::Continues(next), None) => assert_eq!(next.checkpoint, claim.checkpoint, "{what}"),
                (Judgement::Broken(found), Some(wanted)) => assert_eq!(found, wanted, "{what}"),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_proves_nothing_is_refused_and_breaks_nothing() {
        let first = claim(&records(10, 99), 0, 2, 0);
        let head = head(&first);
        let refused = |what| Judgement::Refused(what);
        assert_eq!(judged(None, &claim(&records(10, 99), 3, 2, 0)), Judgement::Behind(0));
        assert_eq!(judged(Some(&head), &claim(&records(17, 99), 9, 2, 60)), Judgement::Behind(10));
        assert_eq!(judged(Some(&head), &claim(&records(17, 99), 10, 2, 19)), refused("head_too_soon"));
        // Somebody repeats a head, the one before it, or one that was kept back.
        assert_eq!(judged(Some(&head), &first), refused("repeated_head"));
        let earlier = claim(&records(4, 99), 0, 2, 0);
        assert_eq!(judge(Some(&head), &earlier, at(1), SKEW, PAUSE), refused("repeated_head"));
        let grown = claim(&records(17, 99), 10, 2, 60);
        assert_eq!(judge(Some(&head), &grown, at(91), SKEW, PAUSE), refused("not_of_now"));
        assert_eq!(judge(Some(&head), &grown, at(29), SKEW, PAUSE), refused("not_of_now"));
        let without = Claim { extension: Vec::new(), ..grown };
        assert_eq!(judged(Some(&head), &without), refused("bad_extension"));
        assert_eq!(judged(None, &Claim { old: 0, ..without }), refused("bad_extension"));
        let others = Claim { extension: claim(&records(10, 5), 0, 2, 0).extension, ..first };
        assert_eq!(judged(None, &others), refused("bad_extension"), "as many records, and others");
    }

    #[test]
    fn what_was_found_broken_stays_so_while_the_right_log_is_followed_again() {
        let head = Head { broken: Some(Break::Forked), ..head(&claim(&records(10, 99), 0, 2, 0)) };
        let Judgement::Continues(next) = judged(Some(&head), &claim(&records(17, 99), 10, 2, 60)) else { panic!() };
        assert_eq!((next.checkpoint.size, next.broken), (17, Some(Break::Forked)));
        let stored = Head::restore(next.key.clone(), next.note.clone(), &next.tree.subtrees(), next.at, next.broken);
        assert_eq!(stored, Some(*next.clone()));
        assert_eq!(Head::restore(next.key, next.note, &[], next.at, None), None);
    }

    #[test]
    fn every_break_is_told_in_words_of_its_own() {
        let told = Break::ALL.map(|it| format!("the log of s/a: {}", it.sentence()));
        assert!(told[0].contains("another key") && told[1].contains("other records") && told[2].contains("went back"));
    }

    #[test]
    fn a_note_that_the_key_has_not_signed_for_its_own_log_is_no_claim() {
        let text = Checkpoint::of("other", &Tree::EMPTY, 1).text();
        let read = |note| Claim::read(key(1).verifier(), note, at(0), 0, Vec::new()).map(|_| ());
        assert_eq!(read(key(1).sign(&text)), Err(NoteError::Form));
        let own = Checkpoint::of("log", &Tree::EMPTY, 1).text();
        assert_eq!(read(key(1).sign(&own)), Ok(()));
        let claim = Claim::read(key(1).verifier(), key(1).sign(&own), at(0), 0, Vec::new()).expect("signed");
        assert_eq!((claim.name(), claim.text()), ("log", own.clone()));
        assert!(read(key(2).sign(&own)).is_err());
        assert_eq!(read(key(1).sign("log\n1\n")), Err(NoteError::Form));
    }
}

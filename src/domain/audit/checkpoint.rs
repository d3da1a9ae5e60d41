//! Checkpoints (C2SP tlog-checkpoint): how many records a log holds and what they are, as the text of a signed note.
//!
//! Below the three lines of the format stands one of our own: the boot in which it was made, so that no start of the runtime
//! can go missing unnoticed. Then comes a line for each chain that is rotated: where it ended, and from which record on it was
//! kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tail::Tails;
use super::{Hash, Tree};
use crate::domain::id::RuntimeId;
use crate::domain::time::Millis;

/// The name of a runtime's log of writes: the first line of its checkpoints, and the name of the key that signs them.
pub fn log_name(runtime: &RuntimeId) -> String {
    format!("trust-runtime/{runtime}")
}

/// Records after which a checkpoint is made: what an attacker with the whole machine could still forge unseen.
pub const RECORDS_MAX: u64 = 64;

/// How long a record waits for its checkpoint at most, where fewer come.
pub const INTERVAL: Millis = Millis::from_secs(5);

/// How long a read or a refusal waits for a checkpoint that states it, in intervals: a minute, so that reads alone cost no more
/// than one signature in it.
pub const TAILS_INTERVALS: u32 = 12;

/// What gives reason to look whether a checkpoint is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The log is about to be closed.
    Closing,
    /// Records were added.
    Growth,
    /// [`INTERVAL`] is over.
    Interval,
    /// Records of a rotated chain are about to be removed.
    Rotation,
    /// [`TAILS_INTERVALS`] are over since the newest checkpoint.
    Tails,
}

/// Whether a log of this size in this boot is due for a checkpoint, after the newest one. Each boot leaves one at once.
pub fn is_due(newest: Option<&Checkpoint>, size: u64, boot: u64, tails: &Tails, occasion: Occasion) -> bool {
    let Some(newest) = newest else { return true };
    let grown = size.saturating_sub(newest.size);
    let is_grown = match occasion {
        Occasion::Closing | Occasion::Rotation | Occasion::Tails => 0 < grown || *tails != newest.tails,
        Occasion::Interval => 0 < grown,
        Occasion::Growth => RECORDS_MAX <= grown,
    };
    newest.boot != boot || is_grown
}

/// What a log held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose log.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// In which boot.
    pub boot: u64,
    /// Where the rotated chains stood.
    pub tails: Tails,
}

/// A text that is no checkpoint of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted a checkpoint: origin, size, root and boot on a line each")]
pub struct NotACheckpoint;

impl Checkpoint {
    /// What the tree holds now.
    pub fn of(origin: &str, tree: &Tree, boot: u64) -> Self {
        Self { origin: origin.to_owned(), size: tree.size(), root: tree.root(), boot, tails: Tails::default() }
    }

    /// The same, which also states where the rotated chains stand.
    pub fn with(self, tails: Tails) -> Self {
        Self { tails, ..self }
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let Self { origin, size, boot, tails, .. } = self;
        format!("{origin}\n{size}\n{}\nboot {boot}\n{}", STANDARD.encode(self.root.0), tails.text())
    }

    /// Reads it back. Lines that later versions add are passed over.
    pub fn parse(text: &str) -> Result<Self, NotACheckpoint> {
        let mut lines = text.lines();
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(NotACheckpoint);
        let origin = line()?.to_owned();
        let size = number(line()?)?;
        let root = STANDARD.decode(line()?).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotACheckpoint)?;
        let boot = number(line()?.strip_prefix("boot ").ok_or(NotACheckpoint)?)?;
        let mut tails = Tails::default();
        lines.try_for_each(|line| tails.take(line))?;
        Ok(Self { origin, size, root: Hash(root), boot, tails })
    }
}

/// A number in its only spelling.
pub(super) fn number(text: &str) -> Result<u64, NotACheckpoint> {
    let number: u64 = text.parse().map_err(|_any_fault| NotACheckpoint)?;
    if number.to_string() == text { Ok(number) } else { Err(NotACheckpoint) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Tail;

    #[test]
    fn the_text_is_that_of_the_format_and_reads_back() {
        let mut tree = Tree::EMPTY;
        tree.push(b"");
        let runtime = "site-a/rt-07".parse().expect("legal");
        let checkpoint = Checkpoint::of(&log_name(&runtime), &tree, 3);
        let text = "trust-runtime/site-a/rt-07\n1\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\nboot 3\n";
        assert_eq!(checkpoint.text(), text);
        assert_eq!(Checkpoint::parse(text), Ok(checkpoint.clone()));
        assert_eq!(Checkpoint::parse(&format!("{text}later\n")), Ok(checkpoint));
    }

    #[test]
    fn a_checkpoint_is_due_after_enough_records_or_time_and_only_when_something_is_new() {
        use Occasion::{Closing, Growth, Interval};
        let newest = Checkpoint { boot: 2, size: 10, ..Checkpoint::of("o", &Tree::EMPTY, 0) };
        for (size, boot, occasion, wanted) in [
            (10, 2, Growth, false),
            (73, 2, Growth, false),
            (74, 2, Growth, true),
            (10, 3, Growth, true),
            (10, 2, Interval, false),
            (11, 2, Interval, true),
            (10, 2, Closing, false),
            (11, 2, Closing, true),
        ] {
            assert_eq!(
                is_due(Some(&newest), size, boot, &Tails::default(), occasion),
                wanted,
                "{size} {boot} {occasion:?}"
            );
        }
        assert!(is_due(None, 0, 0, &Tails::default(), Growth));
    }

    #[test]
    fn what_is_new_in_a_rotated_chain_is_due_after_its_own_time_before_a_rotation_and_at_the_end() {
        use Occasion::{Closing, Growth, Interval, Rotation};
        let tail = |size| Some(Tail { size, hash: Hash([1; 32]), first: 1 });
        let newest = Checkpoint::of("o", &Tree::EMPTY, 1).with(Tails { refusals: tail(3), ..Tails::default() });
        let grown = Tails { refusals: tail(4), ..Tails::default() };
        for (occasion, wanted) in
            [(Growth, false), (Interval, false), (Occasion::Tails, true), (Rotation, true), (Closing, true)]
        {
            assert_eq!(is_due(Some(&newest), 0, 1, &grown, occasion), wanted, "{occasion:?}");
            assert!(!is_due(Some(&newest), 0, 1, &newest.tails, occasion), "nothing is new: {occasion:?}");
        }
    }

    #[test]
    fn the_lines_of_the_rotated_chains_read_back_and_a_note_without_them_says_nothing_of_them() {
        let tail = |size, first| Some(Tail { size, hash: Hash([1; 32]), first });
        let bare = Checkpoint::of("o", &Tree::EMPTY, 1);
        assert_eq!(Checkpoint::parse(&bare.text()).map(|it| it.tails), Ok(Tails::default()));
        let full = bare.clone().with(Tails { reads: tail(9, 4), refusals: tail(2, 1) });
        let text = full.text();
        let lines = "reads 9 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE= from 4\n\
                     refusals 2 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE= from 1\n";
        assert!(text.ends_with(lines), "{text}");
        assert_eq!(Checkpoint::parse(&text), Ok(full.clone()));
        assert_eq!(Checkpoint::parse(&format!("{text}later 1\n")), Ok(full));
        for (from, to) in [("reads 9", "reads x"), ("from 1", "to 1"), ("refusals 2", "reads 2")] {
            assert_eq!(Checkpoint::parse(&text.replacen(from, to, 1)), Err(NotACheckpoint), "{to}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let good = "o\n1\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\nboot 3\n";
        assert!(Checkpoint::parse(good).is_ok());
        for (from, to) in [
            ("o\n", "\n"),
            ("\n1\n", "\n01\n"),
            ("\n1\n", "\n+1\n"),
            ("\n1\n", "\n-1\n"),
            ("bjQ", "b"),
            ("boot 3", "boot"),
            ("boot 3\n", ""),
        ] {
            assert_eq!(Checkpoint::parse(&good.replacen(from, to, 1)), Err(NotACheckpoint), "{to:?}");
        }
    }
}

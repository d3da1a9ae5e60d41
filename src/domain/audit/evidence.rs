//! A log held against its checkpoints: is what is there unchanged, is all of it there, and did every boot leave its mark?
//!
//! Three verdicts, because they prove different things. What the chain alone shows is integrity as far as nobody made it
//! anew; a checkpoint shows that nobody did; a checkpoint kept elsewhere shows that nobody brought back an earlier copy.

use std::collections::BTreeSet;

use super::{Checkpoint, Tree, Verifier};

/// Where a checkpoint was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// With the log itself.
    Own,
    /// In this file elsewhere.
    Elsewhere(String),
}

/// A checkpoint whose signature holds, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where it was kept.
    pub source: Source,
    /// What it says.
    pub checkpoint: Result<Checkpoint, String>,
}

impl Held {
    /// Reads a note that the log's own key must have signed.
    pub fn read(source: Source, note: &str, key: &Verifier) -> Self {
        let read = || {
            let text = key.open(note).map_err(|error| error.to_string())?;
            let checkpoint = Checkpoint::parse(text).map_err(|error| error.to_string())?;
            let is_ours = checkpoint.origin == key.name();
            if is_ours { Ok(checkpoint) } else { Err(format!("wanted a checkpoint of {}", key.name())) }
        };
        Self { source, checkpoint: read() }
    }
}

/// What happened to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A boot left no checkpoint, or boots do not rise.
    BootGap,
    /// The file holds what no writer leaves: no record is named.
    Damaged,
    /// A record was changed.
    Edited,
    /// A checkpoint is not what its signature was made for.
    Forged,
    /// A record in the middle is missing.
    Removed,
    /// Records stand in another order.
    Reordered,
    /// An earlier copy was brought back.
    Restored,
    /// Records at the end are missing.
    Truncated,
}

impl Fault {
    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BootGap => "boot_gap",
            Self::Damaged => "damaged",
            Self::Edited => "edited",
            Self::Forged => "forged",
            Self::Removed => "removed",
            Self::Reordered => "reordered",
            Self::Restored => "restored",
            Self::Truncated => "truncated",
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds, and how far.
    Holds(String),
    /// Nothing speaks against it, and nothing proves it.
    Unproven(String),
    /// It does not hold.
    Broken {
        /// What happened.
        fault: Fault,
        /// The first record concerned; for a boot gap, the last record before it. Nothing where the file is damaged.
        record: u64,
        /// One sentence.
        text: String,
    },
}

/// The three answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Is every record that is there the one that was written, in its place?
    pub integrity: Verdict,
    /// Are all records there that were ever written?
    pub completeness: Verdict,
    /// Are records and boots numbered without a gap?
    pub continuity: Verdict,
}

/// Records that are not those of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mismatch {
    /// Up to here an earlier checkpoint agrees.
    agreed: u64,
    /// The size of the checkpoint that does not.
    size: u64,
}

/// Goes through a log record by record.
#[derive(Debug, Clone)]
pub struct Examiner {
    tree: Tree,
    held: Vec<Held>,
    agreed: u64,
    agreed_elsewhere: u64,
    own_mismatch: Option<Mismatch>,
    elsewhere_mismatch: Option<(Mismatch, String)>,
    /// The first record that does not continue the chain.
    broken: Option<(u64, Fault, String)>,
    gap: Option<u64>,
    last: u64,
    /// Who has countersigned, and how many records.
    countersigned: Vec<(String, u64)>,
}

impl Examiner {
    /// Begins before the first record, with every checkpoint of this log that is kept anywhere.
    pub fn new(held: Vec<Held>) -> Self {
        let mut examiner = Self {
            tree: Tree::EMPTY,
            held,
            agreed: 0,
            agreed_elsewhere: 0,
            own_mismatch: None,
            elsewhere_mismatch: None,
            broken: None,
            gap: None,
            last: 0,
            countersigned: Vec::new(),
        };
        examiner.held.sort_by_key(|held| held.checkpoint.as_ref().map_or(0, |it| it.size));
        examiner.compare();
        examiner
    }

    /// A witness has countersigned so many records: said where all of them are there.
    pub fn countersigned(&mut self, witness: String, size: u64) {
        self.countersigned.push((witness, size));
    }

    /// A record is stored under this number.
    pub fn stored(&mut self, seq: u64) {
        let wanted = self.last.saturating_add(1);
        if seq != wanted && self.gap.is_none() {
            self.gap = Some(wanted);
        }
        self.last = seq;
    }

    /// Its bytes continue the chain.
    pub fn follow(&mut self, record: &[u8]) {
        if self.broken.is_none() {
            self.tree.push(record);
            self.compare();
        }
    }

    /// It does not continue the chain. Only the first break counts.
    pub fn breaks(&mut self, seq: u64, fault: Fault, reason: String) {
        self.broken.get_or_insert((seq, fault, reason));
    }

    /// A record that seemed to be missing stands at a later place.
    pub fn found_later(&mut self, seq: u64) {
        if let Some((wanted, fault @ Fault::Removed, _)) = &mut self.broken
            && *wanted == seq
        {
            *fault = Fault::Reordered;
        }
    }

    /// Holds the tree against the checkpoints of its size.
    fn compare(&mut self) {
        let (size, root) = (self.tree.size(), self.tree.root());
        let (agreed, agreed_elsewhere) = (self.agreed, self.agreed_elsewhere);
        let first = self.held.partition_point(|held| size_of(held) < size);
        for held in self.held.iter().skip(first).take_while(|held| size_of(held) == size) {
            let Ok(checkpoint) = &held.checkpoint else { continue };
            match (checkpoint.root == root, &held.source) {
                (true, Source::Own) => self.agreed = size,
                (true, Source::Elsewhere(_)) => (self.agreed, self.agreed_elsewhere) = (size, size),
                (false, Source::Own) => drop(self.own_mismatch.get_or_insert(Mismatch { agreed, size })),
                (false, Source::Elsewhere(file)) => {
                    // Whoever goes on from an earlier copy has checkpoints of its own that agree with it.
                    let mismatch = Mismatch { agreed: agreed_elsewhere, size };
                    self.elsewhere_mismatch.get_or_insert_with(|| (mismatch, file.clone()));
                }
            }
        }
    }

    /// The answers, after the last record.
    pub fn finish(self) -> Findings {
        Findings { integrity: self.integrity(), completeness: self.completeness(), continuity: self.continuity() }
    }

    fn integrity(&self) -> Verdict {
        if let Some((record, fault, reason)) = &self.broken {
            let text = format!("record {record} is {}: {reason}", happened(*fault));
            return Verdict::Broken { fault: *fault, record: *record, text };
        }
        let forged = |held: &Held| match (&held.source, &held.checkpoint) {
            (Source::Own, Err(reason)) => Some(format!("a checkpoint kept with the log: {reason}")),
            (Source::Own, Ok(_)) | (Source::Elsewhere(_), _) => None,
        };
        if let Some(text) = self.held.iter().find_map(forged) {
            return Verdict::Broken { fault: Fault::Forged, record: self.agreed, text };
        }
        match self.own_mismatch {
            Some(Mismatch { agreed, size }) => {
                let record = agreed.saturating_add(1);
                let text =
                    format!("records {record} to {size} are not those that the checkpoint of {size} was made of");
                Verdict::Broken { fault: Fault::Edited, record, text }
            }
            None => Verdict::Holds(format!("every record up to {} is the one that was written", self.last)),
        }
    }

    fn completeness(&self) -> Verdict {
        let broken = |fault, record, text| Verdict::Broken { fault, record, text };
        let next = self.last.saturating_add(1);
        for held in &self.held {
            if let (Source::Elsewhere(file), Err(reason)) = (&held.source, &held.checkpoint) {
                return broken(Fault::Forged, self.agreed, format!("{file}: {reason}"));
            }
        }
        if let (Some((Mismatch { agreed, size }, file)), None) = (&self.elsewhere_mismatch, &self.own_mismatch) {
            let record = agreed.saturating_add(1);
            let text = format!(
                "records {record} to {size} are not those of {file}: an earlier copy was brought back and continued"
            );
            return broken(Fault::Restored, record, text);
        }
        let own = self.newest(|source| *source == Source::Own);
        let anywhere = self.newest(|_| true);
        match (anywhere, own) {
            (_, Some((size, _))) if self.last < size => {
                broken(Fault::Truncated, next, format!("records {next} to {size} are missing: the log was cut"))
            }
            (Some((size, Source::Elsewhere(file))), _) if self.last < size => {
                let text = format!(
                    "records {next} to {size} are missing, which {file} has seen: an earlier copy was brought back"
                );
                broken(Fault::Restored, next, text)
            }
            (Some((size, _)), _) => Verdict::Holds(format!(
                "everything up to record {size}, by {} checkpoints; {} records are newer{}",
                self.held.len(),
                self.last.saturating_sub(size),
                self.witnesses()
            )),
            (None, _) => Verdict::Unproven(format!("no checkpoint covers the {} records", self.last)),
        }
    }

    fn witnesses(&self) -> String {
        let one = |(witness, size): &(String, u64)| format!("; countersigned up to record {size} by {witness}");
        self.countersigned.iter().map(one).collect()
    }

    fn continuity(&self) -> Verdict {
        if let Some(record) = self.gap {
            let text = format!("record {record} is missing");
            return Verdict::Broken { fault: Fault::Removed, record, text };
        }
        let checkpoints = || self.held.iter().filter_map(|held| held.checkpoint.as_ref().ok());
        let mut marks: Vec<_> = checkpoints().map(|it| (it.size, it.boot)).collect();
        marks.sort_unstable();
        let boots: BTreeSet<u64> = marks.iter().map(|(_, boot)| *boot).collect();
        let (Some(first), Some(last)) = (boots.first(), boots.last()) else {
            return Verdict::Unproven(format!("records 1 to {} have no gap; no checkpoint names a boot", self.last));
        };
        for (before, after) in marks.iter().zip(marks.iter().skip(1)) {
            let (record, text) = match after.1.checked_sub(before.1) {
                Some(0 | 1) => continue,
                Some(2) => (before.0, format!("boot {} left no checkpoint", after.1.saturating_sub(1))),
                Some(_) => {
                    let missing = (before.1.saturating_add(1), after.1.saturating_sub(1));
                    (before.0, format!("boots {} to {} left no checkpoint", missing.0, missing.1))
                }
                None => (before.0, format!("boot {} comes after boot {}", after.1, before.1)),
            };
            return Verdict::Broken { fault: Fault::BootGap, record, text };
        }
        Verdict::Holds(format!("records and boots {first} to {last} have no gap"))
    }

    fn newest(&self, is_asked: impl Fn(&Source) -> bool) -> Option<(u64, &Source)> {
        let asked = self.held.iter().filter(|held| is_asked(&held.source));
        let sizes = asked.filter_map(|held| Some((held.checkpoint.as_ref().ok()?.size, &held.source)));
        sizes.max_by_key(|(size, _)| *size)
    }
}

fn size_of(held: &Held) -> u64 {
    held.checkpoint.as_ref().map_or(0, |it| it.size)
}

const fn happened(fault: Fault) -> &'static str {
    match fault {
        Fault::BootGap | Fault::Damaged | Fault::Forged | Fault::Restored | Fault::Truncated => "in doubt",
        Fault::Edited => "edited",
        Fault::Removed => "missing",
        Fault::Reordered => "out of order",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str, number: u64) -> Vec<u8> {
        format!("{text} {number}").into_bytes()
    }

    /// The checkpoint of a log of `size` records that are what they should be up to `same`.
    fn checkpoint(size: u64, same: u64, boot: u64) -> Checkpoint {
        let mut tree = Tree::EMPTY;
        for number in 1..=size {
            tree.push(&record(if number <= same { "true" } else { "other" }, number));
        }
        Checkpoint::of("log", &tree, boot)
    }

    fn own(size: u64, boot: u64) -> Held {
        Held { source: Source::Own, checkpoint: Ok(checkpoint(size, size, boot)) }
    }

    fn kept(size: u64, same: u64, boot: u64) -> Held {
        Held { source: Source::Elsewhere("peer.note".to_owned()), checkpoint: Ok(checkpoint(size, same, boot)) }
    }

    /// A log of this many true records.
    fn examine(records: u64, held: Vec<Held>) -> Findings {
        let mut examiner = Examiner::new(held);
        for number in 1..=records {
            examiner.stored(number);
            examiner.follow(&record("true", number));
        }
        examiner.finish()
    }

    fn fault(verdict: &Verdict) -> Option<(Fault, u64)> {
        match verdict {
            Verdict::Holds(_) | Verdict::Unproven(_) => None,
            Verdict::Broken { fault, record, .. } => Some((*fault, *record)),
        }
    }

    /// `[integrity, completeness, continuity]`.
    fn faults(findings: &Findings) -> [Option<(Fault, u64)>; 3] {
        [&findings.integrity, &findings.completeness, &findings.continuity].map(fault)
    }

    #[test]
    fn a_log_that_agrees_with_its_checkpoints_holds_in_every_respect() {
        let findings = examine(9, vec![own(0, 1), own(3, 1), own(3, 2), kept(5, 5, 2), own(8, 3)]);
        assert_eq!(faults(&findings), [None, None, None]);
        let Verdict::Holds(text) = findings.completeness else { panic!("{findings:?}") };
        assert_eq!(text, "everything up to record 8, by 5 checkpoints; 1 records are newer");
    }

    #[test]
    fn without_checkpoints_nothing_is_proven_and_nothing_broken() {
        let findings = examine(9, Vec::new());
        assert!(matches!(findings.integrity, Verdict::Holds(_)));
        assert!(matches!(findings.completeness, Verdict::Unproven(_)));
        assert!(matches!(findings.continuity, Verdict::Unproven(_)));
    }

    #[test]
    fn each_attack_has_its_name_and_its_record() {
        let wrong = |size, same| Held { source: Source::Own, checkpoint: Ok(checkpoint(size, same, 1)) };
        let unsigned = |source| Held { source, checkpoint: Err("the signature does not hold".to_owned()) };
        let elsewhere = || Source::Elsewhere("peer.note".to_owned());
        for (what, held, wanted) in [
            ("a chain made anew", vec![own(2, 1), wrong(5, 3)], [Some((Fault::Edited, 3)), None, None]),
            ("a cut log", vec![own(2, 1), own(12, 1)], [None, Some((Fault::Truncated, 10)), None]),
            ("an earlier copy", vec![own(2, 1), kept(12, 12, 1)], [None, Some((Fault::Restored, 10)), None]),
            (
                "a continued copy",
                vec![kept(2, 2, 1), own(4, 1), kept(5, 2, 1)],
                [None, Some((Fault::Restored, 3)), None],
            ),
            ("a forged own checkpoint", vec![own(9, 1), unsigned(Source::Own)], [Some((Fault::Forged, 9)), None, None]),
            ("a forged kept one", vec![own(9, 1), unsigned(elsewhere())], [None, Some((Fault::Forged, 9)), None]),
            ("a missing boot", vec![own(2, 1), own(5, 3)], [None, None, Some((Fault::BootGap, 2))]),
            ("missing boots", vec![own(2, 1), own(5, 9)], [None, None, Some((Fault::BootGap, 2))]),
            ("a boot come back", vec![own(2, 2), own(5, 1)], [None, None, Some((Fault::BootGap, 2))]),
        ] {
            assert_eq!(faults(&examine(9, held)), wanted, "{what}");
        }
    }

    #[test]
    fn a_missing_record_is_a_gap_and_what_comes_after_a_break_is_only_counted() {
        let mut examiner = Examiner::new(vec![own(3, 1), own(6, 1)]);
        for number in [1, 2, 4, 5, 6] {
            examiner.stored(number);
            if number < 3 {
                examiner.follow(&record("true", number));
            } else {
                examiner.breaks(3, Fault::Removed, "wanted 3".to_owned());
                examiner.follow(&record("true", number));
            }
        }
        let findings = examiner.finish();
        assert_eq!(faults(&findings), [Some((Fault::Removed, 3)), None, Some((Fault::Removed, 3))]);
    }
}

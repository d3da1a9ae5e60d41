//! A rotated chain held against what checkpoints state of it.
//!
//! Its records are signed by nobody one by one. A checkpoint states its end and the first number that is kept: what was
//! changed, cut or removed in front since is found up to the newest checkpoint, and what came after it stays unproven.

use super::{Fault, Findings, Hash, Source, Tail, Verdict};

/// What one checkpoint states, and where the checkpoint was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// Where.
    pub source: Source,
    /// What.
    pub tail: Tail,
}

/// Goes through a rotated chain record by record.
#[derive(Debug, Clone)]
pub struct TailExaminer {
    stated: Vec<Stated>,
    /// The number of the newest record that was rotated away.
    before: u64,
    /// From here on nothing may be missing in front.
    first: u64,
    last: u64,
    /// Up to here a checkpoint agrees.
    agreed: u64,
    agreed_elsewhere: u64,
    mismatch: Option<(u64, u64)>,
    elsewhere_mismatch: Option<(u64, u64, String)>,
    broken: Option<(u64, Fault, String)>,
    gap: Option<u64>,
}

impl TailExaminer {
    /// Begins after the newest record that was rotated away, with all that is stated. `first` is the first number that the
    /// newest checkpoint says is kept, where it is known to be later than that of all others.
    pub fn new(mut stated: Vec<Stated>, first: u64, before: u64, hash: Hash) -> Self {
        stated.sort_by_key(|it| it.tail.size);
        let first = stated.iter().map(|it| it.tail.first).fold(first, u64::max);
        let mut examiner = Self {
            stated,
            before,
            first,
            last: before,
            agreed: before,
            agreed_elsewhere: before,
            mismatch: None,
            elsewhere_mismatch: None,
            broken: None,
            gap: None,
        };
        examiner.compare(before, hash);
        examiner
    }

    /// A record is stored under this number.
    pub fn stored(&mut self, seq: u64) {
        let wanted = self.last.saturating_add(1);
        if seq != wanted && self.gap.is_none() {
            self.gap = Some(wanted);
        }
        self.last = seq;
    }

    /// It continues the chain and has this hash.
    pub fn follow(&mut self, seq: u64, hash: Hash) {
        if self.broken.is_none() {
            self.compare(seq, hash);
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

    fn compare(&mut self, seq: u64, hash: Hash) {
        let (agreed, agreed_elsewhere) = (self.agreed, self.agreed_elsewhere);
        let first = self.stated.partition_point(|it| it.tail.size < seq);
        for stated in self.stated.iter().skip(first).take_while(|it| it.tail.size == seq) {
            match (stated.tail.hash == hash, &stated.source) {
                (true, Source::Own) => self.agreed = seq,
                (true, Source::Elsewhere(_)) => (self.agreed, self.agreed_elsewhere) = (seq, seq),
                (false, Source::Own) => drop(self.mismatch.get_or_insert((agreed, seq))),
                (false, Source::Elsewhere(file)) => {
                    self.elsewhere_mismatch.get_or_insert_with(|| (agreed_elsewhere, seq, file.clone()));
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
            return Verdict::Broken { fault: *fault, record: *record, text: format!("record {record}: {reason}") };
        }
        match self.mismatch {
            Some((agreed, size)) => {
                let record = agreed.saturating_add(1);
                let text =
                    format!("records {record} to {size} are not those that the checkpoint of {size} was made of");
                Verdict::Broken { fault: Fault::Edited, record, text }
            }
            None => Verdict::Holds("every kept record continues the chain".to_owned()),
        }
    }

    fn completeness(&self) -> Verdict {
        let broken = |fault, record, text| Verdict::Broken { fault, record, text };
        let next = self.last.saturating_add(1);
        if let (Some((agreed, size, file)), None) = (&self.elsewhere_mismatch, self.mismatch) {
            let record = agreed.saturating_add(1);
            let text = format!(
                "records {record} to {size} are not those of {file}: an earlier copy was brought back and continued"
            );
            return broken(Fault::Restored, record, text);
        }
        let longest = |is_asked: fn(&Source) -> bool| self.stated.iter().rfind(|it| is_asked(&it.source));
        if let Some(own) = longest(|source| *source == Source::Own).filter(|it| self.last < it.tail.size) {
            let size = own.tail.size;
            let text = format!(
                "records {next} to {size} are missing: the chain was cut or emptied, or an earlier copy of it was brought back"
            );
            return broken(Fault::Truncated, next, text);
        }
        let Some(longest) = longest(|_| true) else {
            return Verdict::Unproven("no checkpoint speaks of this chain".to_owned());
        };
        let size = longest.tail.size;
        if let (Source::Elsewhere(file), true) = (&longest.source, self.last < size) {
            let text = format!(
                "records {next} to {size} are missing, which {file} has seen: an earlier copy was brought back"
            );
            return broken(Fault::Restored, next, text);
        }
        if self.first <= self.before {
            let (first, before) = (self.first, self.before);
            let text = format!("records {first} to {before} are missing in front, and no checkpoint let them go");
            return broken(Fault::Removed, first, text);
        }
        let newer = self.last.saturating_sub(size);
        Verdict::Holds(format!("everything kept up to record {size}; {newer} records are newer and not proven yet"))
    }

    fn continuity(&self) -> Verdict {
        match self.gap {
            Some(record) => {
                Verdict::Broken { fault: Fault::Removed, record, text: format!("record {record} is missing") }
            }
            None if self.last == self.before => Verdict::Holds("there are no records".to_owned()),
            None => {
                let first = self.before.saturating_add(1);
                Verdict::Holds(format!("records {first} to {} have no gap", self.last))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str, number: u64) -> Hash {
        Hash::of(format!("{text} {number}").as_bytes())
    }

    fn stated(source: Source, text: &str, size: u64, first: u64) -> Stated {
        Stated { source, tail: Tail { size, hash: hash(text, size), first } }
    }

    fn own(size: u64, first: u64) -> Stated {
        stated(Source::Own, "true", size, first)
    }

    fn kept(text: &str, size: u64, first: u64) -> Stated {
        stated(Source::Elsewhere("peer.note".to_owned()), text, size, first)
    }

    /// A chain of true records after `before` up to `last`.
    fn examine(stated: Vec<Stated>, before: u64, last: u64) -> Findings {
        let mut examiner = TailExaminer::new(stated, 0, before, hash("true", before));
        for number in before.saturating_add(1)..=last {
            examiner.stored(number);
            examiner.follow(number, hash("true", number));
        }
        examiner.finish()
    }

    fn fault(verdict: &Verdict) -> Option<(Fault, u64)> {
        match verdict {
            Verdict::Holds(_) | Verdict::Unproven(_) => None,
            Verdict::Broken { fault, record, .. } => Some((*fault, *record)),
        }
    }

    #[test]
    fn each_attack_on_a_rotated_chain_has_its_name_and_its_record() {
        let wrong = |size| stated(Source::Own, "other", size, 1);
        let (edited, truncated) = (|it| Some((Fault::Edited, it)), |it| Some((Fault::Truncated, it)));
        let (removed, restored) = (|it| Some((Fault::Removed, it)), |it| Some((Fault::Restored, it)));
        for (what, stated, before, last, integrity, completeness) in [
            ("whole", vec![own(3, 1), own(9, 1)], 0, 9, None, None),
            ("rotated as was said", vec![own(3, 1), own(9, 5)], 4, 9, None, None),
            ("not rotated yet", vec![own(3, 1), own(9, 5)], 0, 9, None, None),
            ("rotated to the stated end", vec![own(9, 10)], 9, 12, None, None),
            ("made anew", vec![own(2, 1), wrong(5)], 0, 9, edited(3), None),
            ("other where rotation stopped", vec![wrong(5), own(7, 6)], 5, 9, edited(6), None),
            ("cut", vec![own(12, 1)], 0, 9, None, truncated(10)),
            ("emptied", vec![own(12, 1)], 0, 0, None, truncated(1)),
            ("emptied by moving its beginning", vec![own(9, 1)], 9, 9, None, removed(1)),
            ("removed in front", vec![own(3, 1), own(9, 3)], 6, 9, None, removed(3)),
            ("an earlier copy", vec![own(3, 1), kept("true", 12, 1)], 0, 9, None, restored(10)),
            ("a continued copy", vec![own(3, 1), kept("true", 2, 1), kept("other", 5, 1)], 0, 9, None, restored(3)),
        ] {
            let found = examine(stated, before, last);
            assert_eq!((fault(&found.integrity), fault(&found.completeness)), (integrity, completeness), "{what}");
            assert_eq!(fault(&found.continuity), None, "{what}");
        }
    }

    #[test]
    fn what_no_checkpoint_states_is_unproven() {
        assert!(matches!(examine(Vec::new(), 4, 9).completeness, Verdict::Unproven(_)));
        let Verdict::Holds(text) = examine(vec![own(7, 1)], 0, 9).completeness else { panic!() };
        assert_eq!(text, "everything kept up to record 7; 2 records are newer and not proven yet");
    }

    #[test]
    fn a_checkpoint_that_was_made_meanwhile_lets_records_go() {
        let examiner = TailExaminer::new(vec![own(9, 1)], 5, 4, hash("true", 4));
        assert_eq!(fault(&examiner.finish().completeness), Some((Fault::Truncated, 5)));
        let mut examiner = TailExaminer::new(vec![own(4, 1)], 5, 4, hash("true", 4));
        examiner.stored(5);
        assert_eq!(fault(&examiner.finish().completeness), None);
    }

    #[test]
    fn a_gap_and_another_order_are_told_apart() {
        let mut examiner = TailExaminer::new(vec![own(3, 1)], 0, 0, Hash([0; 32]));
        for seq in [1, 3] {
            examiner.stored(seq);
        }
        examiner.breaks(2, Fault::Removed, "wanted 2".to_owned());
        let gone = examiner.clone().finish();
        assert_eq!(
            (fault(&gone.integrity), fault(&gone.continuity)),
            (Some((Fault::Removed, 2)), Some((Fault::Removed, 2)))
        );
        examiner.found_later(2);
        assert_eq!(fault(&examiner.finish().integrity), Some((Fault::Reordered, 2)));
    }
}

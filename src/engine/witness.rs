//! Heads of audit logs: this runtime keeps the newest one of each peer that asks for a countersignature, and what its peers
//! say to its own.

use std::sync::Arc;

use crate::domain::audit::witness::{Break, Claim, Head, Judgement, judge};
use crate::domain::audit::{Outcome, log_name};
use crate::domain::code::Code;
use crate::domain::envelope::SKEW;
use crate::domain::id::RuntimeId;
use crate::domain::identity::{SpiffeId, TrustState};
use crate::domain::preflight::Profile;
use crate::domain::time::{Millis, Now, Wall};
use crate::engine::effect::{Answer, Effects, Witnessed};
use crate::engine::record::{Countersigned, NotContinued, Record};
use crate::engine::view::{Category, Severity};
use crate::engine::word::Signer;
use crate::engine::{Engine, Entropy, Happening, audit_id};

impl Engine {
    /// Judges the head of a peer's log. What is to be countersigned is durable first.
    pub(super) fn witness(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        (signer, claim): (&Signer, &Claim),
        pause: Millis,
        effects: &mut Effects,
    ) -> Witnessed {
        let runtime = signer.runtime();
        if let Some(reason) = self.refuse_to_witness(now.wall, signer, claim) {
            self.count_refused(reason);
            return Witnessed::Refused(reason);
        }
        let known = self.witnessing.heads.get(runtime);
        match judge(known, claim, now.wall, SKEW, pause) {
            Judgement::Behind(size) => Witnessed::Behind(size),
            Judgement::Refused(reason) => {
                self.count_refused(reason);
                Witnessed::Refused(reason)
            }
            Judgement::Continues(head) => {
                // The same head once more costs no write.
                if known.is_none_or(|known| known.checkpoint != head.checkpoint) {
                    self.keep_head(runtime, *head, effects);
                }
                Witnessed::Continues
            }
            Judgement::Broken(reason) => self.note_break(now, entropy, runtime, reason, effects),
        }
    }

    fn refuse_to_witness(&self, now: Wall, signer: &Signer, claim: &Claim) -> Option<&'static str> {
        let runtime = signer.runtime();
        // In `dev` on loopback whoever is there may do more than this.
        let is_among_friends = self.settings.profile == Profile::Dev && self.settings.is_mesh_on_loopback;
        let may_ask = self
            .peers
            .get(runtime)
            .is_some_and(|peer| peer.speaks_by(signer, now) && (peer.trust == TrustState::Trusted || is_among_friends));
        if !may_ask || runtime.site != self.me().site || runtime == self.me() {
            Some(Code::UntrustedIdentity.as_str())
        } else if claim.name() != log_name(runtime) {
            Some("not_its_own_word")
        } else if self.is_read_only {
            Some(Code::StorageUnavailable.as_str())
        } else {
            None
        }
    }

    fn keep_head(&mut self, runtime: &RuntimeId, head: Head, effects: &mut Effects) {
        effects.persist(Record::Head { runtime: runtime.clone(), head: Box::new(head.clone()) });
        Arc::make_mut(&mut self.witnessing).heads.insert(runtime.clone(), head);
        self.change();
    }

    /// Told and put on record once for each log: what broke it first is what somebody has to look at.
    fn note_break(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        runtime: &RuntimeId,
        reason: Break,
        effects: &mut Effects,
    ) -> Witnessed {
        let Some(head) = self.witnessing.heads.get(runtime).cloned() else { return Witnessed::Behind(0) };
        let held = head.note.clone();
        if head.broken.is_none() {
            let detail = format!("the log of {runtime}: {}; {}", reason.sentence(), seen(&head));
            self.record_break(now, entropy, runtime, detail, effects);
            self.keep_head(runtime, Head { broken: Some(reason), ..head }, effects);
        }
        Witnessed::Broken(NotContinued { reason, held })
    }

    /// Takes in what a peer says to the newest head of the own log.
    pub(super) fn take_countersignature(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        mut word: Countersigned,
        effects: &mut Effects,
    ) -> Answer {
        if let Some(refusal) = self.refuse_read_only() {
            return refusal;
        }
        let before = self.witnessing.countersigned.get(&word.witness);
        if let Some(found) = &word.refused {
            // What it countersigned before is still worth something.
            if let Some(before) = before {
                (word.key, word.note) = (before.key.clone(), before.note.clone());
            }
            if before.is_none_or(|before| before.refused.is_none()) {
                let detail = format!("{} says of this log: {}", word.witness, found.reason.sentence());
                let me = self.me().clone();
                self.record_break(now, entropy, &me, detail, effects);
            }
        }
        if self.witnessing.countersigned.get(&word.witness) != Some(&word) {
            effects.persist(Record::Countersigned(Box::new(word.clone())));
            Arc::make_mut(&mut self.witnessing).countersigned.insert(word.witness.clone(), word);
            self.change();
        }
        Answer::Recorded
    }

    /// A person has looked, or the runtime is gone: what comes next is taken as it is.
    pub(super) fn forget_witnessing(&mut self, runtime: &RuntimeId, effects: &mut Effects) {
        let witnessing = Arc::make_mut(&mut self.witnessing);
        if witnessing.heads.remove(runtime).is_some() {
            effects.persist(Record::HeadForgotten { runtime: runtime.clone() });
        }
        if witnessing.countersigned.remove(runtime).is_some() {
            effects.persist(Record::CountersignedForgotten { witness: runtime.clone() });
        }
    }

    fn record_break(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        runtime: &RuntimeId,
        detail: String,
        effects: &mut Effects,
    ) {
        effects.audit(crate::domain::audit::Draft {
            audit_id: audit_id(now, entropy),
            at: now.wall,
            actor: SpiffeId::of_runtime(&self.settings.trust_domain, self.me()).to_string(),
            actor_verified: true,
            origin: self.me().clone(),
            action: "continuity_broken".to_owned(),
            target: runtime.clone(),
            request_id: None,
            outcome: Outcome::Failed,
            code: None,
            detail: detail.clone(),
            policy_hash: self.settings.policy_hash,
        });
        let (category, severity) = (Category::Security, Severity::Critical);
        self.tell(now, Happening { category, runtime: runtime.clone(), request_id: None, summary: detail, severity });
    }
}

fn seen(head: &Head) -> String {
    format!("{} records in boot {} were countersigned here", head.checkpoint.size, head.checkpoint.boot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Checkpoint, Extension, Hash, NoteKey, Tree};
    use crate::domain::envelope::dsse::PublicKey;
    use crate::domain::envelope::{Delegation, Voucher};
    use crate::domain::identity::IdentityKey;
    use crate::domain::time::{Monotonic, Wall};
    use crate::engine::record;
    use crate::engine::tests::{self, Zeros};
    use crate::engine::view::Settings;

    const PAUSE: Millis = Millis::from_secs(20);

    fn at(second: u64) -> Now {
        let since = Millis::from_secs(second.saturating_add(1_000));
        Now { wall: Wall::default().plus(since), monotonic: Monotonic::default().plus(since) }
    }

    fn identity(seed: u8) -> IdentityKey {
        IdentityKey::from_seed([seed; 32])
    }

    fn signer(runtime: &str, seed: u8) -> Signer {
        let delegation = Delegation {
            runtime: runtime.parse().expect("legal"),
            voucher: Voucher::Key([seed; 32]),
            envelope_key: PublicKey::new([seed; 32]),
            not_before: Wall::default(),
            not_after: at(0).wall.plus(Millis::from_hours(1)),
        };
        let identity = identity(seed).fingerprint();
        Signer { delegation: Arc::new(delegation), delegation_hash: Hash([seed; 32]), identity, vouched: None }
    }

    /// An engine that knows `s/b`, trusted, with the key of seed 2.
    fn engine(records: Vec<Record>) -> Engine {
        let mut known = vec![Record::Peer(record::Peer {
            runtime: "s/b".parse().expect("legal"),
            pinned: identity(2).fingerprint(),
            trust: TrustState::Trusted,
            boot: 1,
        })];
        known.extend(records);
        // Only peers with an approval count.
        let settings = Settings { is_mesh_on_loopback: false, ..tests::settings() };
        Engine::recover(Arc::new(settings), identity(1).fingerprint(), known, at(0)).expect("no removal")
    }

    /// The head of a log of so many records, those from `other` on being others.
    fn claim(name: &str, size: u8, other: u8, old: u8, second: u64) -> Claim {
        let key = NoteKey::new(name, identity(3));
        let (mut tree, mut extension) = (Tree::EMPTY, Extension::after(old.into()));
        for number in 0..size {
            let record = [number, u8::from(other <= number)];
            tree.push(&record);
            if old <= number {
                extension.push(&record);
            }
        }
        let note = key.sign(&Checkpoint::of(name, &tree, 1).text());
        Claim::read(key.verifier(), note, at(second).wall, old.into(), extension.subtrees()).expect("signed")
    }

    fn ask(engine: &mut Engine, signer: &Signer, claim: &Claim, second: u64) -> (Witnessed, Effects) {
        let mut effects = Effects::default();
        let said = engine.witness(at(second), &mut Zeros, (signer, claim), PAUSE, &mut effects);
        (said, effects)
    }

    const LOG: &str = "trust-runtime/s/b";

    #[test]
    fn a_head_is_durable_before_it_is_countersigned_and_costs_one_write() {
        let (mut engine, b) = (engine(Vec::new()), signer("s/b", 2));
        let (said, effects) = ask(&mut engine, &b, &claim(LOG, 5, 99, 0, 0), 0);
        assert_eq!(said, Witnessed::Continues);
        assert!(matches!(effects.batch.records.as_slice(), [Record::Head { .. }]), "{effects:?}");
        // The answer was lost: the same head again costs nothing.
        let (said, again) = ask(&mut engine, &b, &claim(LOG, 5, 99, 5, 1), 1);
        assert!(said == Witnessed::Continues && again.batch.is_empty(), "{again:?}");
        let mut later = self::engine(effects.batch.records);
        assert_eq!(ask(&mut later, &b, &claim(LOG, 9, 99, 4, 60), 60).0, Witnessed::Behind(5));
        assert_eq!(ask(&mut later, &b, &claim(LOG, 9, 99, 5, 60), 60).0, Witnessed::Continues);
    }

    #[test]
    fn a_break_is_on_record_once_with_the_head_that_shows_it_and_ends_with_forget() {
        let (mut engine, b) = (engine(Vec::new()), signer("s/b", 2));
        let first = ask(&mut engine, &b, &claim(LOG, 5, 99, 0, 0), 0).1;
        let (said, effects) = ask(&mut engine, &b, &claim(LOG, 9, 3, 5, 60), 60);
        let Witnessed::Broken(found) = said else { panic!("{said:?}") };
        assert_eq!(found.reason, Break::Forked);
        let Some(Record::Head { head, .. }) = first.batch.records.first() else { panic!("{first:?}") };
        assert_eq!(found.held, head.note);
        let [draft] = effects.batch.audits.as_slice() else { panic!("{effects:?}") };
        assert_eq!((draft.action.as_str(), draft.target.to_string()), ("continuity_broken", "s/b".to_owned()));
        assert!(draft.detail.ends_with("; 5 records in boot 1 were countersigned here"), "{}", draft.detail);
        assert_eq!(engine.view().witnessing.broken().count(), 1);
        let (said, again) = ask(&mut engine, &b, &claim(LOG, 3, 99, 3, 120), 120);
        assert!(matches!(said, Witnessed::Broken(_)) && again.batch.is_empty(), "{said:?} {again:?}");
        // A restart does not forget it.
        let mut later = self::engine(effects.batch.records);
        assert_eq!(later.view().witnessing.broken().count(), 1);
        let mut effects = Effects::default();
        later.forget_witnessing(&"s/b".parse().expect("legal"), &mut effects);
        assert!(matches!(effects.batch.records.as_slice(), [Record::HeadForgotten { .. }]));
        assert_eq!(ask(&mut later, &b, &claim(LOG, 3, 99, 0, 180), 180).0, Witnessed::Continues);
    }

    #[test]
    fn only_a_trusted_peer_of_the_site_is_answered_about_its_own_log() {
        let partner = record::Peer {
            runtime: "t/b".parse().expect("legal"),
            pinned: identity(2).fingerprint(),
            trust: TrustState::Trusted,
            boot: 1,
        };
        let mut engine = engine(vec![Record::Peer(partner)]);
        let untrusted = Witnessed::Refused("untrusted_identity");
        let own = claim(LOG, 5, 99, 0, 0);
        for (who, claim, wanted) in [
            (signer("s/b", 4), &own, &untrusted),
            (signer("s/c", 4), &claim("trust-runtime/s/c", 1, 99, 0, 0), &untrusted),
            (signer("t/b", 2), &claim("trust-runtime/t/b", 1, 99, 0, 0), &untrusted),
            (signer("s/a", 1), &claim("trust-runtime/s/a", 1, 99, 0, 0), &untrusted),
            (signer("s/b", 2), &claim("trust-runtime/s/c", 1, 99, 0, 0), &Witnessed::Refused("not_its_own_word")),
        ] {
            let (said, effects) = ask(&mut engine, &who, claim, 0);
            assert!(said == *wanted && effects.batch.is_empty(), "{}: {said:?} {effects:?}", who.runtime());
        }
        engine.stop_writing();
        assert_eq!(ask(&mut engine, &signer("s/b", 2), &own, 0).0, Witnessed::Refused("storage_unavailable"));
    }

    #[test]
    fn whom_nobody_has_approved_is_answered_in_dev_on_loopback_alone() {
        let untrusted = Record::Peer(record::Peer {
            runtime: "s/b".parse().expect("legal"),
            pinned: identity(2).fingerprint(),
            trust: TrustState::Untrusted,
            boot: 1,
        });
        for (profile, is_mesh_on_loopback, is_answered) in
            [(Profile::Dev, true, true), (Profile::Dev, false, false), (Profile::Plant, true, false)]
        {
            let settings = Settings { profile, is_mesh_on_loopback, ..tests::settings() };
            let records = [untrusted.clone()];
            let me = identity(1).fingerprint();
            let mut engine = Engine::recover(Arc::new(settings), me, records, at(0)).expect("no removal");
            let (said, _) = ask(&mut engine, &signer("s/b", 2), &claim(LOG, 5, 99, 0, 0), 0);
            assert_eq!(said == Witnessed::Continues, is_answered, "{profile:?} {is_mesh_on_loopback}: {said:?}");
        }
    }

    #[test]
    fn a_contradiction_of_the_own_log_degrades_it_until_it_is_taken_back() {
        let mut engine = engine(Vec::new());
        let word = |note: &str, refused| Countersigned {
            witness: "s/b".parse().expect("legal"),
            key: note.to_owned(),
            note: note.to_owned(),
            refused,
        };
        let against = || Some(NotContinued { reason: Break::WentBack, held: "held".to_owned() });
        let mut audits = Vec::new();
        for (note, refused) in [("n", None), ("", against()), ("", against())] {
            let mut effects = Effects::default();
            engine.take_countersignature(at(0), &mut Zeros, word(note, refused), &mut effects);
            audits.push(effects.batch.audits.len());
        }
        assert_eq!(audits, [0, 1, 0], "on record once");
        let kept = engine.view().witnessing.countersigned.values().next().cloned();
        assert_eq!(kept, Some(word("n", against())), "what was countersigned before is kept");
        assert_eq!(engine.view().health(), crate::domain::envelope::Health::Degraded);
        engine.take_countersignature(at(1), &mut Zeros, word("m", None), &mut Effects::default());
        assert_eq!(engine.view().health(), crate::domain::envelope::Health::Healthy);
    }
}

//! Where a run is, by its bare id.
//!
//! An id says nothing of its owner, so whoever says that a run is its own is believed by who it is: a pointer that was copied
//! from its owner before anybody's answer, a runtime of the own site before those of others, and of two who are believed
//! alike neither.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::MeshRuns;
use super::asking::{Reachable, Unanswered};
use crate::domain::code::Code;
use crate::domain::id::RuntimeId;
use crate::domain::preflight::Asker;
use crate::domain::run::{Pointer, RunId};
use crate::handle::runs::Absent;
use crate::store::runs::{Registry, RunStore};
use crate::wire::mesh::{RunAnswer, RunAsked};

/// Where a run is.
#[derive(Debug)]
pub(super) enum Whereabouts {
    Here,
    There(Pointer),
}

/// What one runtime said of where a run is.
enum Word {
    Claim(Box<Pointer>),
    No,
    Nothing,
}

/// What all said who were asked.
#[derive(Default)]
struct Heard {
    claims: Vec<Pointer>,
    /// Those who said no.
    others: usize,
}

impl MeshRuns {
    pub(super) async fn find(&self, asker: &Asker, run: RunId) -> Result<Whereabouts, Absent> {
        let shelf = &self.known.shelf;
        // Looked for in this order: a run that is accepted here may not be in the store yet.
        if self.asking.views.load().runs.contains_key(&run) {
            return Ok(Whereabouts::Here);
        }
        match on_shelf(&*shelf.store, &*shelf.registry, run).await? {
            Some(Whereabouts::Here) => return Ok(Whereabouts::Here),
            Some(Whereabouts::There(copied)) => return self.settle(asker, copied).map(Whereabouts::There),
            None => {}
        }
        if let Some(pointer) = self.known.found(run) {
            return Ok(Whereabouts::There(pointer));
        }
        Ok(Whereabouts::There(self.locate(asker, run).await?))
    }

    /// Holds a copied pointer against what was found before it came.
    fn settle(&self, asker: &Asker, copied: Pointer) -> Result<Pointer, Absent> {
        let Some(found) = self.known.found(copied.run) else { return Ok(copied) };
        if found.is_of_one_run_with(&copied) {
            // Its end may have been read before the copy of the pointers has it.
            return Ok(if copied.end.is_some() { copied } else { found });
        }
        if found.owner == copied.owner {
            // It has said otherwise since.
            self.known.drop_found(copied.run);
            return Ok(copied);
        }
        if self.asking.is_believed(&found.owner) {
            // Both are of the own site, and either may lie.
            return Err(self.contested(asker, &[found, copied]));
        }
        // Only those of the own site are copied.
        let reason = format!("{} is no run of {}: {} has it", copied.run, found.owner, copied.owner);
        self.asking.note_claims(asker, &found, &reason);
        self.known.drop_found(copied.run);
        Ok(copied)
    }

    /// Asks everybody who is there: those who are believed, and if all of them have said no, the others. Only a run's owner
    /// knows it.
    async fn locate(&self, asker: &Asker, run: RunId) -> Result<Pointer, Absent> {
        let Ok(Ok(_place)) = tokio::time::timeout(self.patience.locate, self.locating.acquire()).await else {
            return Err(Absent::failed(Code::ServerBusy, "too many runs are being looked for"));
        };
        if let Some(pointer) = self.known.found(run) {
            return Ok(pointer);
        }
        for Reachable { asked, count } in self.asking.reachable(asker, self.patience.asked) {
            let mut heard = self.hear(asker, run, &asked).await;
            match (heard.claims.pop(), heard.claims.is_empty()) {
                (Some(pointer), true) => {
                    self.known.remember(pointer.clone());
                    return Ok(pointer);
                }
                (Some(pointer), false) => {
                    heard.claims.push(pointer);
                    return Err(self.contested(asker, &heard.claims));
                }
                // It may be the run of one who was silent or not asked, so nobody who is believed less is asked.
                (None, _) if heard.others < count => return Err(Absent::Unanswered),
                (None, _) => {}
            }
        }
        Err(Absent::Unknown)
    }

    /// Waits for all: who answers first is not right by that.
    async fn hear(&self, asker: &Asker, run: RunId, owners: &[RuntimeId]) -> Heard {
        let ask = |owner| async move {
            let asked = (run, &RunAsked::Pointer);
            match self.asking.ask(asker, owner, asked, self.patience.locate).await {
                Ok(RunAnswer::Pointer(pointer)) => Word::Claim(pointer),
                Ok(RunAnswer::Denied(_) | RunAnswer::Unknown) | Err(Unanswered::Denied(_)) => Word::No,
                // The form of an answer is checked: others than these do not come.
                Ok(
                    RunAnswer::Announced(_)
                    | RunAnswer::Events(..)
                    | RunAnswer::HeldUp(_)
                    | RunAnswer::Piece(_)
                    | RunAnswer::Record(_),
                )
                | Err(Unanswered::Busy | Unanswered::Misunderstood | Unanswered::Silent) => Word::Nothing,
            }
        };
        let mut answers: FuturesUnordered<_> = owners.iter().map(ask).collect();
        let mut heard = Heard::default();
        let all = async {
            while let Some(word) = answers.next().await {
                match word {
                    Word::Claim(pointer) => heard.claims.push(*pointer),
                    Word::No => heard.others = heard.others.saturating_add(1),
                    Word::Nothing => {}
                }
            }
        };
        tokio::time::timeout(self.patience.locate, all).await.unwrap_or_default();
        heard
    }

    /// More than one has claimed the run: nobody here can say who lies.
    fn contested(&self, asker: &Asker, claims: &[Pointer]) -> Absent {
        let mut owners: Vec<_> = claims.iter().map(|pointer| pointer.owner.clone()).collect();
        owners.sort();
        let absent = Absent::Contested(owners);
        if let Some(claim) = claims.first() {
            self.asking.note_claims(asker, claim, &format!("{}: {absent}", claim.run));
        }
        absent
    }
}

/// Where a run is as far as this node has written it down. A record that is not what its pointer says is nobody's (contract,
/// RR-25), and so is a run that was forgotten here: it was an own one, whoever else says that it has it (RR-60).
async fn on_shelf(store: &dyn RunStore, registry: &dyn Registry, run: RunId) -> Result<Option<Whereabouts>, Absent> {
    let fault = |error: crate::store::Error| Absent::failed(Code::StorageUnavailable, error.to_string());
    let pointer = registry.lookup(run).await.map_err(fault)?;
    match (store.run(run).await.map_err(fault)?, pointer) {
        (Some(kept), Some(pointer)) if !kept.pointer.is_of_one_run_with(&pointer) => Err(Absent::Unknown),
        (Some(_), _) => Ok(Some(Whereabouts::Here)),
        (None, _) if store.is_forgotten(run).await.map_err(fault)? => Err(Absent::Unknown),
        (None, pointer) => Ok(pointer.map(Whereabouts::There)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::run::{Event, Kind};
    use crate::domain::time::Wall;
    use crate::store::runs::Change;
    use crate::store::runs::memory::MemoryRuns;

    fn run_id() -> RunId {
        RunId::new(Wall::from_millis(1), [7; 10])
    }

    async fn holding(agent: &str, instance: &str) -> Arc<MemoryRuns> {
        let store = Arc::new(MemoryRuns::new(50));
        let pointer = Pointer {
            run: run_id(),
            owner: "site/a".parse().expect("legal"),
            agent: agent.parse().expect("legal"),
            instance: instance.parse().expect("legal"),
            started: Wall::from_millis(1),
            end: None,
        };
        let first = Event { index: 0, kind: Kind::RunStart, at: Wall::from_millis(1), body: "{}".into() };
        store.commit(vec![Change::Create { pointer, first }]).await.expect("written");
        store
    }

    #[tokio::test]
    async fn a_record_that_is_not_what_its_pointer_says_is_none() {
        let store = holding("hello", "i1").await;
        let beside = async |registry: Arc<MemoryRuns>| on_shelf(&*store, &*registry, run_id()).await;
        assert!(matches!(beside(holding("hello", "i1").await).await, Ok(Some(Whereabouts::Here))));
        for (agent, instance) in [("hello", "i2"), ("boom", "i1")] {
            let found = beside(holding(agent, instance).await).await;
            assert!(matches!(found, Err(Absent::Unknown)), "{found:?}");
        }
        assert!(matches!(beside(Arc::new(MemoryRuns::new(50))).await, Ok(Some(Whereabouts::Here))));
    }
}

//! Which sent writes are under way: begun, and their outcome not told yet. The same request may be sent again before the first is
//! over; its intent stays open until the last of them is.

use std::collections::BTreeMap;

use crate::engine::record::IntentKey;

/// How often each write is under way. What a batch has changed can be taken back until the batch is durable.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay {
    times: BTreeMap<IntentKey, usize>,
    /// What the batch that is not durable yet has changed, in its order.
    unsettled: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Begun(IntentKey),
    Concluded(IntentKey),
}

impl UnderWay {
    pub(super) fn begin(&mut self, key: &IntentKey) {
        self.add(key);
        self.unsettled.push(Change::Begun(key.clone()));
    }

    /// Gives whether it was the last of its request.
    pub(super) fn conclude(&mut self, key: &IntentKey) -> bool {
        if self.take(key) {
            self.unsettled.push(Change::Concluded(key.clone()));
        }
        !self.times.contains_key(key)
    }

    /// The batch is durable, or its outcomes are kept whatever becomes of it.
    pub(super) fn settle(&mut self) {
        self.unsettled.clear();
    }

    /// The batch has failed: nothing of what it began was sent, and what it concluded is told again.
    pub(super) fn take_back(&mut self) {
        for change in std::mem::take(&mut self.unsettled).into_iter().rev() {
            match change {
                Change::Begun(key) => drop(self.take(&key)),
                Change::Concluded(key) => self.add(&key),
            }
        }
    }

    fn add(&mut self, key: &IntentKey) {
        let times = self.times.entry(key.clone()).or_default();
        *times = times.saturating_add(1);
    }

    /// Gives whether there was one to take.
    fn take(&mut self, key: &IntentKey) -> bool {
        let Some(times) = self.times.get_mut(key) else { return false };
        *times = times.saturating_sub(1);
        if *times == 0 {
            self.times.remove(key);
        }
        true
    }
}

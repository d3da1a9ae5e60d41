//! New settings while the engine runs: rules, grants, limits and live values, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::audit::Outcome;
use crate::domain::config::Value;
use crate::domain::preflight::Asker;
use crate::domain::time::Now;
use crate::engine::effect::{Answer, Effect, Effects};
use crate::engine::view::{Category, OwnCertificate, RetiredKey, Settings, Severity};
use crate::engine::{Engine, Entropy, Happening};

/// Most former keys that are remembered: a node whose agent gives it another one every few seconds forgets the oldest.
const RETIRED_MAX: usize = 16;

impl Engine {
    /// Runs with these settings from now on. What was decided before stays decided.
    ///
    /// A store that takes no writes does not hold it up: a rule that is taken back must not go on because a disk is full.
    pub(super) fn reload(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        asker: &Asker,
        settings: Arc<Settings>,
        detail: &str,
        effects: &mut Effects,
    ) -> Answer {
        let before = self.values_in_force();
        self.take_certificate(now, settings.certificate);
        self.settings = settings;
        if !self.is_read_only {
            self.let_the_file_win(now, entropy, effects);
        }
        self.apply_overlay();
        self.apply_changes(&before, effects);
        let runtime = self.me().clone();
        let summary = format!("settings were read again: {detail}");
        let severity = Severity::Info;
        self.tell(now, Happening { category: Category::Config, runtime, request_id: None, summary, severity });
        if !self.is_read_only {
            let mut draft = self.draft(now, entropy, asker, "reload", Outcome::Applied);
            draft.detail = detail.to_owned();
            effects.audit(draft);
        }
        Answer::Recorded
    }

    /// With another certificate all links are replaced, and with another key this runtime is addressed by another name. Whoever
    /// has not heard of it yet still means this very run, whose memory of requests goes on.
    fn take_certificate(&mut self, now: Now, certificate: Option<OwnCertificate>) {
        let Some(certificate) = certificate.filter(|it| self.settings.certificate != Some(*it)) else { return };
        if certificate.key != self.identity {
            let retired = Arc::make_mut(&mut self.retired);
            retired.insert(0, RetiredKey::at(self.identity, now.wall));
            retired.truncate(RETIRED_MAX);
            self.identity = certificate.key;
        }
        for runtime in self.peers.clone().keys() {
            if let Some(peer) = self.peer_mut(runtime) {
                peer.presence.relink(now.monotonic);
            }
        }
        self.change();
    }

    /// A value that was edited while the store took no writes beats what was applied over it from now on.
    pub(super) fn make_up_for_reloads(&mut self, now: Now, entropy: &mut dyn Entropy, effects: &mut Effects) {
        let before = self.values_in_force();
        self.let_the_file_win(now, entropy, effects);
        self.apply_changes(&before, effects);
    }

    /// Has the node's parts take what is no longer as it was before.
    fn apply_changes(&self, before: &BTreeMap<String, Value>, effects: &mut Effects) {
        let mut values = self.values_in_force();
        values.retain(|key, value| before.get(key) != Some(value));
        if !values.is_empty() {
            effects.then(Effect::Apply { values });
        }
    }

    /// The live values: the file's, and over them the applied ones.
    pub fn values_in_force(&self) -> BTreeMap<String, Value> {
        let mut values = self.settings.file_values.clone();
        values.extend(self.overlay.values.iter().map(|(key, value)| (key.clone(), value.clone())));
        values
    }
}

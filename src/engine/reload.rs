//! New settings while the engine runs: rules, grants, limits and live values, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::audit::Outcome;
use crate::domain::config::Value;
use crate::domain::preflight::Asker;
use crate::domain::time::Now;
use crate::engine::effect::{Answer, Effect, Effects};
use crate::engine::view::{Category, Settings, Severity};
use crate::engine::{Engine, Entropy, Happening};

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
        self.settings = settings;
        if !self.is_read_only {
            self.let_the_file_win(now, entropy, effects);
        }
        self.apply_overlay();
        let mut values = self.values_in_force();
        values.retain(|key, value| before.get(key) != Some(value));
        if !values.is_empty() {
            effects.then(Effect::Apply { values });
        }
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

    /// The live values: the file's, and over them the applied ones.
    fn values_in_force(&self) -> BTreeMap<String, Value> {
        let mut values = self.settings.file_values.clone();
        values.extend(self.overlay.values.iter().map(|(key, value)| (key.clone(), value.clone())));
        values
    }
}

//! What is written rightly and still protects less than it seems: refused where protection counts, a warning elsewhere.

use crate::settings::profile::Precondition;
use crate::settings::raw::At;
use crate::settings::valid::Profile;

/// One such thing.
#[derive(Debug)]
pub(crate) struct Concern {
    /// The setting.
    pub(crate) setting: &'static str,
    /// Where it is written.
    pub(crate) at: At,
    /// What about it.
    pub(crate) reason: String,
    /// Whether somebody would count on it to keep others out.
    pub(crate) is_about_protection: bool,
}

impl Concern {
    /// Whether a node of the profile may not start with it.
    pub(crate) fn is_refused_in(&self, profile: Profile) -> bool {
        self.is_about_protection && profile != Profile::Dev
    }
}

impl From<Concern> for Precondition {
    fn from(concern: Concern) -> Self {
        Self { setting: concern.setting, reason: concern.reason }
    }
}

//! What is written rightly and still protects less than it seems: refused where protection counts, a warning elsewhere.

use crate::domain::id::SiteId;
use crate::settings::profile::Precondition;
use crate::settings::raw::{At, Node};
use crate::settings::table::Table;
use crate::settings::valid::{Profile, Settings};

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

/// Other sites that are known by anchors alone, in `wan`: an anchor has neither a number nor an age, so nothing stops writes when
/// the site has taken it back. It is no reason not to start, because two sites begin with an exchange of anchors.
pub(crate) fn of_ageless_anchors(root: &Node, settings: &Settings) -> Vec<Concern> {
    const SETTING: &str = "runtime.identity.anchors";
    if settings.profile != Profile::Wan {
        return Vec::new();
    }
    let has_bundle = |site: &SiteId| settings.identity.partners.iter().any(|partner| partner.site == *site);
    let concern = |entry: &Table<'_>| {
        let site = entry.parsed::<SiteId>("site").filter(|site| site != settings.site() && !has_bundle(site))?;
        let reason = format!(
            "site {site} is known by its anchors alone, which never go stale: one that its authority has taken back goes on to \
             count for writes until the file is exchanged; add [[runtime.identity.partner]] for {site} and import its bundle"
        );
        Some(Concern { setting: SETTING, at: entry.at.clone(), reason, is_about_protection: false })
    };
    Table::of(root, "runtime.identity").list("anchors").iter().filter_map(concern).collect()
}

impl From<Concern> for Precondition {
    fn from(concern: Concern) -> Self {
        Self { setting: concern.setting, reason: concern.reason }
    }
}

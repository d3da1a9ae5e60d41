//! What a profile promises, asked before each request is answered: the one place that compares it with what there is.

use super::error::{Kind, Problem};
use super::router::Shared;
use super::{Auth, Options};
use crate::domain::code::Code;
use crate::domain::preflight::Profile;
use crate::domain::time::Wall;
use crate::engine::view::{ClockState, Renewal, View};

/// What becomes of a request while the node lacks what its profile promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// It is answered all the same: it says nothing of the plant, or it is how the promise is kept again.
    Answered,
    /// It is refused, whatever it is.
    Refused,
    /// It is refused in the form of its own answer, by its handler.
    Told,
}

impl Shared {
    /// Why nothing is answered now that rests on what the profile promises, if so.
    pub(crate) fn broken_promise(&self) -> Option<Problem> {
        let missing = self.lacking(&self.node.view())?;
        Some(Problem::new(Kind::Failed(Code::NotConfigured), missing))
    }

    /// Which setting the profile needs and does not have.
    pub(crate) fn lacking(&self, view: &View) -> Option<String> {
        lacking(&self.options, view, self.node.now().wall)
    }
}

fn lacking(options: &Options, view: &View, now: Wall) -> Option<String> {
    let settings = &view.settings;
    let profile = settings.profile.as_str();
    if settings.profile == Profile::Dev {
        return None;
    }
    if !settings.is_secure {
        return Some(format!("the profile {profile} needs runtime.tls.mode to be self-managed or provisioned"));
    }
    let is_over = settings.certificate.is_some_and(|certificate| certificate.renewal(now) == Renewal::Overdue);
    // A clock that is not believed says nothing about a certificate. It grants nothing either, and reads go on.
    if is_over && view.clock == ClockState::Certain {
        return Some(format!("the profile {profile} needs a certificate that holds: renew runtime.identity.svid_path"));
    }
    (options.auth == Auth::Local).then(|| format!("the profile {profile} needs runtime.web.auth = \"token\""))
}

//! The credential of one who follows something: asked again for as long as the stream lasts, and at once when one is taken
//! away. Whoever was let in yesterday does not read on with a token that was revoked today.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::auth::{self, Caller};
use super::error::{Kind, Problem};
use super::rate::Holder;
use super::router::{Call, Presented, Shared};
use crate::domain::identity::Role;

/// A caller as it was when it was let in, with what it has presented.
#[derive(Debug)]
pub(crate) struct Standing {
    shared: Arc<Shared>,
    headers: HeaderMap,
    presented: Presented,
    holder: Holder,
    role: Role,
    changes: watch::Receiver<u64>,
    asked: Instant,
}

/// How a wait has ended.
#[derive(Debug)]
pub(crate) enum Waited<T> {
    /// What was waited for has come.
    Came(T),
    /// Nothing has happened for as long as a reader may be left without a sign.
    Silent,
    /// The credentials have changed, and this one holds still.
    Again,
    /// The credential holds no more, or not what the profile promises.
    Lapsed(Problem),
    /// The node stops.
    Stopped,
}

impl Standing {
    /// What a caller has presented just now.
    pub(crate) fn new(shared: &Arc<Shared>, call: &Call) -> Result<Self, Problem> {
        let caller = call.caller()?;
        Ok(Self {
            shared: Arc::clone(shared),
            headers: auth::identifying(&call.headers),
            presented: call.presented.clone(),
            holder: caller.holder(),
            role: caller.role(),
            changes: shared.options.credentials.changes(),
            asked: Instant::now(),
        })
    }

    /// Waits for what comes next, but not beyond a heartbeat and not with a credential that is gone.
    pub(crate) async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Waited<T> {
        // Where something always comes, there is never a silence to ask in.
        if (self.heartbeat() <= self.asked.elapsed() || self.has_news())
            && let Some(lapsed) = self.ask_again()
        {
            return Waited::Lapsed(lapsed);
        }
        let heartbeat = self.heartbeat();
        let silent = tokio::select! {
            () = self.shared.stopping.cancelled() => return Waited::Stopped,
            () = changed(&mut self.changes) => Waited::Again,
            waited = tokio::time::timeout(heartbeat, next) => match waited {
                Ok(came) => return Waited::Came(came),
                Err(_elapsed) => Waited::Silent,
            },
        };
        self.ask_again().map_or(silent, Waited::Lapsed)
    }

    fn heartbeat(&self) -> Duration {
        self.shared.options.limits.heartbeat
    }

    fn has_news(&self) -> bool {
        self.changes.has_changed().unwrap_or(false)
    }

    /// Why the credential holds no more, or not what the profile promises, if so.
    fn ask_again(&mut self) -> Option<Problem> {
        self.asked = Instant::now();
        self.changes.mark_unchanged();
        let (view, now) = (self.shared.node.view(), self.shared.node.now().wall);
        let options = &self.shared.options;
        let caller = auth::identify(options, &view, &self.headers, self.presented.connection(), now);
        let is_same = |caller: &Caller| {
            caller.holder() == self.holder && caller.role() == self.role && caller.opens(&options.surface)
        };
        let detail = "the credential with which this stream was opened holds no more";
        let lapsed = caller.ok().filter(is_same).is_none().then(|| Problem::new(Kind::BadCredential, detail));
        lapsed.or_else(|| self.shared.broken_promise())
    }
}

/// Waits until the credentials change.
async fn changed(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        future::pending().await
    }
}

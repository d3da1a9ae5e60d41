//! `POST /api/runtime-cloud/control/…`: what an admin asks of this node itself.

use std::sync::Arc;

use crate::domain::code::Code;
use crate::handle::{Control, Failure};
use crate::web::error::{Kind, Problem};
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::wire::api::v1::{Fault, control};

/// Stops this node.
pub(crate) fn shutdown(shared: Arc<Shared>, call: Call) -> Waiting {
    let control = control::read_plain(&call.body).map(|()| Control::Shutdown);
    change(shared, call, control)
}

/// Accepts the wall clock as it is.
pub(crate) fn time_reset(shared: Arc<Shared>, call: Call) -> Waiting {
    let control = control::read_plain(&call.body).map(|()| Control::TimeReset);
    change(shared, call, control)
}

/// Reads the node's files again.
pub(crate) fn reload(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move {
        control::read_plain(&call.body)?;
        let asker = call.caller()?.asker();
        let node = Arc::clone(&shared.node);
        let task = shared.tasks.spawn(async move { node.reload(asker).await });
        let failed = |failure: Failure| Problem::new(Kind::Failed(failure.code), failure.reason);
        let reloaded = task.await.map_err(lost)?.map_err(failed)?;
        let rejected = reloaded.rejected.iter().map(|it| (it.what.as_str(), it.reason.as_str()));
        let me = shared.node.view().me().clone();
        Ok(json(control::reloaded(&me, &reloaded.applied, &reloaded.needs_restart, rejected)))
    })
}

/// Trusts a peer.
pub(crate) fn peers_approve(shared: Arc<Shared>, call: Call) -> Waiting {
    let read = control::read_peer(&call.body, shared.node.view().me());
    let control = read.map(|(runtime, fingerprint)| Control::PeersApprove { runtime, fingerprint });
    change(shared, call, control)
}

/// Forgets a peer.
pub(crate) fn peers_forget(shared: Arc<Shared>, call: Call) -> Waiting {
    let read = control::read_peer(&call.body, shared.node.view().me());
    let control = read.map(|(runtime, _fingerprint)| Control::PeersForget { runtime });
    change(shared, call, control)
}

fn change(shared: Arc<Shared>, call: Call, control: Result<Control, Fault>) -> Waiting {
    Box::pin(async move { carry_out(&shared, &call, control?).await })
}

fn lost(_panicked: tokio::task::JoinError) -> Failure {
    Failure { code: Code::Interrupted, reason: "the request was cut off".to_owned() }
}

async fn carry_out(shared: &Shared, call: &Call, control: Control) -> Answered {
    let asker = call.caller()?.asker();
    let node = Arc::clone(&shared.node);
    // In a task of its own, as a dispatch is: a caller who hangs up does not stop it half-way.
    let task = shared.tasks.spawn(async move { node.control(asker, control).await });
    task.await.map_err(lost)?.map_err(|failure| Problem::new(Kind::Failed(failure.code), failure.reason))?;
    Ok(json(control::answer(shared.node.view().me())))
}

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

async fn carry_out(shared: &Shared, call: &Call, control: Control) -> Answered {
    let asker = call.caller()?.asker();
    let node = Arc::clone(&shared.node);
    // In a task of its own, as a dispatch is: a caller who hangs up does not stop it half-way.
    let task = shared.tasks.spawn(async move { node.control(asker, control).await });
    let lost = |_panicked| Failure { code: Code::Interrupted, reason: "the request was cut off".to_owned() };
    task.await.map_err(lost)?.map_err(|failure| Problem::new(Kind::Failed(failure.code), failure.reason))?;
    Ok(json(control::answer(shared.node.view().me())))
}

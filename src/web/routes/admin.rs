//! The admin listener: lists of this runtime's agents, instances and runs. Nothing here changes anything.

use std::sync::Arc;

use crate::domain::run::{AgentName, Instance};
use crate::engine::view::View;
use crate::handle::runs::RunsAsked;
use crate::web::envelope::RunFault;
use crate::web::error::Problem;
use crate::web::router::{Answered, Call, Shared, Waiting, json};
use crate::web::routes::invoke::registry;
use crate::wire::run::{self, ListQuery};

/// The declared agents.
pub(crate) fn agents(shared: &Shared, _call: &Call) -> Answered {
    Ok(json(run::agents(&shared.node.view().settings.offer)))
}

/// The instances of one agent.
pub(crate) fn instances(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move {
        let pairs = call.pairs()?;
        let query = run::list_query(&pairs).map_err(Problem::of_query)?;
        let agent = known(&shared.node.view(), &call.segment(1).unwrap_or_default())?;
        let cursor = query.cursor.and_then(run::read_instance_cursor).filter(|(of, _)| *of == agent);
        let page = registry(&shared)?.instances(Some(agent), cursor, query.limit).await?;
        Ok(json(run::instances(&page.instances, page.next.as_ref())))
    })
}

/// The runs of one instance.
pub(crate) fn instance_runs(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move {
        let pairs = call.pairs()?;
        let query = run::list_query(&pairs).map_err(Problem::of_query)?;
        let agent = known(&shared.node.view(), &call.segment(1).unwrap_or_default())?;
        match call.segment(3).and_then(|id| id.parse().ok()) {
            Some(instance) => list(&shared, &query, Some(agent), Some(instance)).await,
            // What can be no instance has no runs.
            None => Ok(json(run::pointers(&[], None))),
        }
    })
}

/// All runs.
pub(crate) fn runs(shared: Arc<Shared>, call: Call) -> Waiting {
    Box::pin(async move {
        let pairs = call.pairs()?;
        let query = run::list_query(&pairs).map_err(Problem::of_query)?;
        let agent = query.agent_name.map(|name| known(&shared.node.view(), name)).transpose()?;
        list(&shared, &query, agent, None).await
    })
}

async fn list(
    shared: &Shared,
    query: &ListQuery<'_>,
    agent: Option<AgentName>,
    instance: Option<Instance>,
) -> Answered {
    let cursor = query.cursor.and_then(run::read_run_cursor);
    let asked = RunsAsked { status: query.status, agent, instance, cursor, limit: query.limit };
    let page = registry(shared)?.list(asked).await?;
    Ok(json(run::pointers(&page.pointers, page.next)))
}

/// The agent or command of this name, if this runtime declares it.
fn known(view: &View, name: &str) -> Result<AgentName, Problem> {
    let offer = &view.settings.offer;
    let is_declared = |agent: &AgentName| match agent.command() {
        Some(command) => offer.commands.keys().any(|it| it.as_str() == command),
        None => offer.agents.keys().any(|it| it.as_str() == agent.as_str()),
    };
    let agent = name.parse().ok().filter(is_declared);
    agent.ok_or_else(|| Problem::of_run(RunFault::AgentNotFound, "no agent of this name is declared on this runtime"))
}

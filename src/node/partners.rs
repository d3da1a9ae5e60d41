//! What runs for each partner, and ends when the settings name it no more: its links, and the questions to its endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::domain::id::SiteId;
use crate::mesh::Mesh;
use crate::settings::Settings;

/// The running side of all partners.
#[derive(Debug, Clone)]
pub(super) struct Partners {
    mesh: Arc<dyn Mesh>,
    polls: BTreeMap<SiteId, CancellationToken>,
}

impl Partners {
    pub(super) fn new(mesh: Arc<dyn Mesh>) -> Self {
        Self { mesh, polls: BTreeMap::new() }
    }

    /// Runs a partner's task until the partner goes.
    pub(super) fn until_gone<T: Future<Output = ()> + Send + 'static>(
        &mut self,
        site: SiteId,
        task: T,
    ) -> impl Future<Output = ()> + Send + use<T> {
        let stop = CancellationToken::new();
        self.polls.insert(site, stop.clone());
        async move {
            stop.run_until_cancelled(task).await;
        }
    }

    /// Ends what runs for partners that were there and are not any more.
    pub(super) fn end_those_gone(&self, before: &Settings, now: &Settings) {
        for gone in before.identity.partners.iter().filter(|it| !now.identity.partners.contains(it)) {
            tracing::info!(site = %gone.site, "the partner's bundle is not asked for any more");
            self.polls.get(&gone.site).into_iter().for_each(CancellationToken::cancel);
        }
        for gone in before.mesh.partners.iter().filter(|it| !now.mesh.partners.contains(it)) {
            tracing::info!(site = %gone.site, "links with the partner are ended");
            self.mesh.dismiss(&gone.site);
        }
    }
}

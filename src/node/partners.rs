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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::mesh::memory::Hub;
    use crate::settings::parse;

    fn knowing(sites: &[&str]) -> Settings {
        let entries: String =
            sites.iter().map(|site| format!("[[runtime.identity.partner]]\nsite = {site:?}\n")).collect();
        let text = format!(
            "[bundle]\nversion = 1\n[runtime.identity]\nsite = \"north\"\nsource = \"files\"\nsvid_path = \"a\"\n\
             key_path = \"b\"\nanchors = [{{ site = \"north\", path = \"n\" }}]\n{entries}"
        );
        parse(&text, "runtime.toml", "node", []).expect("valid")
    }

    #[tokio::test]
    async fn the_questions_to_a_partner_end_with_its_entry_and_those_to_others_do_not() {
        let (mesh, _inbox) = Hub::new().expect("a hub").join("north/a".parse().expect("legal"), 1);
        let mut partners = Partners::new(mesh);
        let [south, east] =
            ["south", "east"].map(|site| partners.until_gone(site.parse().expect("legal"), std::future::pending()));
        partners.end_those_gone(&knowing(&["south", "east"]), &knowing(&["east"]));
        assert_eq!(timeout(Duration::from_secs(10), south).await, Ok(()), "it ends");
        assert!(timeout(Duration::from_millis(50), east).await.is_err(), "it goes on");
    }
}

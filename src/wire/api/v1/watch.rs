//! The state as those who follow it are told of it: what is different now.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::encode;
use super::state::{Row, rows};
use crate::domain::time::{Monotonic, Now};
use crate::domain::workload;
use crate::engine::view::View;

/// A node or a link that is no more.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RemovedBody<'a> {
    /// A node.
    Node {
        /// Which.
        runtime_id: &'a str,
    },
    /// A link.
    Edge {
        /// From whom.
        source: &'a str,
        /// To whom.
        target: &'a str,
    },
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `node`, `edge`, `timeline` or `removed`.
    pub name: &'static str,
    /// The row as it is now, as JSON on one line.
    pub data: Vec<u8>,
}

/// The rows of the state, each written once.
#[derive(Debug, Default)]
pub struct Fragments {
    nodes: BTreeMap<String, Row>,
    edges: BTreeMap<(String, String), Row>,
    /// By their numbers.
    timeline: BTreeMap<u64, Vec<u8>>,
    /// From this moment on they are out of date even if nothing more is heard.
    pub good_until: Option<Monotonic>,
}

impl Fragments {
    /// Writes down what a view says now.
    pub fn take(view: &View, workload: Option<&workload::Status>, now: Now) -> Self {
        let (nodes, edges, timeline) = rows(view, workload, now);
        let next = view.peers.values().filter_map(|peer| peer.presence.next_change(&view.limits, now.monotonic));
        Self {
            nodes: nodes.into_iter().collect(),
            edges: edges.into_iter().collect(),
            timeline: timeline.into_iter().collect(),
            good_until: next.min(),
        }
    }

    /// What is different from before. A time that moves by itself makes no difference.
    pub fn since(&self, before: &Self) -> Vec<Change> {
        let removed = |body: RemovedBody<'_>| Change { name: "removed", data: encode(&body) };
        let gone_edges = before.edges.keys().filter(|key| !self.edges.contains_key(*key));
        let gone_nodes = before.nodes.keys().filter(|key| !self.nodes.contains_key(*key));
        let newest = before.timeline.keys().next_back().copied();
        let rows = self.timeline.iter().filter(|(number, _)| newest.is_none_or(|newest| newest < **number));
        gone_edges
            .map(|(source, target)| removed(RemovedBody::Edge { source, target }))
            .chain(gone_nodes.map(|runtime_id| removed(RemovedBody::Node { runtime_id })))
            .chain(changed("node", &self.nodes, &before.nodes))
            .chain(changed("edge", &self.edges, &before.edges))
            .chain(rows.map(|(_, data)| Change { name: "timeline", data: data.clone() }))
            .collect()
    }
}

fn changed<'a, K: Ord>(
    name: &'static str,
    now: &'a BTreeMap<K, Row>,
    before: &'a BTreeMap<K, Row>,
) -> impl Iterator<Item = Change> + 'a {
    let is_changed = |(key, row): &(&K, &Row)| before.get(*key).is_none_or(|it| it.still != row.still);
    now.iter().filter(is_changed).map(move |(_, row)| Change { name, data: row.whole.clone() })
}

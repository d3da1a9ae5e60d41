//! What a session whose links run inside TLS sets beside what every session sets.
//!
//! A link proves that at its other end is a node of this site, and no more: a router carries what others said. Every message
//! that matters is therefore signed by its author and checked by its reader, inside TLS as outside.

use serde_json::json;

use crate::mesh::Document;
use crate::mesh::key::Space;
use crate::mesh::zenoh::session::Set;

/// The only protocol of such a session: doors in this process, behind which are links of the tunnel's (`mesh_door`).
pub(super) const PROTOCOL: &str = "unixsock-stream";

/// Nothing but the tunnel, in either direction.
pub(super) fn links(set: &mut Set<'_>) -> zenoh::Result<()> {
    set("transport/link/protocols", &json!([PROTOCOL]).to_string())?;
    // Two links to one neighbour confuse the access control (zenoh #1204).
    set("transport/unicast/max_links", "1")?;
    set("scouting/multicast/enabled", "false")?;
    // Only configured endpoints are dialled, nobody that a neighbour names.
    set("scouting/gossip/autoconnect", "{ router: [], peer: [], client: [] }")
}

/// Lets through what nodes say to each other, and nothing else. Defence in depth: Zenoh lets everything through where it
/// cannot read a link's properties.
///
/// The rules hold for every neighbour alike. A neighbour's name is known to the tunnel and not to Zenoh, and a router's
/// neighbours speak for others; so nothing here says who may speak for whom.
pub(super) fn access(space: &Space, set: &mut Set<'_>) -> zenoh::Result<()> {
    set("adminspace/enabled", "false")?;
    let rule = |id: &str, messages: &[&str], keys: &[String]| json!({ "id": id, "messages": messages, "flows": ["ingress", "egress"], "permission": "allow", "key_exprs": keys });
    let identity = space.every_document(Document::Identity);
    let observation = space.every_document(Document::Observation);
    let tokens = ["liveliness_token", "liveliness_query", "declare_liveliness_subscriber"];
    let rules = [
        rule("presence", &tokens, &[space.every_liveliness()]),
        rule("documents", &["put", "declare_subscriber"], &[identity.clone(), observation]),
        // Wider than any query of ours, so that a malformed one is refused and counted by the node and not lost here.
        rule("questions", &["query", "reply", "declare_queryable"], &[identity, space.every_question()]),
    ];
    let access = json!({
        "enabled": true,
        "default_permission": "deny",
        "rules": rules,
        "subjects": [{ "id": "neighbour", "link_protocols": [PROTOCOL] }],
        "policies": [{ "rules": ["presence", "documents", "questions"], "subjects": ["neighbour"] }],
    });
    set("access_control", &access.to_string())
}

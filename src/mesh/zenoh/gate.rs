//! The gate to a partner: a router of its own between this node's router and the routers of one other site.
//!
//! Zenoh's access control tells neighbours apart by their session's id at most, and a partner's is not known beforehand. A
//! gate has two kinds of neighbours, and knows one of them: the router of the same node, its home. Whoever else comes is the
//! partner, because the tunnel lets nobody else in. So a gate can say what the partner may speak about: its own runtimes, and
//! questions of theirs to ours. Nothing about our runtimes or a third site's passes, in either direction.
//!
//! A partner that gave itself our home's id would shut out its own gate, and reach nobody through it.

use serde_json::{Value as Json, json};

use crate::domain::id::SiteId;
use crate::mesh::key::Space;
use crate::mesh::zenoh::secure::PROTOCOL;
use crate::mesh::zenoh::session::{self, Opened, Wires};
use crate::mesh::zenoh::{Options, Role};
use crate::mesh::{Document, OpenError};

/// Opens the gate whose links with the partner are `partner`'s, and links it with `home`.
pub(super) async fn open(
    options: &Options,
    site: &SiteId,
    partner: &Wires,
    home: (&Opened, &Wires),
) -> Result<Opened, OpenError> {
    let failed = |error: zenoh::Error| OpenError::Session(format!("the gate to site {site}: {error}"));
    let (opened, inside) = home;
    let mut wires = partner.clone();
    wires.connect.extend(inside.listen.iter().cloned());
    let options = Options { role: Role::Router, partners: Vec::new(), ..options.clone() };
    let mut config = session::config(&options, &wires).map_err(failed)?;
    let space = Space::new(&options.service).map_err(|error| OpenError::Session(error.to_string()))?;
    let sides = Sides { space: &space, own: &options.runtime.site, partner: site };
    let access = sides.access(&opened.session.zid().to_string()).to_string();
    config.insert_json5("access_control", &access).map_err(|error| failed(error.to_string().into()))?;
    session::launch(config).await.map_err(failed)
}

/// The two sites that a gate stands between.
struct Sides<'a> {
    space: &'a Space,
    own: &'a SiteId,
    partner: &'a SiteId,
}

impl Sides<'_> {
    fn access(&self, home: &str) -> Json {
        let (own, partner) = (self.own, self.partner);
        // Seen from the gate: what comes from the partner goes on to the home, and the other way round.
        let crossings = [
            ("partner", self.passage("in", "ingress", partner, own), self.passage("out", "egress", own, partner)),
            (
                "home",
                self.passage("home-in", "ingress", own, partner),
                self.passage("home-out", "egress", partner, own),
            ),
        ];
        let mut rules = vec![self.interest()];
        let mut policies = Vec::new();
        for (subject, there, back) in crossings {
            let crossing: Vec<Json> = there.into_iter().chain(back).collect();
            let ids: Vec<&Json> = crossing.iter().chain(rules.first()).map(|rule| &rule["id"]).collect();
            policies.push(json!({ "subjects": [subject], "rules": ids }));
            rules.extend(crossing);
        }
        json!({
            "enabled": true,
            "default_permission": "deny",
            "rules": rules,
            // Who is at home is a neighbour like the partner, and may say more.
            "subjects": [
                { "id": "partner", "link_protocols": [PROTOCOL] },
                { "id": "home", "link_protocols": [PROTOCOL], "zids": [home] },
            ],
            "policies": policies,
        })
    }

    /// That somebody listens says nothing about anybody, and nodes listen to all sites with one expression.
    fn interest(&self) -> Json {
        let documents = [Document::Identity, Document::Observation].map(|it| self.space.every_document(it));
        let messages = ["declare_subscriber", "liveliness_query", "declare_liveliness_subscriber"];
        let keys: Vec<String> = documents.into_iter().chain([self.space.every_liveliness()]).collect();
        json!({ "id": "interest", "messages": messages, "flows": ["ingress", "egress"], "permission": "allow", "key_exprs": keys })
    }

    /// What goes from the nodes of one site to those of another: that they are there, their documents, what they answer to,
    /// their answers, and their questions.
    fn passage(&self, name: &str, flow: &str, from: &SiteId, to: &SiteId) -> Vec<Json> {
        let space = self.space;
        let identity_of = |site| space.every_document_of(site, Document::Identity);
        let observation = space.every_document_of(from, Document::Observation);
        let rules = [
            ("liveliness_token", vec![space.every_liveliness_of(from)]),
            ("put", vec![identity_of(from), observation]),
            ("declare_queryable", vec![identity_of(from), space.every_question_to(from)]),
            ("reply", vec![identity_of(from), space.every_question_between(from, to)]),
            ("query", vec![identity_of(to), space.every_question_between(to, from)]),
        ];
        let rule = |(message, keys): (&str, Vec<String>)| json!({ "id": format!("{name}-{message}"), "messages": [message], "flows": [flow], "permission": "allow", "key_exprs": keys });
        rules.into_iter().map(rule).collect()
    }
}

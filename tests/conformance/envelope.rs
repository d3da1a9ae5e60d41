//! Envelopes as bytes, and what the target makes of them: refused at the boundary, denied by rule, or allowed.
//!
//! The bytes stand in the files. The recipe beside them says how they were made, and making them again must give them, so
//! that nobody changes the signed form by accident.

use std::fs;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;
use trust_runtime::domain::identity::TrustState;
use trust_runtime::domain::identity::authority::Vouched;
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::time::Wall;
use trust_runtime::engine::judge;
use trust_runtime::engine::view::View;
use trust_runtime::wire::mesh;

use crate::case_file::{all, assert_none, is_updating, path, text};
use crate::sealed::{ME, ORIGIN, Recipe, fingerprint, origin_keys};
use crate::world::{self, now, parsed};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// How the bytes were made.
    #[serde(default)]
    recipe: Recipe,
    /// How the target differs from one that carries out the plain envelope.
    #[serde(default)]
    target: Target,
    /// Who the mesh key says is asking, if not the origin.
    claimed: Option<String>,
    /// When it arrives, in nanoseconds from the moment of the cases.
    #[serde(default)]
    arrives_ns: i64,
    /// `allowed`, `denied` or `refused`.
    verdict: String,
    /// The code of a denial, the reason of a refusal, the rule that allows.
    code: String,
    /// The check that denied.
    check: Option<String>,
    /// The document as it arrives.
    #[serde(default)]
    bytes: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Target {
    /// `dev` unless it says otherwise.
    profile: Option<String>,
    /// Whose key is pinned for the origin, if not its own; `nobody` for none.
    pinned: Option<String>,
    /// The boot in which the origin is known, if not 5.
    origin_boot: Option<u64>,
    is_mesh_remote: bool,
    is_origin_trusted: bool,
    /// Whether a certificate vouches for the origin's keys.
    is_origin_vouched: bool,
    is_clock_uncertain: bool,
    /// Whether the origin was heard before under the delegation that it signs with.
    knows_delegation: bool,
    /// The role granted here to alice, if any.
    grant: Option<String>,
}

impl Target {
    fn view(&self) -> View {
        let profile = self.profile.as_deref().map_or(Profile::Dev, world::profile);
        let mut settings = world::settings(ME, profile, Policy::default());
        settings.is_mesh_on_loopback = !self.is_mesh_remote;
        settings.grants = self.grant.iter().map(|role| (parsed("site-a/alice"), parsed(role))).collect();
        let mut view = world::view(settings, fingerprint("target"));
        if self.is_clock_uncertain {
            view.clock = trust_runtime::engine::view::ClockState::Uncertain;
        }
        let pinned = self.pinned.as_deref().unwrap_or("origin");
        if pinned != "nobody" {
            let mut peer = world::peer(fingerprint(pinned), Presence::default());
            peer.boot = self.origin_boot.unwrap_or(5);
            peer.trust = if self.is_origin_trusted { TrustState::Trusted } else { TrustState::Untrusted };
            peer.signer = self.knows_delegation.then(|| origin_keys().signer().clone());
            view.peers = [(parsed(ORIGIN), Arc::new(peer))].into_iter().collect();
        }
        view
    }
}

fn check(row: &Row) -> Result<(), String> {
    if row.recipe.bytes() != row.bytes.as_bytes() {
        return Err("its recipe gives other bytes than the stored ones".to_owned());
    }
    let view = row.target.view();
    let at = Wall(now().wall.0.checked_add_signed(row.arrives_ns).expect("in time"));
    let claimed = parsed(row.claimed.as_deref().unwrap_or(ORIGIN));
    let (verdict, code, check) = match mesh::open_envelope(&view, &claimed, row.bytes.as_bytes(), at) {
        Err(refusal) => ("refused", refusal.as_str().to_owned(), None),
        Ok(mut received) => {
            if row.target.is_origin_vouched {
                received.signer.vouched = Some(Vouched { until: Wall(u64::MAX), authority: world::authority().name() });
            }
            match judge::judge(&view, &received, at) {
                Ok(rule) => ("allowed", rule.into_owned(), None),
                Err(denial) => ("denied", denial.code.to_string(), Some(denial.rule.into_owned())),
            }
        }
    };
    if (verdict, &code, &check) == (row.verdict.as_str(), &row.code, &row.check) {
        return Ok(());
    }
    Err(format!("wanted {} {} {:?}, got {verdict} {code} {check:?}", row.verdict, row.code, row.check))
}

#[test]
fn envelopes() {
    if is_updating() {
        all("envelope", ".json").iter().for_each(|name| store_bytes(name));
    }
    let mut wrong = Vec::new();
    for name in all("envelope", ".json") {
        let rows: Vec<Row> = serde_json::from_str(&text(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let faults = rows.iter().filter_map(|row| Some((row, check(row).err()?)));
        wrong.extend(faults.map(|(row, fault)| format!("{name}, {}: {fault}", row.name)));
    }
    assert_none(&wrong);
}

/// Makes the bytes of every row that has none. Stored ones stay as they are.
fn store_bytes(name: &str) {
    let mut rows: Vec<Json> = serde_json::from_str(&text(name)).expect("rows");
    for row in rows.iter_mut().filter(|row| row.get("bytes").is_none()) {
        let parsed: Row = serde_json::from_value(row.clone()).expect("a row");
        row["bytes"] = String::from_utf8(parsed.recipe.bytes()).expect("JSON").into();
    }
    let text = serde_json::to_string_pretty(&rows).expect("JSON");
    fs::write(path(name), text + "\n").expect("written");
}

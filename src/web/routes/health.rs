//! `/livez`, `/readyz` and `/healthz`: for supervisors, and with a credential for people.

use crate::domain::audit::witness::Break;
use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::TrustState;
use crate::domain::identity::bundle::Standing;
use crate::domain::identity::renewal::Stage;
use crate::domain::projection::Lifecycle;
use crate::domain::time::Wall;
use crate::domain::workload::Condition;
use crate::engine::lapse::why_own_does_not_hold;
use crate::engine::view::{ClockState, Renewal, View};
use crate::store;
use crate::web::error::{Problem, unavailable};
use crate::web::router::{Answered, Call, Shared, json};
use crate::wire::api::v1::health::{self, HealthQuery, answer};

const OK: &str = "ok";
const DEGRADED: &str = "degraded";
const FAULTED: &str = "faulted";
const NOT_CONFIGURED: &str = "not_configured";

/// From so many days before its end on the days that a certificate has left are shown, however long it holds.
const DAYS_AHEAD: u64 = 30;

/// The process answers.
pub(crate) fn live(_shared: &Shared, _call: &Call) -> Answered {
    Ok(json(answer(OK, std::iter::empty())))
}

/// Requests are taken.
pub(crate) fn ready(shared: &Shared, _call: &Call) -> Answered {
    if shared.node.is_ready() {
        Ok(json(answer(OK, std::iter::empty())))
    } else {
        Err(Problem::busy("the node is starting or stopping"))
    }
}

/// How each subsystem does. Without a credential only the words: the detail names peers and files.
pub(crate) fn report(shared: &Shared, call: &Call) -> Answered {
    let asked = HealthQuery::read(call.uri.query())?;
    let view = shared.node.view();
    let parts = [
        ("audit", audit(&view)),
        ("clock", clock(&view)),
        ("identity", identity(&view, shared.node.now().wall)),
        ("mesh", mesh(shared, &view)),
        ("partners", partners(&view, shared.node.now().wall)),
        ("runs", runs(shared)),
        ("store", store(shared, &view)),
        ("workload", workload(shared)),
    ];
    let has = |wanted: &str| parts.iter().any(|(_, (status, _))| *status == wanted);
    let worst = [FAULTED, DEGRADED].into_iter().find(|status| has(status)).unwrap_or(OK);
    let is_shown = call.caller.is_some();
    let rows = parts.iter().map(|(name, (status, detail))| (*name, *status, is_shown.then_some(detail.as_str())));
    let refused = (is_shown && asked.verbose).then(|| shared.node.refused());
    let response = json(health::report(worst, rows, refused));
    Ok(if worst == FAULTED { unavailable(response) } else { response })
}

/// Whether this log and those of peers continue what was countersigned of them.
fn audit(view: &View) -> (&'static str, String) {
    let broken = |runtime: &RuntimeId, found: Break, whose: &str| {
        format!("continuity broken of {runtime}: {}{whose}", found.sentence())
    };
    let own = view
        .witnessing
        .contradicted_by()
        .map(|(witness, it)| broken(view.me(), it.reason, &format!(", says {witness}")));
    let of_peers = view.witnessing.broken().map(|(runtime, found)| broken(runtime, found, ""));
    let all: Vec<String> = own.chain(of_peers).collect();
    if !all.is_empty() {
        return (DEGRADED, all.join("; "));
    }
    let countersigned = view.witnessing.countersigned.len();
    (OK, format!("countersigned by {countersigned} peers; keeps the heads of {}", view.witnessing.heads.len()))
}

fn clock(view: &View) -> (&'static str, String) {
    match view.clock {
        ClockState::Certain => (OK, "steady".to_owned()),
        ClockState::Uncertain => (DEGRADED, "the wall clock went backwards or jumped ahead".to_owned()),
    }
}

fn identity(view: &View, now: Wall) -> (&'static str, String) {
    let untrusted = view.peers.values().filter(|peer| peer.trust == TrustState::Untrusted).count();
    let about = format!("key {}; {untrusted} of {} peers are not approved", view.identity, view.peers.size());
    if let Some(refusal) = why_own_does_not_hold(&view.settings) {
        return (FAULTED, format!("{about}; {refusal}"));
    }
    let Some(certificate) = view.settings.certificate else { return (OK, about) };
    let days = certificate.days_left(now);
    match (certificate.renewal(now), certificate.stage(now)) {
        (Renewal::Overdue, _) => (FAULTED, format!("{about}; the certificate has ended: renew it")),
        (Renewal::Due, _) => (DEGRADED, format!("{about}; the certificate ends in {days} days: renew it")),
        (Renewal::NotDue, Stage::Expiring | Stage::Expired) => {
            (OK, format!("{about}; the certificate is expiring, it ends in {days} days"))
        }
        (Renewal::NotDue, Stage::Valid) if days < DAYS_AHEAD => {
            (OK, format!("{about}; the certificate ends in {days} days"))
        }
        (Renewal::NotDue, Stage::Valid) => (OK, about),
    }
}

/// A node alone in its mesh is in order: nobody is missing. One that is at no mesh does not know who is.
fn mesh(shared: &Shared, view: &View) -> (&'static str, String) {
    let now = shared.node.now().monotonic;
    let is_online = |lifecycle| lifecycle == Lifecycle::Online;
    let states = view.peers.values().map(|peer| peer.presence.lifecycle(&view.limits, now));
    let online = states.filter(|lifecycle| is_online(*lifecycle)).count();
    let links = shared.node.mesh_links();
    let about = format!("{links} transports, {online} of {} peers online", view.peers.size());
    match shared.node.mesh_fault() {
        Some(fault) => (DEGRADED, format!("{about}; {fault}")),
        None if links == 0 && !view.peers.is_empty() => (DEGRADED, about),
        None => (OK, about),
    }
}

/// A partner whose bundle is too old is read and not written, in both directions.
fn partners(view: &View, now: Wall) -> (&'static str, String) {
    let (partners, damaged) = (&view.settings.partners, &view.settings.damaged);
    if partners.is_empty() && damaged.is_empty() {
        return (NOT_CONFIGURED, "no partner is configured".to_owned());
    }
    let is_stale = partners.values().any(|standing| standing.check(now).is_err());
    let shown = partners.iter().map(|(site, standing)| partner(site, standing, now));
    let shown: Vec<String> = shown.chain(damaged.iter().map(|(site, reason)| format!("{site}: {reason}"))).collect();
    (if is_stale || !damaged.is_empty() { DEGRADED } else { OK }, shown.join("; "))
}

fn partner(site: &SiteId, standing: &Standing, now: Wall) -> String {
    let seconds = |at: Wall| at.as_millis().saturating_sub(now.as_millis()).wrapping_div(1_000);
    let known = standing.known.map_or_else(
        || "no bundle yet".to_owned(),
        |known| {
            let age = known.age(now).0.wrapping_div(1_000);
            format!("bundle {} confirmed {age} s ago", known.sequence)
        },
    );
    match (standing.check(now), standing.fresh_until) {
        (Ok(()), Some(until)) => format!("{site}: {known}, fresh for {} s more", seconds(until)),
        (Ok(()), None) => format!("{site}: {known}"),
        (Err(stale), _) => format!("{site}: {known}, no writes: {stale}"),
    }
}

fn workload(shared: &Shared) -> (&'static str, String) {
    let Some(status) = shared.node.workload() else {
        return (NOT_CONFIGURED, "no workload is configured".to_owned());
    };
    let word = match status.condition() {
        Condition::Ok => OK,
        Condition::Degraded => DEGRADED,
        Condition::Faulted => FAULTED,
    };
    (word, status.to_string())
}

fn runs(shared: &Shared) -> (&'static str, String) {
    let Some(runs) = &shared.runs else {
        return (NOT_CONFIGURED, "no runs are kept".to_owned());
    };
    match runs.fault() {
        None if runs.is_being_checked() => {
            (DEGRADED, "are kept; their file is still being checked after a stop that was not clean".to_owned())
        }
        None => (OK, "are kept".to_owned()),
        Some(fault) => (if fault.is_passing { DEGRADED } else { FAULTED }, fault.reason),
    }
}

fn store(shared: &Shared, view: &View) -> (&'static str, String) {
    match shared.store.fault().or_else(|| shared.store.reads_fault()) {
        None if view.is_read_only => (DEGRADED, "takes no writes".to_owned()),
        None if shared.store.is_being_checked() => {
            (DEGRADED, "takes writes; its files are still being checked after a stop that was not clean".to_owned())
        }
        None => (OK, "takes writes".to_owned()),
        Some(error @ store::Error::NoSpace { .. }) => (DEGRADED, error.to_string()),
        Some(
            error @ (store::Error::Broken { .. }
            | store::Error::InUse { .. }
            | store::Error::Unreadable { .. }
            | store::Error::Closed),
        ) => (FAULTED, error.to_string()),
    }
}

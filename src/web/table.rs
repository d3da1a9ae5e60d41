//! The route tables as data.
//!
//! A route cannot be added without saying who may ask, what it is counted as, how large its body may be and how it is described.

use std::sync::Arc;

use axum::body::Body;

use super::error::described;
use super::limit::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use super::promise::Unmet;
use super::rate::Class;
use super::router::{Answered, Call, Shared, Waiting};
use super::routes::{
    actions, admin, audit, bundle, config, control, health, invoke, metrics, openapi, runs, state, watch,
};
use crate::domain::identity::Role;
use crate::wire::api::v1::openapi::{Body as Described, Query};

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone whom the listener answers; a credential is not looked at.
    Anyone,
    /// Anyone whom the listener answers; a credential shows more, a bad one is refused.
    AnyoneOrMore,
    /// Whoever has at least this role.
    Least(Role),
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The path; `{name}` stands for one segment.
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
    /// What it is counted as.
    pub class: Class,
    /// What becomes of it while the node lacks what its profile promises.
    pub unmet: Unmet,
    /// Most bytes of a body; 0 where none is read.
    pub body_bytes_max: usize,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// What it reads.
    pub request: Described,
    /// What it answers.
    pub answer: Described,
    /// Which parameters it takes.
    pub query: Query,
    /// How its errors are written.
    pub form: Form,
    /// What tools call it, where the contract says so.
    pub(crate) id: Option<&'static str>,
    pub(super) problems: &'static [(u16, &'static str)],
    pub(super) handler: Handler,
}

/// How the errors of a route are written (DESIGN, *Shapes*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the envelope of the runs API.
    Envelope,
    /// As problem details.
    Problem,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Handler {
    /// Answers from memory.
    Now(fn(&Shared, &Call) -> Answered),
    /// Waits for the node or the store.
    Later(fn(Arc<Shared>, Call) -> Waiting),
    /// Reads the body itself, after it has looked at the rest.
    Reading(fn(Arc<Shared>, Call, Body) -> Waiting),
}

const fn get(
    path: &'static str,
    access: Access,
    class: Class,
    summary: &'static str,
    answer: Described,
    handler: Handler,
) -> Route {
    let problems = described::READ;
    Route {
        method: "GET",
        path,
        access,
        class,
        unmet: Unmet::Refused,
        body_bytes_max: 0,
        summary,
        request: Described::None,
        answer,
        query: Query::None,
        form: Form::Problem,
        id: None,
        problems,
        handler,
    }
}

const fn post(
    path: &'static str,
    least: Role,
    class: Class,
    summary: &'static str,
    bodies: Bodies,
    handler: Handler,
) -> Route {
    Route {
        method: "POST",
        path,
        access: Access::Least(least),
        class,
        unmet: Unmet::Refused,
        body_bytes_max: BODY_BYTES_MAX,
        summary,
        request: bodies.0,
        answer: bodies.1,
        query: Query::None,
        form: Form::Problem,
        id: None,
        problems: described::WRITE,
        handler,
    }
}

/// What a route reads and answers.
type Bodies = (Described, Described);

const fn failing(mut route: Route, problems: &'static [(u16, &'static str)]) -> Route {
    route.problems = problems;
    route
}

const fn taking(mut route: Route, query: Query) -> Route {
    route.query = query;
    route
}

const fn when_unmet(unmet: Unmet, mut route: Route) -> Route {
    route.unmet = unmet;
    route
}

const fn as_run(id: &'static str, problems: &'static [(u16, &'static str)], mut route: Route) -> Route {
    route.form = Form::Envelope;
    route.id = Some(id);
    route.problems = problems;
    route
}

const VIEWER: Access = Access::Least(Role::Viewer);
const OF_NODE: Bodies = (Described::Control, Described::Done);
const OF_PEER: Bodies = (Described::Peer, Described::Done);

/// Every route of the public listener.
pub static ROUTES: [Route; 22] = [
    failing(
        when_unmet(
            Unmet::Answered,
            get("/", Access::Anyone, Class::Free, "Lists the routes.", Described::Text, Handler::Now(openapi::index)),
        ),
        described::PUBLIC,
    ),
    failing(
        when_unmet(
            Unmet::Answered,
            get(
                "/livez",
                Access::Anyone,
                Class::Free,
                "Whether the process answers.",
                Described::Health,
                Handler::Now(health::live),
            ),
        ),
        described::PUBLIC,
    ),
    failing(
        when_unmet(
            Unmet::Answered,
            get(
                "/readyz",
                Access::Anyone,
                Class::Free,
                "Whether requests are taken.",
                Described::Health,
                Handler::Now(health::ready),
            ),
        ),
        described::PROBE,
    ),
    failing(
        taking(
            when_unmet(
                Unmet::Answered,
                get(
                    "/healthz",
                    Access::AnyoneOrMore,
                    Class::Read,
                    "How each subsystem does; the detail for a viewer or more, `?verbose` with what was refused.",
                    Described::Health,
                    Handler::Now(health::report),
                ),
            ),
            Query::Health,
        ),
        described::HEALTH,
    ),
    failing(
        when_unmet(
            Unmet::Answered,
            get(
                "/openapi.json",
                Access::Anyone,
                Class::Free,
                "This description.",
                Described::OpenApi,
                Handler::Now(openapi::document),
            ),
        ),
        described::PUBLIC,
    ),
    when_unmet(
        Unmet::Answered,
        get(
            "/metrics",
            VIEWER,
            Class::Read,
            "What this node counts and measures, as Prometheus reads it (OpenMetrics 1.0).",
            Described::Metrics,
            Handler::Now(metrics::read),
        ),
    ),
    failing(
        when_unmet(
            Unmet::Answered,
            get(
                "/api/runtime-cloud/bundle",
                Access::Anyone,
                Class::Free,
                "The trust bundle of this runtime's site, as a SPIFFE bundle endpoint serves it.",
                Described::Bundle,
                Handler::Now(bundle::read),
            ),
        ),
        described::BUNDLE,
    ),
    failing(
        get(
            "/api/runtime-cloud/state",
            VIEWER,
            Class::Read,
            "The fleet as this runtime sees it: nodes, links, timeline.",
            Described::State,
            Handler::Later(state::read),
        ),
        described::STATE,
    ),
    failing(
        get(
            "/api/runtime-cloud/state/stream",
            VIEWER,
            Class::Read,
            "The fleet as it changes: a snapshot, then events `node`, `edge`, `timeline` and `removed`. A reader too slow for what is kept gets a new snapshot.",
            Described::StateStream,
            Handler::Later(watch::read),
        ),
        described::READ,
    ),
    when_unmet(
        Unmet::Told,
        post(
            "/api/runtime-cloud/actions/preflight",
            Role::Viewer,
            Class::Act,
            "Would this be allowed now? One decision per target, no effects.",
            (Described::Question, Described::Preflight),
            Handler::Now(actions::preflight),
        ),
    ),
    when_unmet(
        Unmet::Told,
        post(
            "/api/runtime-cloud/actions/dispatch",
            Role::Viewer,
            Class::Act,
            "Decides again and carries it out; every target reports for itself.",
            (Described::Action, Described::Dispatch),
            Handler::Later(actions::dispatch),
        ),
    ),
    taking(
        get(
            "/api/runtime-cloud/audit",
            VIEWER,
            Class::Read,
            "The audit log, newest first.",
            Described::Audit,
            Handler::Later(audit::read),
        ),
        Query::Audit,
    ),
    get(
        "/api/runtime-cloud/config",
        VIEWER,
        Class::Read,
        "The live settings of this node, applied and in force.",
        Described::Config,
        Handler::Now(config::read),
    ),
    when_unmet(
        Unmet::Answered,
        post(
            "/api/runtime-cloud/control/reload",
            Role::Admin,
            Class::Act,
            "Reads this node's files again, each as a whole and for itself: what is live in those that are valid holds at once, of the others what was in force stays.",
            (Described::Control, Described::Reloaded),
            Handler::Later(control::reload),
        ),
    ),
    when_unmet(
        Unmet::Answered,
        post(
            "/api/runtime-cloud/control/shutdown",
            Role::Admin,
            Class::Act,
            "Stops this node.",
            OF_NODE,
            Handler::Later(control::shutdown),
        ),
    ),
    failing(
        post(
            "/api/runtime-cloud/control/peers-approve",
            Role::Admin,
            Class::Act,
            "Trusts a peer whose key a person has compared.",
            OF_PEER,
            Handler::Later(control::peers_approve),
        ),
        described::PEER,
    ),
    failing(
        post(
            "/api/runtime-cloud/control/peers-forget",
            Role::Admin,
            Class::Act,
            "Forgets a peer and its pinned key.",
            OF_PEER,
            Handler::Later(control::peers_forget),
        ),
        described::PEER,
    ),
    post(
        "/api/runtime-cloud/control/time-reset",
        Role::Admin,
        Class::Act,
        "Accepts the wall clock as it is.",
        OF_NODE,
        Handler::Later(control::time_reset),
    ),
    as_run(
        "invokeAgent",
        described::INVOKE,
        Route {
            body_bytes_max: PAYLOAD_BYTES_MAX,
            ..post(
                "/agents/{name}/{id}",
                Role::Viewer,
                Class::Act,
                "Starts a run of a declared agent; needs the role that the agent asks for.",
                (Described::Payload, Described::Invoked),
                Handler::Reading(invoke::start),
            )
        },
    ),
    as_run(
        "getRun",
        described::RUN,
        get(
            "/runs/{runId}",
            VIEWER,
            Class::Read,
            "A run, wherever in the mesh it is.",
            Described::Run,
            Handler::Later(runs::record),
        ),
    ),
    as_run(
        "listRunEvents",
        described::RUN,
        taking(
            get(
                "/runs/{runId}/events",
                VIEWER,
                Class::Read,
                "A page of a run's events, ascending. It may be shorter than `limit`: go on behind its last event until one is empty.",
                Described::RunEvents,
                Handler::Later(runs::events),
            ),
            Query::Events,
        ),
    ),
    as_run(
        "streamRunEvents",
        described::RUN,
        get(
            "/runs/{runId}/stream",
            VIEWER,
            Class::Read,
            "A run's events, those that are stored and then those that come, until its end.",
            Described::RunStream,
            Handler::Later(runs::stream),
        ),
    ),
];

const OPERATOR: Access = Access::Least(Role::Operator);

const fn of_admin(id: &'static str, route: Route) -> Route {
    as_run(id, described::ADMIN, route)
}

/// Every route of the admin listener, relative to where it is mounted. All of them only read.
pub static ADMIN_ROUTES: [Route; 6] = [
    of_admin(
        "adminDescribe",
        when_unmet(
            Unmet::Answered,
            get(
                "/openapi.json",
                OPERATOR,
                Class::Read,
                "This description.",
                Described::OpenApi,
                Handler::Now(openapi::document),
            ),
        ),
    ),
    of_admin(
        "adminListAgents",
        get("/agents", OPERATOR, Class::Read, "The declared agents.", Described::Agents, Handler::Now(admin::agents)),
    ),
    of_admin(
        "adminListAgentInstances",
        taking(
            get(
                "/agents/{name}/instances",
                OPERATOR,
                Class::Read,
                "The instances of an agent that have runs here, ascending.",
                Described::Instances,
                Handler::Later(admin::instances),
            ),
            Query::Page,
        ),
    ),
    of_admin(
        "adminListAgentInstanceRuns",
        taking(
            get(
                "/agents/{name}/instances/{id}/runs",
                OPERATOR,
                Class::Read,
                "The runs of an instance, newest first.",
                Described::Pointers,
                Handler::Later(admin::instance_runs),
            ),
            Query::Runs,
        ),
    ),
    of_admin(
        "adminListRuns",
        taking(
            get(
                "/runs",
                OPERATOR,
                Class::Read,
                "The runs of this runtime, newest first.",
                Described::Pointers,
                Handler::Later(admin::runs),
            ),
            Query::AllRuns,
        ),
    ),
    of_admin(
        "adminGetRun",
        get(
            "/runs/{runId}",
            OPERATOR,
            Class::Read,
            "A run, as the public route shows it.",
            Described::Run,
            Handler::Later(runs::record),
        ),
    ),
];

impl Route {
    /// Statuses that are no answer, with their meaning.
    pub fn problems(&self) -> &'static [(u16, &'static str)] {
        self.problems
    }
}

//! The route table as data, and the one way through which every route is served.
//!
//! A route cannot be added without saying who may ask, how large its body may be and how it is described.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request, Response, Uri};
use axum::routing::{MethodFilter, on};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::auth::{self, Caller, Connection};
use super::error::{Kind, Problem, described};
use super::guard::Hosts;
use super::limit::{self, BODY_BYTES_MAX};
use super::rate::Rates;
use super::routes::{actions, audit, bundle, config, control, health, openapi, state};
use super::serve::PeerAddress;
use super::{Options, State, secure};
use crate::domain::identity::Role;
use crate::domain::time::Millis;
use crate::engine::view::View;
use crate::handle::Operations;
use crate::wire::api::v1::openapi::{Body as Described, Query};
use crate::wire::api::v1::state::Snapshot;

/// How often a bad credential is put on record.
const BAD_CREDENTIAL_EVERY: Millis = Millis::from_secs(1);

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
    /// The path, exact.
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
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
    problems: &'static [(u16, &'static str)],
    handler: Handler,
}

#[derive(Debug, Clone, Copy)]
enum Handler {
    /// Answers from memory.
    Now(fn(&Shared, &Call) -> Answered),
    /// Waits for the node or the store.
    Later(fn(Arc<Shared>, Call) -> Waiting),
}

/// What a handler gives.
pub(crate) type Answered = Result<Response<Body>, Problem>;

/// What a handler that waits gives.
pub(crate) type Waiting = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// A request whose sender is known and whose body has been read.
#[derive(Debug)]
pub(crate) struct Call {
    /// Who asks; `None` only where anyone may.
    pub(crate) caller: Option<Caller>,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// Who asks, on a route that demands a role.
    pub(crate) fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(|| Problem::new(Kind::BadCredential, "wanted a valid credential"))
    }
}

const fn get(path: &'static str, access: Access, summary: &'static str, answer: Described, handler: Handler) -> Route {
    let problems = described::READ;
    Route {
        method: "GET",
        path,
        access,
        body_bytes_max: 0,
        summary,
        request: Described::None,
        answer,
        query: Query::None,
        problems,
        handler,
    }
}

const fn post(path: &'static str, least: Role, summary: &'static str, bodies: Bodies, handler: Handler) -> Route {
    Route {
        method: "POST",
        path,
        access: Access::Least(least),
        body_bytes_max: BODY_BYTES_MAX,
        summary,
        request: bodies.0,
        answer: bodies.1,
        query: Query::None,
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

const VIEWER: Access = Access::Least(Role::Viewer);
const OF_NODE: Bodies = (Described::Control, Described::Done);
const OF_PEER: Bodies = (Described::Peer, Described::Done);

/// Every route of the public listener.
pub static ROUTES: [Route; 16] = [
    failing(
        get("/", Access::Anyone, "Lists the routes.", Described::Text, Handler::Now(openapi::index)),
        described::PUBLIC,
    ),
    failing(
        get("/livez", Access::Anyone, "Whether the process answers.", Described::Health, Handler::Now(health::live)),
        described::PUBLIC,
    ),
    failing(
        get("/readyz", Access::Anyone, "Whether requests are taken.", Described::Health, Handler::Now(health::ready)),
        described::PROBE,
    ),
    failing(
        taking(
            get(
                "/healthz",
                Access::AnyoneOrMore,
                "How each subsystem does; the detail for a viewer or more, `?verbose` with what was refused.",
                Described::Health,
                Handler::Now(health::report),
            ),
            Query::Health,
        ),
        described::HEALTH,
    ),
    failing(
        get("/openapi.json", Access::Anyone, "This description.", Described::OpenApi, Handler::Now(openapi::document)),
        described::PUBLIC,
    ),
    failing(
        get(
            "/api/runtime-cloud/bundle",
            Access::Anyone,
            "The trust bundle of this runtime's site, as a SPIFFE bundle endpoint serves it.",
            Described::Bundle,
            Handler::Now(bundle::read),
        ),
        described::BUNDLE,
    ),
    failing(
        get(
            "/api/runtime-cloud/state",
            VIEWER,
            "The fleet as this runtime sees it: nodes, links, timeline.",
            Described::State,
            Handler::Later(state::read),
        ),
        described::STATE,
    ),
    post(
        "/api/runtime-cloud/actions/preflight",
        Role::Viewer,
        "Would this be allowed now? One decision per target, no effects.",
        (Described::Action, Described::Preflight),
        Handler::Now(actions::preflight),
    ),
    post(
        "/api/runtime-cloud/actions/dispatch",
        Role::Viewer,
        "Decides again and carries it out; every target reports for itself.",
        (Described::Action, Described::Dispatch),
        Handler::Later(actions::dispatch),
    ),
    taking(
        get(
            "/api/runtime-cloud/audit",
            VIEWER,
            "The audit log, newest first.",
            Described::Audit,
            Handler::Later(audit::read),
        ),
        Query::Audit,
    ),
    get(
        "/api/runtime-cloud/config",
        VIEWER,
        "The live settings of this node, applied and in force.",
        Described::Config,
        Handler::Now(config::read),
    ),
    post(
        "/api/runtime-cloud/control/reload",
        Role::Admin,
        "Reads this node's files again: what is valid and live holds at once, all of it or nothing.",
        (Described::Control, Described::Reloaded),
        Handler::Later(control::reload),
    ),
    post(
        "/api/runtime-cloud/control/shutdown",
        Role::Admin,
        "Stops this node.",
        OF_NODE,
        Handler::Later(control::shutdown),
    ),
    post(
        "/api/runtime-cloud/control/peers-approve",
        Role::Admin,
        "Trusts a peer whose key a person has compared.",
        OF_PEER,
        Handler::Later(control::peers_approve),
    ),
    post(
        "/api/runtime-cloud/control/peers-forget",
        Role::Admin,
        "Forgets a peer and its pinned key.",
        OF_PEER,
        Handler::Later(control::peers_forget),
    ),
    post(
        "/api/runtime-cloud/control/time-reset",
        Role::Admin,
        "Accepts the wall clock as it is.",
        OF_NODE,
        Handler::Later(control::time_reset),
    ),
];

impl Route {
    /// Statuses that are no answer, with their meaning.
    pub fn problems(&self) -> &'static [(u16, &'static str)] {
        self.problems
    }
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Arc<dyn Operations>,
    pub(crate) store: Arc<dyn crate::store::Store>,
    pub(crate) options: Options,
    /// The newest snapshot of the state. Whoever finds it out of date makes the next while the others wait for it.
    pub(crate) snapshot: Mutex<Option<Arc<Snapshot>>>,
    /// Work that must not stop when its caller goes away.
    pub(crate) tasks: TaskTracker,
    /// The description of the API.
    pub(crate) description: Bytes,
    requests: Semaphore,
    rates: Rates,
    /// When a bad credential was last put on record, in monotonic nanoseconds; 0 for never.
    bad_credential_at: AtomicU64,
    /// Bad credentials since then.
    bad_credentials: AtomicU64,
    /// Counts the requests that had no name of their own when they failed.
    unnamed: AtomicU64,
}

/// The routes behind their guards, without a listener.
#[derive(Debug, Clone)]
pub struct App {
    router: Router,
    hosts: Arc<Hosts>,
    shared: Arc<Shared>,
}

impl App {
    /// The routes as they are served at this address.
    pub fn new(state: State, bound: SocketAddr) -> Self {
        let State { node, store, options } = state;
        let hosts = Arc::new(Hosts::new(bound, &options.hosts));
        let description = Bytes::from(openapi::describe(&node.view().settings.version));
        let shared = Arc::new(Shared {
            node,
            store,
            snapshot: Mutex::default(),
            tasks: TaskTracker::new(),
            description,
            requests: Semaphore::new(options.limits.requests_max),
            rates: Rates::new(options.limits.rate, options.limits.bad_credentials),
            bad_credential_at: AtomicU64::default(),
            bad_credentials: AtomicU64::default(),
            unnamed: AtomicU64::default(),
            options,
        });
        let router = ROUTES.iter().fold(Router::new(), |router, route| mount(router, route, &shared));
        let router = with_fallbacks(router, &shared);
        Self { router, hosts, shared }
    }

    /// Answers one request. The peer's address is a [`PeerAddress`] in the request's extensions.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let mut response = match self.hosts.check(&request) {
            // A refused name may come from anywhere: nothing of the connection is used again.
            Err(problem) => self.shared.explain(problem),
            Ok(()) => match self.router.clone().call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        harden(response.headers_mut());
        response
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }
}

fn mount(router: Router, route: &'static Route, shared: &Arc<Shared>) -> Router {
    let filter = if route.method == "POST" { MethodFilter::POST } else { MethodFilter::GET };
    let shared = Arc::clone(shared);
    let serve = move |request: Request<Body>| {
        let shared = Arc::clone(&shared);
        async move {
            match shared.serve(route, request).await {
                Ok(response) => response,
                Err(problem) => shared.explain(problem),
            }
        }
    };
    router.route(route.path, on(filter, serve))
}

fn with_fallbacks(router: Router, shared: &Arc<Shared>) -> Router {
    let unknown = Arc::clone(shared);
    let unfit = Arc::clone(shared);
    router
        .fallback(move || async move {
            unknown.explain(Problem::new(Kind::NotFound, "no such path; /openapi.json describes every one"))
        })
        .method_not_allowed_fallback(move |uri: Uri| async move {
            let is_read = ROUTES.iter().any(|route| route.path == uri.path() && route.method == "GET");
            let allow = if is_read { "GET, HEAD" } else { "POST" };
            unfit.explain(Problem::new(Kind::MethodNotAllowed(allow), format!("wanted {allow}")))
        })
}

impl Shared {
    async fn serve(self: &Arc<Self>, route: &Route, request: Request<Body>) -> Answered {
        // Probes must be answered when everything else waits: they take no place in the queue.
        let _permit = match route.access {
            Access::Anyone => None,
            Access::AnyoneOrMore | Access::Least(_) => {
                let busy = |_full| Problem::busy("too many requests at once");
                Some(self.requests.try_acquire().map_err(busy)?)
            }
        };
        let (parts, body) = request.into_parts();
        let certificate = parts.extensions.get::<Arc<secure::Caller>>().map(Arc::as_ref);
        let connection = Connection { peer: parts.extensions.get(), certificate };
        let caller = self.admit(route, &parts.headers, connection)?;
        let body = match route.body_bytes_max {
            0 => Bytes::new(),
            most => limit::read_body(&parts.headers, body, most, self.options.limits.body_read).await?,
        };
        let call = Call { caller, uri: parts.uri, headers: parts.headers, body };
        match route.handler {
            Handler::Now(handler) => handler(self, &call),
            Handler::Later(handler) => handler(Arc::clone(self), call).await,
        }
    }

    fn admit(&self, route: &Route, headers: &HeaderMap, connection: Connection<'_>) -> Result<Option<Caller>, Problem> {
        let least = match route.access {
            Access::Anyone => return Ok(None),
            Access::AnyoneOrMore => None,
            Access::Least(role) => Some(role),
        };
        let (view, now) = (self.node.view(), self.node.now());
        let presents_none = connection.certificate.is_none() && auth::is_anonymous(headers);
        let caller = match auth::identify(&self.options, &view, headers, connection, now.wall) {
            Ok(caller) => caller,
            Err(_) if least.is_none() && presents_none => return Ok(None),
            Err(problem) => {
                self.record_bad_credential(&view, connection.peer);
                // Only now: a right credential is let in however many wrong ones came before it.
                let is_told = presents_none || self.rates.take_bad(now.monotonic);
                return Err(if is_told { problem } else { too_many_bad_credentials() });
            }
        };
        if !self.rates.take(caller.holder(), now.monotonic) {
            return Err(Problem::busy("this credential sends too many requests"));
        }
        match least.filter(|least| caller.role() < *least) {
            None => Ok(Some(caller)),
            Some(least) => {
                self.record_refusal(&view, &caller, route);
                let detail = format!("this needs the role {least}, the credential has {}", caller.role());
                Err(Problem::new(Kind::Forbidden, detail))
            }
        }
    }

    /// Puts bad credentials on record, at most one record a second: whoever guesses must not fill the audit log.
    fn record_bad_credential(&self, view: &View, peer: Option<&PeerAddress>) {
        let now = self.node.now().monotonic.0;
        let last = self.bad_credential_at.load(Ordering::Relaxed);
        let is_due = last == 0 || last.saturating_add(BAD_CREDENTIAL_EVERY.as_nanos()) <= now;
        let is_mine = is_due
            && self.bad_credential_at.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_mine {
            self.bad_credentials.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let others = self.bad_credentials.swap(0, Ordering::Relaxed);
        let peer = peer.map_or_else(|| "nowhere".to_owned(), |peer| peer.0.ip().to_string());
        let Some(nobody) = auth::nobody(view) else { return };
        if let Err(failure) = actions::record(self, view, &actions::Refusal::of_credential(nobody, &peer, others)) {
            tracing::warn!(code = %failure.code, "a bad credential could not be recorded");
        }
    }

    fn record_refusal(&self, view: &View, caller: &Caller, route: &Route) {
        let verb = route.path.rsplit('/').next().unwrap_or_default().replace('-', "_");
        if let Err(failure) = actions::record(self, view, &actions::Refusal::of_route(caller, &verb)) {
            tracing::warn!(code = %failure.code, "a refusal could not be recorded");
        }
    }

    fn explain(&self, problem: Problem) -> Response<Body> {
        let number = self.unnamed.fetch_add(1, Ordering::Relaxed);
        problem.into_response(&format!("http-{}-{number}", self.node.view().boot))
    }
}

fn too_many_bad_credentials() -> Problem {
    Problem::new(Kind::TooManyBadCredentials, "too many bad credentials came of late, and this is one more")
}

/// A JSON answer.
pub(crate) fn json(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What every answer carries, errors included: no guessing of types, no caching, nothing to run.
fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
}

//! The one way through which every route is served.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request, Response, Uri};
use axum::routing::{MethodFilter, any, on};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::auth::{self, Caller, Connection};
use super::envelope::RunFault;
use super::error::{Kind, Problem};
use super::guard::Hosts;
use super::limit;
use super::places::Places;
use super::promise::Unmet;
use super::rate::{Class, Rates, TooSoon};
use super::routes::actions::Refusal;
use super::routes::{actions, openapi};
use super::serve::PeerAddress;
use super::table::{Access, Form, Handler, ROUTES, Route};
use super::watch::StateFeed;
use super::{Options, State, Surface, secure};
use crate::domain::code::Code;
use crate::domain::policy::Stage;
use crate::domain::time::{Millis, Now};
use crate::engine::view::View;
use crate::handle::Operations;
use crate::handle::runs::Runs;
use crate::metrics::Side;
use crate::wire::api::v1::state::Snapshot;

/// How often a bad credential is put on record.
const BAD_CREDENTIAL_EVERY: Millis = Millis::from_secs(1);

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
    /// Behind where the routes are mounted.
    pub(crate) path: String,
    /// What the connection has shown of its caller.
    pub(crate) presented: Presented,
}

/// What a connection shows of its caller beside the headers.
#[derive(Debug, Clone)]
pub(crate) struct Presented {
    peer: Option<PeerAddress>,
    certificate: Option<Arc<secure::Caller>>,
}

impl Presented {
    pub(crate) fn connection(&self) -> Connection<'_> {
        Connection { peer: self.peer.as_ref(), certificate: self.certificate.as_deref() }
    }
}

impl Call {
    /// Who asks, on a route that demands a role.
    pub(crate) fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(|| Problem::new(Kind::BadCredential, "wanted a valid credential"))
    }

    /// A segment of the path, decoded; `None` if it is not there or is no text.
    pub(crate) fn segment(&self, number: usize) -> Option<String> {
        decoded(self.path.split('/').nth(number.saturating_add(1))?)
    }

    /// The parameters in their order.
    pub(crate) fn pairs(&self) -> Result<Vec<(String, String)>, Problem> {
        let read = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&self.uri);
        read.map(|query| query.0).map_err(|error| Problem::of_run(RunFault::ValidationFailed, error.body_text()))
    }
}

/// A part of a path with what stands behind its percent signs. None where that is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let (digits, behind) = rest.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Arc<dyn Operations>,
    pub(crate) store: Arc<dyn crate::store::Store>,
    pub(crate) options: Options,
    /// Where runs are started and read, if there are any here.
    pub(crate) runs: Option<Arc<dyn Runs>>,
    /// One place for each stream that is open.
    pub(crate) places: Arc<Places>,
    /// Ends the streams when the listener ends.
    pub(crate) stopping: CancellationToken,
    /// What those share who follow the state.
    pub(crate) feed: Arc<StateFeed>,
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
        let State { node, store, runs, options } = state;
        let hosts = Arc::new(Hosts::new(bound, &options.hosts));
        let description = Bytes::from(openapi::describe(&node.view().settings.version, &options.surface));
        let shared = Arc::new(Shared {
            node,
            store,
            runs,
            places: Arc::new(Places::new(options.limits.streams_max, options.limits.streams_of_one_max)),
            stopping: CancellationToken::new(),
            feed: Arc::default(),
            snapshot: Mutex::default(),
            tasks: TaskTracker::new(),
            description,
            requests: Semaphore::new(options.limits.requests_max),
            rates: Rates::new(options.limits.acts, options.limits.reads, options.limits.bad_credentials),
            bad_credential_at: AtomicU64::default(),
            bad_credentials: AtomicU64::default(),
            unnamed: AtomicU64::default(),
            options,
        });
        let routes = shared.options.surface.routes().iter();
        let router = routes.fold(Router::new(), |router, route| mount(router, route, &shared));
        let router = with_fallbacks(router, &shared);
        Self { router, hosts, shared }
    }

    /// Answers one request. The peer's address is a [`PeerAddress`] in the request's extensions.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let began = self.shared.node.now();
        let mut response = match self.hosts.check(&request) {
            // A refused name may come from anywhere: nothing of the connection is used again.
            Err(problem) => self.shared.turn_away("refused_host", began, problem),
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

    /// Ends what would go on for as long as its reader reads.
    pub(crate) fn end_streams(&self) {
        self.shared.stopping.cancel();
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }
}

fn mount(router: Router, route: &'static Route, shared: &Arc<Shared>) -> Router {
    let filter = if route.method == "POST" { MethodFilter::POST } else { MethodFilter::GET };
    let path = format!("{}{}", shared.options.surface.mount(), route.path);
    let shared = Arc::clone(shared);
    let serve = move |request: Request<Body>| {
        let shared = Arc::clone(&shared);
        async move { shared.answer(route, request).await }
    };
    match route.form {
        Form::Problem => router.route(&path, on(filter, serve)),
        // These routes say themselves which method they want, and HEAD is none of them.
        Form::Envelope => router.route(&path, any(serve)),
    }
}

fn with_fallbacks(router: Router, shared: &Arc<Shared>) -> Router {
    let unknown = Arc::clone(shared);
    let unfit = Arc::clone(shared);
    router
        .fallback(move |request: Request<Body>| async move {
            let began = unknown.node.now();
            match unknown.options.surface.blank_route(request.uri().path()) {
                Some(route) => unknown.answer(route, request).await,
                None => {
                    let problem = Problem::new(Kind::NotFound, "no such path; /openapi.json describes every one");
                    unknown.turn_away("unmatched", began, problem)
                }
            }
        })
        .method_not_allowed_fallback(move |uri: Uri| async move {
            let began = unfit.node.now();
            let is_read = ROUTES.iter().any(|route| route.path == uri.path() && route.method == "GET");
            let allow = if is_read { "GET, HEAD" } else { "POST" };
            unfit.turn_away("unmatched", began, Problem::new(Kind::MethodNotAllowed(allow), format!("wanted {allow}")))
        })
}

impl Surface {
    /// What is served on it.
    pub(crate) fn routes(&self) -> &'static [Route] {
        match self {
            Self::Admin { .. } => &super::table::ADMIN_ROUTES,
            Self::Public => &ROUTES,
        }
    }

    /// What stands before every path.
    pub(crate) fn mount(&self) -> &str {
        match self {
            Self::Admin { mount } => mount,
            Self::Public => "",
        }
    }

    /// The invocation that a path means although a part of it is empty: that is said, and not that there is no such path
    /// (contract, RR-19).
    fn blank_route(&self, path: &str) -> Option<&'static Route> {
        let segments = path.strip_prefix("/agents/")?.split('/').count();
        let is_invocation = *self == Self::Public && segments == 2;
        ROUTES.iter().find(|route| is_invocation && route.path.starts_with("/agents/"))
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, route: &'static Route, request: Request<Body>) -> Response<Body> {
        let began = self.node.now();
        let response = match (self.serve(route, request).await, route.form) {
            (Ok(response), _) => response,
            (Err(problem), Form::Problem) => self.explain(problem),
            (Err(problem), Form::Envelope) => problem.into_envelope(self.options.is_debug),
        };
        self.count_answer((route.method, route.path), &response, began);
        response
    }

    /// Explains why a request has met no route.
    fn turn_away(&self, route: &'static str, began: Now, problem: Problem) -> Response<Body> {
        let response = self.explain(problem);
        self.count_answer(("any", route), &response, began);
        response
    }

    /// Every answer counts with the time that it took, also one that turns away: the count of a histogram is the number of
    /// requests, and an answer of no time at all would make the others look faster than they are.
    fn count_answer(&self, (method, route): (&'static str, &'static str), response: &Response<Body>, began: Now) {
        let took = self.node.now().monotonic.0.saturating_sub(began.monotonic.0);
        self.node.metrics().answered(method, route, response.status().as_u16(), took);
    }

    /// How many requests are being answered, probes aside.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.options.limits.requests_max.saturating_sub(self.requests.available_permits())
    }

    async fn serve(self: &Arc<Self>, route: &Route, request: Request<Body>) -> Answered {
        check_method(route, &self.options.surface, &request)?;
        // Probes must be answered when everything else waits: they take no place in the queue.
        let _permit = match route.access {
            Access::Anyone => None,
            Access::AnyoneOrMore | Access::Least(_) => {
                let busy = |_full| Problem::busy("too many requests at once");
                Some(self.requests.try_acquire().map_err(busy)?)
            }
        };
        let (parts, body) = request.into_parts();
        let presented =
            Presented { peer: parts.extensions.get().copied(), certificate: parts.extensions.get().cloned() };
        let caller = self.admit(route, &parts.headers, presented.connection())?;
        self.check_promise(route, caller.as_ref())?;
        let path = parts.uri.path().strip_prefix(self.options.surface.mount()).unwrap_or_default().to_owned();
        let mut call = Call { caller, uri: parts.uri, headers: parts.headers, body: Bytes::new(), path, presented };
        if let Handler::Reading(handler) = route.handler {
            return handler(Arc::clone(self), call, body).await;
        }
        if 0 < route.body_bytes_max {
            let time_max = self.options.limits.body_read;
            call.body = limit::read_body(&call.headers, body, route.body_bytes_max, time_max).await?;
        }
        match route.handler {
            Handler::Now(handler) => handler(self, &call),
            Handler::Later(handler) => handler(Arc::clone(self), call).await,
            Handler::Reading(handler) => handler(Arc::clone(self), call, Body::empty()).await,
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
                self.node.metrics().bad_credential();
                self.record_bad_credential(&view, connection.peer);
                // Only now: a right credential is let in however many wrong ones came before it.
                let is_told = presents_none || self.rates.take_bad(now.monotonic);
                return Err(if is_told { problem } else { too_many_bad_credentials() });
            }
        };
        self.count(&caller, route.class)?;
        if !caller.opens(&self.options.surface) {
            let detail = "this credential is not for this listener; `token create --audience` makes one for either";
            return Err(self.refuse(route, &caller, detail));
        }
        match least.filter(|least| caller.role() < *least) {
            None => Ok(Some(caller)),
            Some(least) => {
                let detail = format!("this needs the role {least}, the credential has {}", caller.role());
                Err(self.refuse(route, &caller, detail))
            }
        }
    }

    /// Counts one more request of a caller, if it may have one more.
    fn count(&self, caller: &Caller, class: Class) -> Result<(), Problem> {
        let taken = self.rates.take(caller.holder(), class, self.node.now().monotonic);
        taken.map_err(|early| too_often(class, early))
    }

    /// Counts an act of a caller that was let in as one for each of its targets: it leaves as many records.
    pub(crate) fn count_targets(&self, caller: &Caller, targets: usize) -> Result<(), Problem> {
        let more = u32::try_from(targets.saturating_sub(1)).unwrap_or(u32::MAX);
        let owed = self.rates.owe_acts(caller.holder(), more, self.node.now().monotonic);
        owed.map_err(|early| too_often(Class::Act, early))
    }

    /// Refuses a caller a route. A refusal leaves a record, so it counts as an act whatever the route is.
    fn refuse(&self, route: &Route, caller: &Caller, detail: impl Into<String>) -> Problem {
        if route.class != Class::Act
            && let Err(problem) = self.count(caller, Class::Act)
        {
            return problem;
        }
        self.record_refusal(Code::PermissionDenied, route, |verb| Refusal::of_route(caller, verb));
        Problem::new(Kind::Forbidden, detail)
    }

    /// Refuses what rests on what the profile promises while that is not so. A refused write goes on record.
    fn check_promise(&self, route: &Route, caller: Option<&Caller>) -> Result<(), Problem> {
        let missing = match route.unmet {
            Unmet::Answered | Unmet::Told => None,
            Unmet::Refused => self.lacking(&self.node.view()),
        };
        let Some(missing) = missing else { return Ok(()) };
        if let Some(caller) = caller.filter(|_| route.method == "POST") {
            self.record_refusal(Code::NotConfigured, route, |verb| Refusal::of_promise(caller, verb, missing.clone()));
        }
        Err(Problem::new(Kind::Failed(Code::NotConfigured), missing))
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
        if let Err(failure) = actions::record(self, view, &Refusal::of_credential(nobody, &peer, others)) {
            tracing::warn!(code = %failure.code, "a bad credential could not be recorded");
        }
    }

    fn record_refusal(&self, code: Code, route: &Route, refusal: impl FnOnce(&str) -> Refusal) {
        self.node.metrics().denied(code, Stage::Origin, Side::Route);
        let mut words = route.path.rsplit('/').filter(|word| !word.starts_with('{'));
        let verb = words.next().unwrap_or_default().replace('-', "_");
        if let Err(failure) = actions::record(self, &self.node.view(), &refusal(&verb)) {
            tracing::warn!(code = %failure.code, "a refusal could not be recorded");
        }
    }

    fn explain(&self, problem: Problem) -> Response<Body> {
        let number = self.unnamed.fetch_add(1, Ordering::Relaxed);
        problem.into_response(&format!("http-{}-{number}", self.node.view().boot))
    }
}

/// The routes of the runs API take one method each, whatever else is wrong with the request (contract, RR-20 and RR-27). Those
/// of the admin listener can be probed.
fn check_method(route: &Route, surface: &Surface, request: &Request<Body>) -> Result<(), Problem> {
    let allow = match (route.method, surface) {
        ("POST", _) => "POST",
        (_, Surface::Admin { .. }) => "GET, HEAD",
        (_, Surface::Public) => "GET",
    };
    let is_taken = allow.split(", ").any(|method| method == request.method().as_str());
    if route.form == Form::Problem || is_taken {
        return Ok(());
    }
    Err(Problem::new(Kind::MethodNotAllowed(allow), format!("wanted {allow}")))
}

/// A credential that acts or reads too often is told which setting says how often it may.
fn too_often(class: Class, early: TooSoon) -> Problem {
    let detail = match class {
        Class::Act => "this credential acts too often: runtime.web.acts_per_s limits its acts, one for each target",
        Class::Free | Class::Read => "this credential reads too often: runtime.web.reads_per_s limits its reads",
    };
    Problem::new(Kind::TooOften(early.seconds), detail)
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
    // A stream says itself that it is not to be kept.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
}

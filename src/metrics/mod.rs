//! What a node counts and measures, and how it is exposed (OpenMetrics 1.0, which Prometheus reads).
//!
//! A label's value is a `&'static str`: it stands in the program's text, so nobody outside can invent one, and the number of
//! series is bounded. What happens is counted when it happens; what merely is (peers, queues, expiry) is looked at when
//! somebody asks.

mod denials;
mod optional;
mod process;
pub mod reference;
pub mod table;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

pub use self::denials::Side;
use self::optional::Optional;
use self::process::{Process, Shown};
use self::table::Row;
use crate::domain::action::ActionKind;
use crate::domain::code::Code;
use crate::domain::policy::Stage;
use crate::domain::queue::Queue;
use crate::domain::time::{Now, Wall};

/// The media type of [`Metrics::expose`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const NANOS_PER_SECOND: f64 = 1e9;

const ALLOWED: &str = "allowed";
const COMPLETED: &str = "completed";
const DENIED: &str = "denied";
const ERRORED: &str = "errored";
const FAILED: &str = "failed";
const OK: &str = "ok";

/// Upper bounds in seconds: from a read that is answered from memory to the longest budget of a dispatch.
const BOUNDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Names and values, all of them in the program's text.
type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Seconds = Gauge<f64, AtomicU64>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, Timer>;

/// Makes the histograms of a family.
#[derive(Debug, Clone, Copy)]
struct Timer;

impl MetricConstructor<Histogram> for Timer {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BOUNDS)
    }
}

/// What is looked at when somebody asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Whether requests are taken.
    pub is_ready: bool,
    /// Whether the store takes writes.
    pub is_writable: bool,
    /// Whether the wall clock is believed.
    pub is_clock_certain: bool,
    /// When this life of the node began.
    pub started: Now,
    /// Now.
    pub now: Now,
    /// Requests that are being answered.
    pub requests: usize,
    /// Readers who follow something.
    pub streams: usize,
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Runs that have not ended.
    pub runs: usize,
    /// Transports of the mesh.
    pub links: usize,
    /// Known runtimes by how they are seen.
    pub peers: Vec<(&'static str, usize)>,
    /// Known runtimes whose key nobody has approved.
    pub untrusted: usize,
    /// Bounded queues.
    pub queues: Vec<Queue>,
    /// What was refused from the mesh since the start, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// When certificates end, by what they are for.
    pub certificates: [(&'static str, Option<Wall>); 3],
    /// How far the clocks of peers run ahead of the own one, in nanoseconds: the middle one of those that are heard.
    pub skew_nanos: Option<i64>,
    /// Revision of the live settings.
    pub config_revision: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// With a result.
    Completed,
    /// With an error.
    Errored,
}

/// The counters of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http: Histograms<3>,
    bad_credentials: Counter,
    preflights: Counters<1>,
    dispatches: Counters<2>,
    dispatch_duration: Histograms<1>,
    denials: Counters<3>,
    asked: Counters<2>,
    commits: Counters<1>,
    commit_duration: Histogram,
    audit: Gauge,
    runs_started: Counter,
    runs_ended: Counters<1>,
    looked_at: LookedAt,
}

/// What [`Reading`] sets.
#[derive(Debug)]
struct LookedAt {
    ready: Gauge,
    writable: Gauge,
    clock_certain: Gauge,
    clock_offset: Seconds,
    clock_skew: Optional,
    started: Seconds,
    requests: Gauge,
    streams: Gauge,
    tasks: Gauge,
    runs: Gauge,
    links: Gauge,
    peers: Gauges<1>,
    untrusted: Gauge,
    queue_length: Gauges<1>,
    queue_capacity: Gauges<1>,
    refused: Counters<1>,
    certificate: Family<Labels<1>, Seconds>,
    config_revision: Gauge,
    process: Shown,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        enter(&mut registry, &table::BUILD, build);
        let mut of = Registrar(&mut registry);
        let metrics = Self {
            http: of.put(&table::HTTP_DURATION, Histograms::new_with_constructor(Timer)),
            bad_credentials: of.put(&table::BAD_CREDENTIALS, Counter::default()),
            preflights: of.put(&table::PREFLIGHTS, Counters::default()),
            dispatches: of.put(&table::DISPATCHES, Counters::default()),
            dispatch_duration: of.put(&table::DISPATCH_DURATION, Histograms::new_with_constructor(Timer)),
            denials: of.put(&table::DENIALS, Counters::default()),
            asked: of.put(&table::ASKED, Counters::default()),
            commits: of.put(&table::COMMITS, Counters::default()),
            commit_duration: of.put(&table::COMMIT_DURATION, Timer.new_metric()),
            audit: of.put(&table::AUDIT, Gauge::default()),
            runs_started: of.put(&table::RUNS_STARTED, Counter::default()),
            runs_ended: of.put(&table::RUNS_ENDED, Counters::default()),
            looked_at: LookedAt::new(&mut of),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }
}

/// Enters metrics and hands them back.
struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    fn put<M: Metric + Clone>(&mut self, row: &Row, metric: M) -> M {
        enter(self.0, row, metric.clone());
        metric
    }
}

fn enter(registry: &mut Registry, row: &Row, metric: impl Metric) {
    let unit = match row.unit() {
        Some("bytes") => Some(Unit::Bytes),
        Some("seconds") => Some(Unit::Seconds),
        Some(_) | None => None,
    };
    match unit {
        Some(unit) => {
            let name = row.name.trim_end_matches(unit.as_str()).trim_end_matches('_');
            registry.register_with_unit(name, row.meaning, unit, metric);
        }
        None => registry.register(row.name, row.meaning, metric),
    }
}

impl LookedAt {
    fn new(of: &mut Registrar<'_>) -> Self {
        Self {
            ready: of.put(&table::READY, Gauge::default()),
            writable: of.put(&table::STORE_WRITABLE, Gauge::default()),
            clock_certain: of.put(&table::CLOCK_CERTAIN, Gauge::default()),
            clock_offset: of.put(&table::CLOCK_OFFSET, Seconds::default()),
            clock_skew: of.put(&table::CLOCK_SKEW, Optional::gauge()),
            started: of.put(&table::PROCESS_START, Seconds::default()),
            requests: of.put(&table::HTTP_IN_FLIGHT, Gauge::default()),
            streams: of.put(&table::STREAMS, Gauge::default()),
            tasks: of.put(&table::TASKS, Gauge::default()),
            runs: of.put(&table::RUNS_ACTIVE, Gauge::default()),
            links: of.put(&table::MESH_LINKS, Gauge::default()),
            peers: of.put(&table::PEERS, Gauges::default()),
            untrusted: of.put(&table::PEERS_UNTRUSTED, Gauge::default()),
            queue_length: of.put(&table::QUEUE_LENGTH, Gauges::default()),
            queue_capacity: of.put(&table::QUEUE_CAPACITY, Gauges::default()),
            refused: of.put(&table::MESH_REFUSED, Counters::default()),
            certificate: of.put(&table::CERTIFICATE_EXPIRY, Family::default()),
            config_revision: of.put(&table::CONFIG_REVISION, Gauge::default()),
            process: Shown::new(of),
        }
    }

    fn set(&self, reading: &Reading) {
        self.ready.set(i64::from(reading.is_ready));
        self.writable.set(i64::from(reading.is_writable));
        self.clock_certain.set(i64::from(reading.is_clock_certain));
        self.clock_offset.set(moved(reading.started, reading.now));
        self.started.set(seconds(reading.started.wall.0));
        self.requests.set(whole(reading.requests));
        self.streams.set(whole(reading.streams));
        self.tasks.set(whole(reading.tasks));
        self.runs.set(whole(reading.runs));
        self.links.set(whole(reading.links));
        for (state, count) in &reading.peers {
            self.peers.get_or_create(&[("state", *state)]).set(whole(*count));
        }
        self.untrusted.set(whole(reading.untrusted));
        for queue in &reading.queues {
            let label = [("queue", queue.name)];
            self.queue_length.get_or_create(&label).set(whole(queue.length));
            self.queue_capacity.get_or_create(&label).set(whole(queue.capacity));
        }
        for (reason, count) in &reading.refused {
            // Counted elsewhere, and never falls there either. Here neither, whichever of two readers has looked first.
            self.refused.get_or_create(&[("reason", *reason)]).inner().fetch_max(*count, Ordering::Relaxed);
        }
        for (certificate, until) in &reading.certificates {
            let label = [("certificate", *certificate)];
            match until {
                Some(until) => {
                    self.certificate.get_or_create(&label).set(seconds(until.0));
                }
                None => {
                    self.certificate.remove(&label);
                }
            }
        }
        self.clock_skew.set(reading.skew_nanos.map(signed_seconds));
        self.config_revision.set(i64::try_from(reading.config_revision).unwrap_or(i64::MAX));
        self.process.set(&Process::read());
    }
}

impl Metrics {
    /// Where the words are few, each series is there before anything happens: a rise from nothing is no rise for whoever asks
    /// for rates.
    fn begin_at_zero(&self) {
        [ALLOWED, DENIED].iter().for_each(|it| drop(self.preflights.get_or_create(&[("result", *it)])));
        [OK, FAILED].iter().for_each(|it| drop(self.commits.get_or_create(&[("result", *it)])));
        [COMPLETED, ERRORED].iter().for_each(|it| drop(self.runs_ended.get_or_create(&[("result", *it)])));
    }

    /// A request was answered. The route is one of the table's, or a word for those that met none.
    pub fn answered(&self, method: &'static str, route: &'static str, status: u16, took_nanos: u64) {
        let status = match status.wrapping_div(100) {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let labels = [("method", method), ("route", route), ("status", status)];
        self.http.get_or_create(&labels).observe(seconds(took_nanos));
    }

    /// A credential was missing or wrong.
    pub fn bad_credential(&self) {
        self.bad_credentials.inc();
    }

    /// Somebody asked whether something would be allowed.
    pub fn preflighted(&self, is_allowed: bool) {
        let result = if is_allowed { ALLOWED } else { DENIED };
        self.preflights.get_or_create(&[("result", result)]).inc();
    }

    /// What became of a dispatch at one target.
    pub fn dispatched(&self, action: ActionKind, result: Result<(), (Code, Stage)>) {
        self.dispatches.get_or_create(&acted(action, result.map_err(|(code, _)| code))).inc();
        if let Err((code, stage)) = result {
            self.denied(code, stage, Side::Dispatch);
        }
    }

    /// A dispatch is over.
    pub fn dispatch_took(&self, action: ActionKind, took_nanos: u64) {
        self.dispatch_duration.get_or_create(&[("action", action.as_str())]).observe(seconds(took_nanos));
    }

    /// Another runtime asked for an action, and this is what became of it.
    pub fn asked(&self, action: ActionKind, result: Result<(), Code>) {
        self.asked.get_or_create(&acted(action, result)).inc();
        if let Err(code) = result {
            self.denied(code, Stage::Target, Side::Target);
        }
    }

    /// A batch was made durable, or could not be.
    pub fn committed(&self, is_durable: bool, took_nanos: u64) {
        let result = if is_durable { OK } else { FAILED };
        self.commits.get_or_create(&[("result", result)]).inc();
        self.commit_duration.observe(seconds(took_nanos));
    }

    /// The chain of writes has this length now.
    pub fn audit_length(&self, records: u64) {
        self.audit.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A run was accepted.
    pub fn run_started(&self) {
        self.runs_started.inc();
    }

    /// A run has ended.
    pub fn run_ended(&self, end: RunEnd) {
        let result = match end {
            RunEnd::Completed => COMPLETED,
            RunEnd::Errored => ERRORED,
        };
        self.runs_ended.get_or_create(&[("result", result)]).inc();
    }

    /// Everything as text, with what was just looked at.
    pub fn expose(&self, reading: &Reading) -> Result<String, fmt::Error> {
        self.looked_at.set(reading);
        let mut text = String::with_capacity(16 * 1_024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn acted(action: ActionKind, result: Result<(), Code>) -> Labels<2> {
    [("action", action.as_str()), ("result", result.map_or_else(Code::as_str, |()| OK))]
}

/// How far the wall clock went more (or less) than the monotonic one.
fn moved(started: Now, now: Now) -> f64 {
    let wall = seconds(now.wall.0) - seconds(started.wall.0);
    wall - seconds(now.monotonic.0.saturating_sub(started.monotonic.0))
}

#[expect(clippy::cast_precision_loss, reason = "a double holds the microseconds of our century")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_SECOND
}

#[expect(clippy::cast_precision_loss, reason = "a double holds the microseconds of our century")]
fn signed_seconds(nanos: i64) -> f64 {
    nanos as f64 / NANOS_PER_SECOND
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

//! Every metric of a node: its name, kind, labels and meaning. Nothing is counted that has no row here.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until the node starts again.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How often something took how long.
    Histogram,
    /// A text as a label, with the value 1.
    Info,
}

impl Kind {
    /// The kind as the exposition names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name with the unit, but without what the kind adds (`_total`, `_bucket`, `_info`).
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, and what their values are drawn from.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it says, without the full stop that the exposition adds.
    pub meaning: &'static str,
}

impl Row {
    /// The base unit that ends the name, if there is one.
    pub fn unit(&self) -> Option<&'static str> {
        ["bytes", "seconds"].into_iter().find(|unit| self.name.ends_with(&format!("_{unit}")))
    }
}

type Labels = &'static [(&'static str, &'static str)];

const ACTION: (&str, &str) = ("action", "`cfg_apply`, `cmd_invoke`, `status_read`");
const DENIED: (&str, &str) = (
    "code",
    "the codes of [errors](errors.md) by which a rule, a right or a precondition decides; not `interrupted`, `server_busy`, \
     `storage_unavailable`, `target_unreachable`, `timeout` and `transport_failure`, which stand in the results of \
     `trust_runtime_dispatch_targets` and `trust_runtime_mesh_actions`",
);
const RESULT: (&str, &str) = ("result", "`ok`, or one of the codes of [errors](errors.md)");
const QUEUE: (&str, &str) = (
    "queue",
    "`errands`: what programs are to do; `mailbox` and `urgent`: for the loop that decides; `mesh_facts`, `mesh_queries` and \
     `mesh_tokens`: what came in from the mesh; `read_records` and `refusal_records`: of these chains; `store_commits` and `run_commits`: for \
     a writer of the disk; `store_facts`, `store_pages`, `run_facts` and `run_pages`: questions to its readers; \
     `workload_commands` and `workload_log`: where there is a workload",
);
const STAGE: (&str, &str) = ("stage", "`origin`, `target`: who decided");
const SIDE: (&str, &str) = (
    "side",
    "`dispatch`: of a target of a dispatch that began here, or of all of it; `preflight`: in the answer to a preflight or a \
     dry run; `route`: before the request was read; `target`: of what another runtime asked of this one",
);
const WRITTEN: (&str, &str) = ("result", "`ok`, `failed`");

const fn counter(name: &'static str, labels: Labels, meaning: &'static str) -> Row {
    Row { name, kind: Kind::Counter, labels, meaning }
}

const fn gauge(name: &'static str, labels: Labels, meaning: &'static str) -> Row {
    Row { name, kind: Kind::Gauge, labels, meaning }
}

const fn histogram(name: &'static str, labels: Labels, meaning: &'static str) -> Row {
    Row { name, kind: Kind::Histogram, labels, meaning }
}

pub(super) const BUILD: Row = Row {
    name: "trust_runtime_build",
    kind: Kind::Info,
    labels: &[("version", "the version of this program")],
    meaning: "The program that runs",
};
pub(super) const READY: Row =
    gauge("trust_runtime_ready", &[], "1 while requests are taken, 0 while the node starts or stops");
pub(super) const HTTP_DURATION: Row = histogram(
    "trust_runtime_http_request_duration_seconds",
    &[
        ("method", "`GET`, `POST`: the method of the route; `any` where none was met"),
        (
            "route",
            "the paths of the route table, `unmatched` for any other, `refused_host` where the Host is not allowed",
        ),
        ("status", "`1xx` to `5xx`"),
    ],
    "Time from a request's head to the head of its answer; a stream's body is not in it",
);
pub(super) const HTTP_IN_FLIGHT: Row =
    gauge("trust_runtime_http_requests_in_flight", &[], "Requests that are being answered, probes aside");
pub(super) const STREAMS: Row =
    gauge("trust_runtime_http_streams_open", &[], "Readers who follow a run or the state on this listener");
pub(super) const BAD_CREDENTIALS: Row =
    counter("trust_runtime_http_bad_credentials", &[], "Requests with a credential that is missing or not valid");
pub(super) const PREFLIGHTS: Row = counter(
    "trust_runtime_preflights",
    &[("result", "`allowed`, `denied`")],
    "Questions whether something would be allowed, by their answer",
);
pub(super) const DISPATCHES: Row = counter(
    "trust_runtime_dispatch_targets",
    &[ACTION, RESULT],
    "Targets of the dispatches that began here, by what became of each",
);
pub(super) const DISPATCH_DURATION: Row = histogram(
    "trust_runtime_dispatch_duration_seconds",
    &[ACTION],
    "Time of a dispatch that began here, from the decision to the last target's outcome",
);
pub(super) const DENIALS: Row = counter(
    "trust_runtime_denials",
    &[DENIED, STAGE, SIDE],
    "What was decided against, where this node met with it; a denial by a target is counted at both nodes",
);
pub(super) const ASKED: Row = counter(
    "trust_runtime_mesh_actions",
    &[ACTION, RESULT],
    "Actions that other runtimes asked of this one, by what this one decided and did",
);
pub(super) const MESH_REFUSED: Row = counter(
    "trust_runtime_mesh_refused",
    &[("reason", "the reasons of `/healthz?verbose`, all of them fixed words")],
    "What was refused from the mesh: at its boundary, by signature and by the engine",
);
pub(super) const MESH_LINKS: Row = gauge("trust_runtime_mesh_links", &[], "Transports to other members of the mesh");
pub(super) const PEERS: Row = gauge(
    "trust_runtime_peers",
    &[("state", "`offline`, `online`, `partitioned`, `stale`")],
    "Known runtimes beside this one, by how they are seen now",
);
pub(super) const PEERS_UNTRUSTED: Row =
    gauge("trust_runtime_peers_untrusted", &[], "Known runtimes whose key nobody has approved");
pub(super) const QUEUE_LENGTH: Row =
    gauge("trust_runtime_queue_length", &[QUEUE], "What waits in a bounded queue of this node");
pub(super) const QUEUE_CAPACITY: Row =
    gauge("trust_runtime_queue_capacity", &[QUEUE], "How much that queue takes before it refuses");
pub(super) const COMMITS: Row =
    counter("trust_runtime_store_commits", &[WRITTEN], "Batches that were made durable, or could not be");
pub(super) const COMMIT_DURATION: Row =
    histogram("trust_runtime_store_commit_duration_seconds", &[], "Time until a batch is durable");
pub(super) const STORE_WRITABLE: Row =
    gauge("trust_runtime_store_writable", &[], "1 while the store takes writes, 0 while the node is read-only");
pub(super) const AUDIT: Row = gauge("trust_runtime_audit_records", &[], "Length of the audit chain of writes");
pub(super) const RUNS_ACTIVE: Row = gauge("trust_runtime_runs_active", &[], "Accepted runs that have not ended");
pub(super) const RUNS_STARTED: Row = counter("trust_runtime_runs_started", &[], "Runs that this runtime accepted");
pub(super) const RUNS_ENDED: Row = counter(
    "trust_runtime_runs_ended",
    &[("result", "`completed`, `errored`")],
    "Runs of this runtime that ended in this life of it, also those that an earlier life has left without an end",
);
pub(super) const CERTIFICATE_EXPIRY: Row = gauge(
    "trust_runtime_certificate_expiry_timestamp_seconds",
    &[(
        "certificate",
        "`anchor`: the last one of the site whose anchors end first; `node`: the own one in the mesh, or the first on its \
         path; `web`: the first that this listener presents",
    )],
    "When a certificate ends that this node rests on; absent where there is none",
);
pub(super) const CLOCK_OFFSET: Row = gauge(
    "trust_runtime_clock_offset_seconds",
    &[],
    "How far the wall clock was moved since the start, held against the monotonic clock",
);
pub(super) const CLOCK_SKEW: Row = gauge(
    "trust_runtime_clock_skew_seconds",
    &[],
    "How far the clocks of peers run ahead of the own one by their signed words, the median of those heard within a minute; \
     below 0 where the own one runs ahead; absent while none is heard",
);
pub(super) const CLOCK_CERTAIN: Row =
    gauge("trust_runtime_clock_certain", &[], "1 while the wall clock is believed, 0 while nothing new is granted");
pub(super) const CONFIG_REVISION: Row =
    gauge("trust_runtime_config_revision", &[], "Revision of the live settings that are applied");
pub(super) const PROCESS_MEMORY: Row =
    gauge("process_resident_memory_bytes", &[], "Memory of the process that is in RAM");
pub(super) const PROCESS_FDS: Row = gauge("process_open_fds", &[], "Open file descriptors of the process");
pub(super) const PROCESS_FDS_MAX: Row = gauge("process_max_fds", &[], "How many file descriptors the process may open");
pub(super) const PROCESS_CPU: Row =
    counter("process_cpu_seconds", &[], "Processor time of the process; that of the programs it starts is not in it");
pub(super) const PROCESS_THREADS: Row = gauge("process_threads", &[], "Threads of the process");
pub(super) const TASKS: Row = gauge(
    "trust_runtime_tasks",
    &[],
    "Tasks that have not ended: connections, links of the mesh in `plant` and `wan`, readers, and what the node always does",
);
pub(super) const PROCESS_START: Row =
    gauge("process_start_time_seconds", &[], "When this life of the node began, since 1970");

/// Every metric, as the page shows them.
pub const ALL: [Row; 36] = [
    BUILD,
    READY,
    HTTP_DURATION,
    HTTP_IN_FLIGHT,
    STREAMS,
    BAD_CREDENTIALS,
    PREFLIGHTS,
    DISPATCHES,
    DISPATCH_DURATION,
    DENIALS,
    ASKED,
    MESH_REFUSED,
    MESH_LINKS,
    PEERS,
    PEERS_UNTRUSTED,
    QUEUE_LENGTH,
    QUEUE_CAPACITY,
    COMMITS,
    COMMIT_DURATION,
    STORE_WRITABLE,
    AUDIT,
    RUNS_ACTIVE,
    RUNS_STARTED,
    RUNS_ENDED,
    CERTIFICATE_EXPIRY,
    CLOCK_OFFSET,
    CLOCK_SKEW,
    CLOCK_CERTAIN,
    CONFIG_REVISION,
    PROCESS_MEMORY,
    PROCESS_FDS,
    PROCESS_FDS_MAX,
    PROCESS_CPU,
    PROCESS_THREADS,
    TASKS,
    PROCESS_START,
];

//! The table of metric families: `/metrics`, `docs/metrics.md` and `explain` are made from it.

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only grows while the program runs.
    Counter,
    /// Counts by bucket, with their sum.
    Histogram,
}

impl Kind {
    /// As the exposition format and the documents write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name without [`PREFIX`].
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The labels, in the order in which series give their values.
    pub labels: &'static [&'static str],
    /// What it means: one sentence.
    pub help: &'static str,
    /// A question that it answers.
    pub question: &'static str,
    /// The query that answers it.
    pub query: &'static str,
}

/// Every name starts with this.
pub const PREFIX: &str = "keepalive_auditor_";

impl Family {
    /// The name as Prometheus stores it.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

/// Declares the families and [`ALL`], so that neither can miss one.
macro_rules! families {
    ($($id:ident { $($field:tt)* })*) => {
        $(
            #[doc = concat!("`", stringify!($id), "`, in lower case.")]
            pub const $id: Family = Family { $($field)* };
        )*
        /// Every family, in the order of the documents.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

families! {
    CONNECTIONS {
        name: "connections",
        kind: Kind::Gauge,
        labels: &["namespace", "pod", "container", "direction", "keepalive", "verdict"],
        help: "Established connections by owner, keepalive state of the local side, and verdict.",
        question: "How many connections has each verdict?",
        query: "sum by (verdict) (keepalive_auditor_connections)",
    }
    FLAGGED_CONNECTIONS {
        name: "flagged_connections",
        kind: Kind::Gauge,
        labels: &["namespace", "pod", "container", "direction", "endpoint", "path", "verdict"],
        help: "Flagged connections by owner, service endpoint, path and verdict. Endpoints past --top-endpoints count \
            as `other`.",
        question: "Which ten endpoints have the most flagged connections?",
        query: "topk(10, sum by (namespace, endpoint) (keepalive_auditor_flagged_connections))",
    }
    FLAGGED_WIRE_IDLE_SECONDS_MAX {
        name: "flagged_wire_idle_seconds_max",
        kind: Kind::Gauge,
        labels: &["namespace", "pod", "container", "direction"],
        help: "The longest time since the last segment of a flagged connection.",
        question: "Which pods have a flagged connection that was idle for more than 5 minutes?",
        query: "max by (namespace, pod) (keepalive_auditor_flagged_wire_idle_seconds_max) > 300",
    }
    FLAGGED_CONNECTIONS_ENDED_TOTAL {
        name: "flagged_connections_ended_total",
        kind: Kind::Counter,
        labels: &["namespace", "pod", "container", "direction", "outcome"],
        help: "Flagged connections that are gone, by outcome: reset, timed_out, closed, unknown. --watch-ends makes it \
            exact.",
        question: "Which workloads lost flagged connections to resets and timeouts in the last hour?",
        query: "sum by (namespace, pod) \
                (increase(keepalive_auditor_flagged_connections_ended_total{outcome=~\"reset|timed_out\"}[1h])) > 0",
    }
    NODE_FLAGGED_CONNECTIONS_ENDED_TOTAL {
        name: "node_flagged_connections_ended_total",
        kind: Kind::Counter,
        labels: &["outcome"],
        help: "Flagged connections of the whole node that are gone, by outcome, zeros and pods that are gone included.",
        question: "Which part of the flagged connections ended with an error in the last day?",
        query: "sum(increase(keepalive_auditor_node_flagged_connections_ended_total{outcome=~\"reset|timed_out\"} \
                [1d])) / sum(increase(keepalive_auditor_node_flagged_connections_ended_total[1d]))",
    }
    POD_INFO {
        name: "pod_info",
        kind: Kind::Gauge,
        labels: &["namespace", "pod", "workload"],
        help: "Always 1: a pod of the node, and its name without what a controller or the node appended.",
        question: "How many pods of each workload does the agent know?",
        query: "count by (namespace, workload) (keepalive_auditor_pod_info)",
    }
    HALF_CLOSED_CONNECTIONS {
        name: "half_closed_connections",
        kind: Kind::Gauge,
        labels: &["namespace", "pod", "container", "state"],
        help: "Sockets held by a process that wait for one side to close, `close_wait` or `fin_wait2`. They are not \
            judged.",
        question: "Which pods leak connections that their peers have closed?",
        query: "topk(10, keepalive_auditor_half_closed_connections{state=\"close_wait\"})",
    }
    SILENCE_SECONDS {
        name: "silence_seconds",
        kind: Kind::Histogram,
        labels: &["keepalive"],
        help: "Idle times of 30 s and more on long-lived connections, counted when they end.",
        question: "How many idle times per second would a limit of 350 s have cut?",
        query: "sum(rate(keepalive_auditor_silence_seconds_count[1h])) - \
                sum(rate(keepalive_auditor_silence_seconds_bucket{le=\"350\"}[1h]))",
    }
    POD_TCP_KEEPALIVE_TIME_SECONDS {
        name: "pod_tcp_keepalive_time_seconds",
        kind: Kind::Gauge,
        labels: &["namespace", "pod"],
        help: "The sysctl net.ipv4.tcp_keepalive_time of the pod's network namespace.",
        question: "Which pods have a default idle time that is too long for a path of 350 s?",
        query: "keepalive_auditor_pod_tcp_keepalive_time_seconds * 9 / 8 >= 350",
    }
    POD_TCP_ESTABLISHED_RESETS_TOTAL {
        name: "pod_tcp_established_resets_total",
        kind: Kind::Counter,
        labels: &["namespace", "pod"],
        help: "Established connections of the pod that were reset (EstabResets).",
        question: "Which pods had connections reset in the last hour?",
        query: "increase(keepalive_auditor_pod_tcp_established_resets_total[1h]) > 0",
    }
    POD_TCP_ABORT_ON_TIMEOUT_TOTAL {
        name: "pod_tcp_abort_on_timeout_total",
        kind: Kind::Counter,
        labels: &["namespace", "pod"],
        help: "Connections of the pod that the kernel closed after unanswered segments or probes (TCPAbortOnTimeout).",
        question: "Which pods lost connections to a peer or path that did not answer?",
        query: "increase(keepalive_auditor_pod_tcp_abort_on_timeout_total[1h]) > 0",
    }
    POD_TCP_KEEPALIVE_PROBES_TOTAL {
        name: "pod_tcp_keepalive_probes_total",
        kind: Kind::Counter,
        labels: &["namespace", "pod"],
        help: "Keepalive probes that the pod sent (TCPKeepAlive).",
        question: "Does the pod send probes since its keepalive was turned on?",
        query: "rate(keepalive_auditor_pod_tcp_keepalive_probes_total[10m])",
    }
    IDLE_TIMEOUT_SECONDS {
        name: "idle_timeout_seconds",
        kind: Kind::Gauge,
        labels: &["path"],
        help: "The idle timeout against which connections of the path are judged.",
        question: "Which idle timeout does each path have?",
        query: "min by (path) (keepalive_auditor_idle_timeout_seconds)",
    }
    PATH_INFO {
        name: "path_info",
        kind: Kind::Gauge,
        labels: &["path", "refreshed_by", "source"],
        help: "Always 1: what refreshes the path (segment or payload), and where its idle timeout comes from.",
        question: "On which paths does TCP keepalive protect nothing?",
        query: "group by (path) (keepalive_auditor_path_info{refreshed_by=\"payload\"})",
    }
    PATH_READS_HTTP2 {
        name: "path_reads_http2",
        kind: Kind::Gauge,
        labels: &["path"],
        help: "1 for each path on which a middlebox reads HTTP/2 itself and does not count HTTP/2 PING frames.",
        question: "Which connections do HTTP/2 and gRPC keepalive not protect?",
        query: "sum by (path, verdict) (keepalive_auditor_flagged_connections * on (path) group_left group by (path) \
                (keepalive_auditor_path_reads_http2))",
    }
    PATH_IDLE_SURVIVED_SECONDS {
        name: "path_idle_survived_seconds",
        kind: Kind::Gauge,
        labels: &["path"],
        help: "The longest idle time after which a segment was still answered.",
        question: "Is the real limit of a path higher than the configured one?",
        query: "keepalive_auditor_path_idle_survived_seconds > keepalive_auditor_idle_timeout_seconds",
    }
    PATH_IDLE_BROKEN_SECONDS {
        name: "path_idle_broken_seconds",
        kind: Kind::Gauge,
        labels: &["path"],
        help: "The shortest idle time after which several connections broke while their peer lived on.",
        question: "Is the real limit of a path lower than the configured one?",
        query: "keepalive_auditor_path_idle_broken_seconds < keepalive_auditor_idle_timeout_seconds",
    }
    NODE_LIMIT_SECONDS {
        name: "node_limit_seconds",
        kind: Kind::Gauge,
        labels: &["kind"],
        help: "Idle timeouts read from the node: conntrack, conntrack_elsewhere (not the host's namespace), ipvs.",
        question: "On which nodes does the node's own NAT drop connections sooner than a path is said to?",
        query: "min by (instance) (keepalive_auditor_node_limit_seconds) < on (instance) \
                max by (instance) (keepalive_auditor_idle_timeout_seconds)",
    }
    NODE_CONNECTIONS {
        name: "node_connections",
        kind: Kind::Gauge,
        labels: &["verdict"],
        help: "Established connections of the whole node by verdict, zeros included.",
        question: "Which ten nodes have the most overdue connections?",
        query: "topk(10, sum by (instance) (keepalive_auditor_node_connections{verdict=\"overdue\"}))",
    }
    NAMESPACES {
        name: "namespaces",
        kind: Kind::Gauge,
        labels: &["result"],
        help: "Network namespaces in the last sweep, by result: dumped, looked_up, skipped, empty, vanished, failed.",
        question: "On which nodes could a namespace not be read?",
        query: "keepalive_auditor_namespaces{result=\"failed\"} > 0",
    }
    NAMESPACE_FAILURES_TOTAL {
        name: "namespace_failures_total",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "Network namespaces, or parts of them, that could not be read, by reason.",
        question: "Why can namespaces not be read?",
        query: "sum by (reason) (rate(keepalive_auditor_namespace_failures_total[10m]))",
    }
    CAPABILITY_INFO {
        name: "capability_info",
        kind: Kind::Gauge,
        labels: &["capability"],
        help: "1 for each capability that the agent's sweeps hold. Threads that answer requests hold none.",
        question: "Which agents hold more than CAP_SYS_ADMIN?",
        query: "keepalive_auditor_capability_info{capability!=\"CAP_SYS_ADMIN\"}",
    }
    SWEEP_INCOMPLETE {
        name: "sweep_incomplete",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 if something could not be read in the last sweep, else 0.",
        question: "On which nodes do the counts lack something?",
        query: "keepalive_auditor_sweep_incomplete == 1",
    }
    SWEEP_BLIND {
        name: "sweep_blind",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 if the last sweep could not list namespaces or could read none, so that its counts mean nothing, \
            else 0.",
        question: "On which nodes does a count of zero mean nothing?",
        query: "keepalive_auditor_sweep_blind == 1",
    }
    STALE_NAMESPACES {
        name: "stale_namespaces",
        kind: Kind::Gauge,
        labels: &[],
        help: "Network namespaces that could not be read and are shown as they were last read, for at most 10 minutes.",
        question: "Which nodes show old numbers?",
        query: "keepalive_auditor_stale_namespaces > 0",
    }
    STALE_CONNECTIONS {
        name: "stale_connections",
        kind: Kind::Gauge,
        labels: &[],
        help: "Connections that are shown as they were last read.",
        question: "Which part of the connections is old?",
        query: "keepalive_auditor_stale_connections / keepalive_auditor_tracked_connections",
    }
    STALE_AGE_SECONDS {
        name: "stale_age_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Age of the oldest read that is still shown, 0 if all namespaces were read in the last sweep.",
        question: "How old are the oldest numbers?",
        query: "max(keepalive_auditor_stale_age_seconds)",
    }
    OWNER_TROUBLES_TOTAL {
        name: "owner_troubles_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Failed attempts to find the name of an owner, by cause.",
        question: "Why do connections have no pod name?",
        query: "sum by (kind) (rate(keepalive_auditor_owner_troubles_total[10m]))",
    }
    SWEEP_DURATION_SECONDS {
        name: "sweep_duration_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "Time that one sweep over every network namespace took.",
        question: "How long do the slowest 5 % of the sweeps take?",
        query: "histogram_quantile(0.95, sum by (le) (rate(keepalive_auditor_sweep_duration_seconds_bucket[10m])))",
    }
    SWEEPS_TOTAL {
        name: "sweeps_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Finished sweeps.",
        question: "Does the agent still sweep?",
        query: "increase(keepalive_auditor_sweeps_total[10m]) == 0",
    }
    DUMPS_INTERRUPTED_TOTAL {
        name: "dumps_interrupted_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Dumps during which the kernel's table changed, or that ended with an error.",
        question: "Which part of the sweeps has an interrupted dump?",
        query: "rate(keepalive_auditor_dumps_interrupted_total[10m]) / rate(keepalive_auditor_sweeps_total[10m])",
    }
    LAST_SWEEP_TIMESTAMP_SECONDS {
        name: "last_sweep_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Start of the last sweep, as Unix time.",
        question: "How old are the numbers?",
        query: "time() - keepalive_auditor_last_sweep_timestamp_seconds",
    }
    TRACKED_CONNECTIONS {
        name: "tracked_connections",
        kind: Kind::Gauge,
        labels: &[],
        help: "Connections that the agent keeps in memory.",
        question: "Which nodes have the most connections?",
        query: "topk(10, keepalive_auditor_tracked_connections)",
    }
    SERIES_DROPPED {
        name: "series_dropped",
        kind: Kind::Gauge,
        labels: &[],
        help: "Connection and pod series that this scrape lacks because of --max-series.",
        question: "Which agents drop series?",
        query: "keepalive_auditor_series_dropped > 0",
    }
    SWEEP_FAILURES_TOTAL {
        name: "sweep_failures_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Sweeps that failed as a whole; the numbers of the last good one stay.",
        question: "Do sweeps fail?",
        query: "increase(keepalive_auditor_sweep_failures_total[10m]) > 0",
    }
    SWEEP_RUNNING_SECONDS {
        name: "sweep_running_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Time that the sweep under way has taken so far; 0 between sweeps.",
        question: "Does a sweep hang?",
        query: "keepalive_auditor_sweep_running_seconds > 30",
    }
    CONFIG_LAST_RELOAD_SUCCESSFUL {
        name: "config_last_reload_successful",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 if the configuration in force is that of the file, 0 if the file was refused after a change.",
        question: "Which agents refuse their configuration?",
        query: "keepalive_auditor_config_last_reload_successful == 0",
    }
    WEB_CONFIG_LAST_RELOAD_SUCCESSFUL {
        name: "web_config_last_reload_successful",
        kind: Kind::Gauge,
        labels: &[],
        help: "The same for --web.config.file; absent where there is none.",
        question: "Which agents refuse a renewed certificate?",
        query: "keepalive_auditor_web_config_last_reload_successful == 0",
    }
    WEB_CONNECTIONS {
        name: "web_connections",
        kind: Kind::Gauge,
        labels: &[],
        help: "Open connections of the agent's port.",
        question: "How many clients does the port have?",
        query: "max by (instance) (keepalive_auditor_web_connections)",
    }
    WEB_CONNECTIONS_EVICTED_TOTAL {
        name: "web_connections_evicted_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Connections of the agent's port that were closed because there were too many.",
        question: "Does somebody flood the port?",
        query: "rate(keepalive_auditor_web_connections_evicted_total[5m]) > 0",
    }
    LOG_LINES_DROPPED_TOTAL {
        name: "log_lines_dropped_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Log lines that could not be written to stderr.",
        question: "Which agents lose logs?",
        query: "increase(keepalive_auditor_log_lines_dropped_total[10m]) > 0",
    }
    METRICS_DETAIL_INFO {
        name: "metrics_detail_info",
        kind: Kind::Gauge,
        labels: &["detail"],
        help: "Always 1: the value of --metrics-detail.",
        question: "Which agents sum their connections by workload or namespace?",
        query: "keepalive_auditor_metrics_detail_info{detail=~\"workload|namespace\"}",
    }
    BUILD_INFO {
        name: "build_info",
        kind: Kind::Gauge,
        labels: &["version", "revision"],
        help: "Always 1: the version and the revision of this program.",
        question: "Which versions run?",
        query: "count by (version, revision) (keepalive_auditor_build_info)",
    }
}

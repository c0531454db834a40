//! What the agent says about itself: its process, its port, its configuration. Made again for each scrape, unlike what
//! a report shows.

use std::time::Duration;

use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, TextEncoder};

use super::exposition::{family, float, gathered};
use super::families::{self, Kind};

/// The state of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AgentState {
    /// The capabilities that sweeps hold.
    pub capabilities: [Option<&'static str>; 3],
    /// Sweeps that failed.
    pub sweep_failures: u64,
    /// How long the sweep under way has taken; zero between sweeps.
    pub sweep_running: Duration,
    /// Whether the configuration in force is that of the file.
    pub config_is_current: bool,
    /// The same of the web configuration; absent where there is none.
    pub web_config_is_current: Option<bool>,
    /// Open connections of the port.
    pub web_connections: u64,
    /// Connections that were closed because there were too many.
    pub web_connections_evicted: u64,
    /// Log lines that could not be written.
    pub log_lines_dropped: u64,
    /// What the process uses.
    pub process: ProcessState,
}

/// What the process uses, under the names that all of Prometheus' clients give.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessState {
    /// CPU time in user and kernel mode.
    pub cpu: Duration,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The limit of open file descriptors.
    pub max_fds: u64,
    /// Virtual memory, bytes.
    pub virtual_memory: u64,
    /// Resident memory, bytes.
    pub resident_memory: u64,
    /// Start of the process, since the Unix epoch.
    pub started: Duration,
    /// Threads.
    pub threads: u64,
}

/// Name, type and HELP of the metrics of the process.
pub const PROCESS: [(&str, Kind, &str); 7] = [
    ("process_cpu_seconds_total", Kind::Counter, "CPU time in user and kernel mode."),
    ("process_open_fds", Kind::Gauge, "Open file descriptors."),
    ("process_max_fds", Kind::Gauge, "The limit of open file descriptors."),
    ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory."),
    ("process_resident_memory_bytes", Kind::Gauge, "Resident memory."),
    ("process_start_time_seconds", Kind::Gauge, "Start of the process, as Unix time."),
    ("process_threads", Kind::Gauge, "Threads."),
];

/// The text of these metrics.
pub fn agent_text(state: &AgentState) -> prometheus::Result<String> {
    let one = |of: &families::Family, value: f64| family(of, vec![(vec![], value)]);
    let held = state.capabilities.iter().flatten().map(|name| (vec![(*name).to_owned()], 1.0)).collect();
    let flag = |is: bool| f64::from(u8::from(is));
    let mut all: Vec<MetricFamily> = vec![
        one(&families::SWEEP_FAILURES_TOTAL, float(state.sweep_failures)),
        one(&families::SWEEP_RUNNING_SECONDS, state.sweep_running.as_secs_f64()),
        one(&families::CONFIG_LAST_RELOAD_SUCCESSFUL, flag(state.config_is_current)),
        one(&families::WEB_CONNECTIONS, float(state.web_connections)),
        one(&families::WEB_CONNECTIONS_EVICTED_TOTAL, float(state.web_connections_evicted)),
        one(&families::LOG_LINES_DROPPED_TOTAL, float(state.log_lines_dropped)),
    ];
    if state.capabilities.iter().flatten().count() > 0 {
        all.push(family(&families::CAPABILITY_INFO, held));
    }
    if let Some(is_current) = state.web_config_is_current {
        all.push(one(&families::WEB_CONFIG_LAST_RELOAD_SUCCESSFUL, flag(is_current)));
    }
    let ProcessState { cpu, open_fds, max_fds, virtual_memory, resident_memory, started, threads } = state.process;
    let values = [
        cpu.as_secs_f64(),
        float(open_fds),
        float(max_fds),
        float(virtual_memory),
        float(resident_memory),
        started.as_secs_f64(),
        float(threads),
    ];
    all.extend(PROCESS.into_iter().zip(values).map(|((name, kind, help), value)| gathered(name, kind, help, value)));
    let mut text = Vec::new();
    TextEncoder::new().encode(&all, &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

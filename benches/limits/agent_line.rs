//! The agent's line, called as the agent calls it: a sweep into a digest that lives on, and a report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepalive_auditor::cli::{AgentArgs, Common};
use keepalive_auditor::config::{AgentConfig, ConfigFile};
use keepalive_auditor::digest::Digest;
use keepalive_auditor::host::Host;
use keepalive_auditor::judge::report::Report;

use crate::measure::{Cpu, cost};

/// What an agent keeps from sweep to sweep.
pub struct Line {
    host: Host,
    digest: Digest,
}

impl Line {
    /// With defaults, but that connections are long-lived at once, for what is flagged costs more than what is young,
    /// and that nothing is skipped; over the namespaces found in these directories, and our own.
    pub fn over(directories: &[&str]) -> Self {
        let netns_dir = directories.iter().map(PathBuf::from).collect();
        let common = Common { long_lived: Some(Duration::from_millis(1)), netns_dir, ..Common::default() };
        let config =
            AgentConfig::new(&common, &AgentArgs::default(), &ConfigFile::default()).expect("defaults are valid");
        Self { host: Host::new(config.config.paths), digest: Digest::new(Arc::new(config.config.policy)) }
    }

    /// One sweep, and what it costs.
    pub fn sweep(&mut self) -> (Cpu, Report) {
        cost(|| {
            self.host.sweep_into(&mut self.digest).expect("nothing is recorded");
            self.digest.summary("bench")
        })
    }
}

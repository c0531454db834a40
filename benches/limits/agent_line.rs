//! The parts of the agent, called as the agent calls them: sweeps into one digest, and a report after each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepalive_auditor::cli::{AgentArgs, Common};
use keepalive_auditor::config::{AgentConfig, ConfigFile};
use keepalive_auditor::digest::Digest;
use keepalive_auditor::host::Host;
use keepalive_auditor::judge::report::Report;

use crate::measure::{Cpu, cost};

/// The cgroup v2 tree of a hybrid host. Without it the holders of all sockets would be looked up there, and the result
/// would not hold for other hosts.
pub fn unified() -> Option<PathBuf> {
    Some(PathBuf::from("/sys/fs/cgroup/unified")).filter(|tree| tree.is_dir())
}

/// The state that an agent keeps between sweeps.
pub struct Line {
    host: Host,
    digest: Digest,
}

impl Line {
    /// Sweeps the namespaces in these directories and the current one. Connections are long-lived at once, because
    /// flagged ones cost more than young ones. Nothing is skipped. Everything else has its default.
    pub fn over(directories: &[&str]) -> Self {
        let netns_dir = directories.iter().map(PathBuf::from).collect();
        let common = Common {
            long_lived: Some(Duration::from_millis(1)),
            netns_dir,
            cgroup_root: unified(),
            ..Common::default()
        };
        let config =
            AgentConfig::new(&common, &AgentArgs::default(), &ConfigFile::default()).expect("defaults are valid");
        Self { host: Host::new(config.config.paths), digest: Digest::new(Arc::new(config.config.policy)) }
    }

    /// Runs one sweep. Returns its CPU time and its report.
    pub fn sweep(&mut self) -> (Cpu, Report) {
        cost(|| {
            self.host.sweep_into(&mut self.digest).expect("nothing is recorded");
            self.digest.summary("bench")
        })
    }
}

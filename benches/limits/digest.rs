//! Digests generated sweeps and does nothing else, so that `benches/callgrind` can count the instructions.

use std::sync::Arc;

use keepalive_auditor::cli::{AgentArgs, Common};
use keepalive_auditor::config::{AgentConfig, ConfigFile};
use keepalive_auditor::digest::Digest;

use crate::generated::Node;

/// The number of generated sweeps. It is the same in each run, so two runs differ only by the cost to digest.
const GENERATED: u64 = 8;

/// Runs `digest CONNECTIONS SWEEPS`. Returns false if the arguments ask for something else.
pub fn run(arguments: &[String]) -> bool {
    let [role, connections, sweeps] = arguments else { return false };
    if role != "digest" {
        return false;
    }
    let config = AgentConfig::new(&Common::default(), &AgentArgs::default(), &ConfigFile::default());
    let mut digest = Digest::new(Arc::new(config.expect("defaults are valid").config.policy));
    let node = Node::new(1, connections.parse().expect("a number of connections"));
    let all: Vec<_> = (0..GENERATED).map(|number| node.sweep(number)).collect();
    let wanted = sweeps.parse().expect("a number of sweeps");
    assert!(wanted <= all.len(), "at most {GENERATED} sweeps");
    for sweep in &all[..wanted] {
        sweep.records(|record| digest.feed(record));
        digest.feed(&sweep.end());
        let report = digest.summary("bench");
        assert_eq!(report.connections.to_string(), *connections);
    }
    true
}

//! Generated sweeps into a digest, and nothing else: what `benches/callgrind` counts the instructions of.

use std::sync::Arc;

use keepalive_auditor::cli::{AgentArgs, Common};
use keepalive_auditor::config::{AgentConfig, ConfigFile};
use keepalive_auditor::digest::Digest;

use crate::generated::Node;

/// As many sweeps are generated whatever number is digested, so that two runs differ by what digesting costs.
const GENERATED: u64 = 8;

/// `digest CONNECTIONS SWEEPS`, if that is what was asked for.
pub fn play(arguments: &[String]) -> bool {
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
        sweep.looks(|record| digest.feed(record));
        digest.feed(&sweep.end());
        let report = digest.summary("bench");
        assert_eq!(report.connections.to_string(), *connections);
    }
    true
}

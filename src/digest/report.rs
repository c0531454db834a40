//! The last sweep's report.

use std::collections::BTreeMap;

use super::Digest;
use crate::judge::report::{Counts, Finding, Report};
use crate::owner::{NsId, Owner, OwnerKind};

impl Digest {
    /// A sentence that says why the last sweep did not read this namespace. `None` if it did.
    #[must_use]
    pub fn why_unread(&self, id: NsId) -> Option<String> {
        match self.sweep.unread.get(&id) {
            Some(loss) => Some(loss.detail.clone()),
            None => (!self.sweep.read.contains(&id)).then(|| "this network namespace is gone".to_owned()),
        }
    }

    /// The owners of the last sweep.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.all()
    }

    /// The connections of the last sweep.
    pub fn findings(&mut self) -> Findings<'_> {
        self.assessment.sort();
        Findings(self)
    }

    /// The last sweep's report with all its findings.
    #[must_use]
    pub fn report(&mut self, node: &str) -> Report {
        Report { findings: self.findings().iter().collect(), ..self.summary(node) }
    }

    /// The last sweep's report without its findings. [`Digest::findings`] gives those.
    #[must_use]
    pub fn summary(&self, node: &str) -> Report {
        let Self { sweep, policy, totals, tracker, limits, .. } = self;
        let Counts { ignored, not_shown, verdicts, truncated, tallies, half_closed } = self.assessment.counts().clone();
        let mut pods = BTreeMap::new();
        let mut node_tcp_keepalive_time = None;
        for (id, counters) in &sweep.counters {
            match self.owners.namespaces.get(id) {
                Some(owner) if owner.kind == OwnerKind::Pod => {
                    pods.insert(owner.clone(), *counters);
                }
                Some(owner) if owner.kind == OwnerKind::Host => node_tcp_keepalive_time = counters.tcp_keepalive_time,
                _ => {}
            }
        }
        Report {
            node: node.to_owned(),
            started_at: sweep.started_at,
            duration: sweep.now.since(sweep.clock),
            watched_for: sweep.clock.since(self.first_clock.unwrap_or(sweep.clock)),
            namespaces: sweep.counts,
            connections: verdicts.iter().sum(),
            ignored,
            not_shown,
            incomplete: sweep.incomplete,
            verdicts,
            truncated,
            findings: Vec::new(),
            tallies,
            half_closed,
            pods,
            node_tcp_keepalive_time,
            node_limits: self.node_limits(),
            paths: policy.paths().cloned().collect(),
            learned: limits.of_paths(policy),
            losses: sweep.losses.clone(),
            is_blind: sweep.incomplete && (sweep.unlisted || sweep.read.is_empty()),
            stale: sweep.stale,
            failures: sweep.failures.clone(),
            tracked: tracker.len() as u64,
            totals: totals.clone(),
        }
    }
}

/// The connections of the last sweep in detail, each made on request: a node may have two hundred thousand, which need
/// not be in memory at once.
#[derive(Clone, Copy)]
pub struct Findings<'a>(&'a Digest);

impl<'a> Findings<'a> {
    /// Worst first.
    pub fn iter(self) -> impl Iterator<Item = Finding> + use<'a> {
        let Self(Digest { assessment, tracker, policy, sweep, owners, .. }) = self;
        assessment.findings(tracker, policy, &sweep.namespaces, owners)
    }
}

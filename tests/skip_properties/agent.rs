//! An agent's memory, and how its sweeps read namespaces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keepalive_auditor::judge::assess::{Assessment, NamespaceFacts, assess};
use keepalive_auditor::judge::groups::OwnerOf;
use keepalive_auditor::judge::memory::idle::IdleEnd;
use keepalive_auditor::judge::memory::{KeepaliveTimer, Moment, NamespaceMemory, Tracker};
use keepalive_auditor::judge::policy::Policy;
use keepalive_auditor::judge::report::Counts;
use keepalive_auditor::judge::verdict::Verdict;
use keepalive_auditor::owner::{NsId, Owner};
use keepalive_auditor::record::WhatToRead;
use keepalive_auditor::socket::{Cookie, Socket};

use crate::namespace::Namespace;
use crate::policy;

/// An agent's tracker, and how it sweeps.
pub struct Agent {
    policy: Policy,
    tracker: Tracker,
    skips: bool,
    /// It reads only connections that are due where there is traffic, as on a node with many connections.
    follows: bool,
    /// The cost to look up one connection, if a dump costs a millisecond.
    lookup_cost: Duration,
    pub skipped: u32,
    looked_up: u32,
    /// The time between its samples and its judgement, milliseconds.
    pub late: u64,
    /// Connections that were not due.
    pub left_out: u32,
    /// Reads of some connections that proved that the others had not moved.
    pub confirmed: u32,
    /// The idle times that ended, of connections without keepalive.
    pub idle_times: Vec<IdleEnd>,
}

impl Agent {
    /// An agent that dumps in every sweep.
    pub fn thorough() -> Self {
        Self { skips: false, ..Self::skipping(Duration::ZERO) }
    }

    pub fn skipping(lookup_cost: Duration) -> Self {
        Self {
            policy: policy(),
            tracker: Tracker::default(),
            skips: true,
            follows: false,
            lookup_cost,
            skipped: 0,
            looked_up: 0,
            late: 0,
            left_out: 0,
            confirmed: 0,
            idle_times: Vec::new(),
        }
    }

    /// An agent on a node with many connections.
    pub fn following(lookup_cost: Duration) -> Self {
        Self { follows: true, ..Self::skipping(lookup_cost) }
    }

    /// This agent with another policy.
    pub fn with(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    fn sample(&mut self, sockets: impl Iterator<Item = Socket>, now: Moment) {
        sockets.for_each(|socket| {
            self.tracker.sample(&socket, now);
        });
        self.tracker.end_read(true, now, |_, tracked, idle| {
            if tracked.keepalive_timer() == KeepaliveTimer::Off {
                self.idle_times.push(*idle);
            }
        });
    }

    /// Sweeps the only namespace.
    pub fn sweep(&mut self, namespace: &Namespace) -> Counts {
        self.sweep_all(std::slice::from_ref(namespace))
    }

    /// Sweeps several namespaces.
    pub fn sweep_all(&mut self, namespaces: &[Namespace]) -> Counts {
        let assessment = self.judge(namespaces);
        let counts = assessment.counts().clone();
        assessment.store_in(&mut self.tracker);
        counts
    }

    /// Sweeps several namespaces, and returns the verdict of each connection.
    pub fn verdicts(&mut self, namespaces: &[Namespace]) -> BTreeMap<Cookie, Verdict> {
        let assessment = self.judge(namespaces);
        let findings = assessment.findings(&self.tracker, &self.policy, &NO_FACTS, &Nobody);
        let verdicts = findings.map(|finding| (finding.cookie, finding.verdict)).collect();
        assessment.store_in(&mut self.tracker);
        verdicts
    }

    fn judge(&mut self, namespaces: &[Namespace]) -> Assessment {
        let now = Moment::from_millis(namespaces.iter().map(|namespace| namespace.now).max().unwrap_or_default());
        self.tracker.begin_sweep(now);
        self.tracker.set_follows(self.follows);
        for namespace in namespaces {
            self.read(namespace);
        }
        let now = Moment::from_millis(now.as_millis() + self.late);
        assess(&self.tracker, &self.policy, &Nobody, now)
    }

    fn read(&mut self, namespace: &Namespace) {
        let id = namespace.id;
        let (now, activity) = (Moment::from_millis(namespace.now), namespace.activity());
        let memory = self.tracker.namespace(id).filter(|_| self.skips);
        let what = memory.map_or(WhatToRead::Everything, |memory| {
            memory.what_to_read(
                &activity,
                now,
                self.policy.longest_between_reads().into(),
                self.lookup_cost,
                self.follows,
            )
        });
        match what {
            WhatToRead::Nothing => {
                self.tracker.skip(id, now);
                self.skipped += 1;
            }
            WhatToRead::Due(names) => {
                self.tracker.begin_due(id, None);
                let is_due = |socket: &Socket| names.iter().any(|name| name.cookie == socket.cookie);
                self.sample(namespace.sockets().filter(is_due), now);
                self.tracker.confirm(id, activity, now, now);
                let baseline = self.tracker.namespace(id).and_then(NamespaceMemory::baseline);
                self.confirmed += u32::from(baseline.is_some_and(|baseline| baseline.at == now));
                self.left_out += u32::try_from(namespace.open.len() - names.len()).expect("few connections");
            }
            WhatToRead::Sockets(names)
                if names.iter().all(|name| namespace.open.iter().any(|(cookie, _)| *cookie == name.cookie)) =>
            {
                self.tracker.begin_lookup(id, None);
                let known = |socket: &Socket| names.iter().any(|name| name.cookie == socket.cookie);
                self.sample(namespace.sockets().filter(known), now);
                self.tracker.store_baseline(id, activity, now, None);
                self.looked_up += 1;
            }
            _ => {
                self.tracker.begin_dump(id, None);
                self.sample(namespace.sockets(), now);
                self.tracker.store_baseline(id, activity, now, Some(Duration::from_millis(1)));
            }
        }
    }
}

static NO_FACTS: BTreeMap<NsId, NamespaceFacts> = BTreeMap::new();

struct Nobody;

impl OwnerOf for Nobody {
    fn owner(&self, _: NsId, _: Option<u64>, _: u32) -> Arc<Owner> {
        Arc::default()
    }

    fn by_inode(&self, _: NsId, _: Option<u64>) -> bool {
        false
    }

    fn knows_inode(&self, _: u32) -> bool {
        false
    }
}

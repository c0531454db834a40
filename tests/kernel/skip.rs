//! An agent that skips dumps relies on the kernel's counters: they distinguish the local side's probes from any other
//! movement.
//!
//! The agent's parts run in the test, sweep by sweep, so that what one sweep did is known whatever the machine does
//! beside it.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use keepalive_auditor::cli::{AgentArgs, Common, ScopeArg};
use keepalive_auditor::config::{AgentConfig, ConfigFile};
use keepalive_auditor::digest::Digest;
use keepalive_auditor::host::counters::Reader;
use keepalive_auditor::host::{Host, on_own_thread};
use keepalive_auditor::judge::report::{Finding, Report};
use keepalive_auditor::judge::verdict::Verdict;
use keepalive_auditor::owner::NsId;
use keepalive_auditor::record::{Consumer, Counters, Namespace, ReadMode, Record, SocketsToRead, WhatToRead};
use rustix::net::sockopt;

use crate::hosts::{Case, Hosts};
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::metrics::Page;
use crate::support::netns::{Netns, v4, v6};
use crate::support::socket::{End, Keepalive, Server};

/// Between two sweeps.
const PAUSE: Duration = Duration::from_millis(100);
/// How long we wait for what must come.
const PATIENCE: Duration = Duration::from_mins(1);
/// The grain of the kernel's clocks at 100 Hz, twice: of what happened and of when it is read.
const JIFFY: Duration = Duration::from_millis(20);

/// The agent's way through its sweeps, one when the test says so.
struct Sweeper<'n> {
    host: Host,
    digest: Digest,
    netns: &'n Netns,
}

/// A digest's records, and among them what the sweep found of one namespace.
struct Watching<'a> {
    digest: &'a mut Digest,
    id: NsId,
    found: Option<Namespace>,
}

impl Consumer for Watching<'_> {
    type Error = std::io::Error;

    fn consume(&mut self, record: &Record<'_>) -> std::io::Result<()> {
        if let Record::Namespace(namespace) = record
            && namespace.id == self.id
        {
            self.found = Some(namespace.clone());
        }
        self.digest.consume(record)
    }

    fn what_to_read(&self, namespace: &Namespace) -> WhatToRead {
        self.digest.what_to_read(namespace)
    }

    fn unknown_cgroups(&self) -> BTreeSet<u64> {
        self.digest.unknown_cgroups()
    }

    fn unknown_inodes(&self, all: bool) -> BTreeSet<u32> {
        self.digest.unknown_inodes(all)
    }

    fn sockets_to_read(&self) -> SocketsToRead {
        self.digest.sockets_to_read()
    }
}

/// One sweep: what it did in the namespace, and what it said.
struct Sweep {
    began: Instant,
    ended: Instant,
    how: ReadMode,
    /// Keepalive probes that the namespace had sent.
    probes: u64,
    report: Report,
}

impl<'n> Sweeper<'n> {
    /// With the defaults but for the idle timeout; every connection is long-lived at once.
    fn new(netns: &'n Netns, idle_timeout: Option<Duration>) -> Self {
        let long_lived = Some(Duration::ZERO);
        let flags = Common { idle_timeout, long_lived, local_scope: Some(ScopeArg::Namespace), ..Common::default() };
        let agent = AgentConfig::new(&flags, &AgentArgs::default(), &ConfigFile::default()).expect("an agent's flags");
        let digest = Digest::new(agent.config.policy.into()).skipping();
        Self { host: Host::new(agent.config.paths), digest, netns }
    }

    fn sweep(&mut self) -> Sweep {
        let (host, digest, id) = (&mut self.host, &mut self.digest, NsId(self.netns.inode));
        let began = Instant::now();
        let mut to = Watching { digest, id, found: None };
        on_own_thread(|| host.sweep_into(&mut to)).expect("a sweep ends");
        let found = to.found.expect("the namespace is found");
        let probes = found.counters.and_then(|counters| counters.keepalive_probes).expect("the kernel counts probes");
        Sweep { began, ended: Instant::now(), how: found.read, probes, report: digest.report("") }
    }

    /// Sweeps on until `done` says so, and gives the last sweep.
    fn sweep_until(&mut self, what: &str, mut done: impl FnMut(&Sweep) -> bool) -> Sweep {
        let end = Instant::now() + PATIENCE;
        loop {
            let sweep = self.sweep();
            if done(&sweep) {
                return sweep;
            }
            assert!(Instant::now() < end, "{PATIENCE:?} of sweeps without {what}");
            sleep(PAUSE);
        }
    }

    /// Sweeps until only movement makes it look, for a long time: each of the `kept` connections has probed since the
    /// last look, so that no timer is left to learn from.
    fn settle(&mut self, kept: u64) {
        let mut at_look = 0;
        self.sweep_until("skipping over this end's own probes", |sweep| {
            if sweep.looked() {
                at_look = sweep.probes;
            }
            !sweep.looked() && sweep.probes >= at_look + 2 * kept
        });
    }

    /// The sweep that has to notice what just moved: the next one. A probe of the local side that falls between a
    /// sweep's readings of the two counters hides one other segment from that sweep; then it is the one after.
    fn notice(&mut self) -> Sweep {
        loop {
            let before = counters(self.netns).keepalive_probes;
            let sweep = self.sweep();
            if sweep.looked() || counters(self.netns).keepalive_probes == before {
                return sweep;
            }
        }
    }
}

impl Sweep {
    /// The connections were seen, one way or the other.
    fn looked(&self) -> bool {
        self.how != ReadMode::Skip
    }

    fn row(&self, end: &End) -> Option<&Finding> {
        let is_it = |row: &&Finding| (row.netns.0, row.cookie.0) == (end.id.netns, end.id.cookie);
        self.report.findings.iter().find(is_it)
    }

    fn verdict(&self, end: &End) -> Option<Verdict> {
        self.row(end).map(|row| row.verdict)
    }
}

/// Checks what was said of a connection by the sweep that had to notice what happened to it.
fn noticed(checks: &mut Checks, what: &str, sweep: &Sweep, end: &End, verdict: Verdict) {
    checks.that(sweep.looked(), || format!("{what}: no look"));
    checks.equal(what, sweep.verdict(end), Some(verdict));
}

/// What the namespace's counters say at one moment: none moved while they were read.
fn counters(netns: &Netns) -> Counters {
    netns.enter(|| {
        let read = || Reader::default().read(NsId(netns.inode)).0;
        let mut counters = read();
        loop {
            let again = read();
            if again == counters {
                return counters;
            }
            counters = again;
        }
    })
}

/// Segments that the namespace sent, keepalive probes left out.
fn sent_but_probes(netns: &Netns) -> u64 {
    let counters = counters(netns);
    counters.out_segs.expect("OutSegs") - counters.keepalive_probes.expect("TCPKeepAlive")
}

/// Connections of both families in both roles that nobody keeps alive, and as many that this machine does, with a probe
/// every 2 s.
fn quiet(hosts: &Hosts) -> (Vec<Case>, Vec<Case>) {
    let (off, kept) = (hosts.four(Keepalive::Off, Keepalive::Off), hosts.four(Keepalive::Idle(2), Keepalive::Off));
    for case in &kept {
        // Shorter than KEEPIDLE: between the two the timer shows what KEEPIDLE is, and is settled.
        sockopt::set_tcp_keepintvl(&case.near.stream, Duration::from_secs(1)).expect("TCP_KEEPINTVL is set");
    }
    (off, kept)
}

kernel_test!(a_namespace_is_skipped_while_only_its_own_probes_move, || {
    const SWEEPS: u64 = 40;
    let hosts = Hosts::new();
    let (off, kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, None);
    sweeper.settle(4);
    let mut checks = Checks::default();
    let (mut sweeps, mut looks) = (0, 0);
    let before = counters(&hosts.near);
    let probes = before.keepalive_probes.expect("TCPKeepAlive");
    sweeper.sweep_until("two probes of each", |sweep| {
        sweeps += 1;
        looks += u64::from(sweep.looked());
        for (cases, verdict) in [(&off, Verdict::Exposed), (&kept, Verdict::Protected)] {
            for case in cases {
                checks.equal(&format!("{}, sweep {sweeps}", case.name), sweep.verdict(&case.near), Some(verdict));
            }
        }
        sweeps >= SWEEPS && sweep.probes >= probes + 8
    });
    let after = counters(&hosts.near);
    let rose = |of: fn(&Counters) -> Option<u64>| of(&after).expect("a counter") - of(&before).expect("a counter");
    let probes = rose(|counters| counters.keepalive_probes);
    checks.equal("segments sent, of which are probes", rose(|counters| counters.out_segs), probes);
    let received = rose(|counters| counters.in_segs);
    checks.that(received <= probes, || format!("{received} segments received for {probes} probes"));
    // None, but for a probe that fell between the readings of a sweep's two counters: that takes two.
    checks.that(looks <= sweeps / 4, || format!("{looks} looks in {sweeps} sweeps with {probes} probes"));
    checks.finish();
});

kernel_test!(the_first_sweep_after_it_is_due_reads_and_reports_what_is_overdue, || {
    const LIMIT: Duration = Duration::from_secs(8);
    // The memory counts in tenths of a second, from the first one after a read.
    const TICK: Duration = Duration::from_millis(100);
    let hosts = Hosts::new();
    // Those that nobody keeps alive have no data at all, and so no late acknowledgement of any.
    let (off, mut kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, Some(LIMIT));
    let first = sweeper.sweep();
    let (earliest, latest) = (first.began + LIMIT, first.ended + LIMIT + TICK + JIFFY);
    let mut checks = Checks::default();
    let (mut overdue, mut skipped, mut said) = (0, 0, false);
    sweeper.sweep_until("overdue connections", |sweep| {
        skipped += u32::from(!sweep.looked());
        // Without any movement looks come every quarter of the limit, and so at its end, too, whatever is due.
        if !said && sweep.began > first.began + LIMIT * 5 / 8 {
            kept[0].say();
            said = true;
        }
        for case in &kept {
            checks.equal(&case.name, sweep.verdict(&case.near), Some(Verdict::Protected));
        }
        let before = overdue;
        let is_overdue = |case: &&Case| sweep.verdict(&case.near) == Some(Verdict::Overdue);
        overdue = off.iter().filter(is_overdue).count();
        checks.that(overdue >= before, || format!("{} of {before} are overdue no more", before - overdue));
        checks.that(overdue == before || sweep.looked(), || format!("{overdue} are overdue, without a look"));
        checks.that(overdue == before || sweep.ended >= earliest, || "overdue too early".to_owned());
        checks.that(overdue == off.len() || sweep.began < latest, || format!("only {overdue} overdue, after the time"));
        overdue == off.len()
    });
    checks.that(skipped > 0, || "never skipped".to_owned());
    checks.finish();
});

kernel_test!(whatever_else_moves_is_noticed_by_the_next_sweep_among_this_ends_probes, || {
    let hosts = Hosts::new();
    let (mut off, kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, None);
    sweeper.settle(4);
    let mut checks = Checks::default();
    let mut lookups = 0;

    // Probes of the peers, one connection after the other.
    for case in &off {
        sweeper.sweep_until("a skipped look", |sweep| !sweep.looked());
        let (sent, end) = (sent_but_probes(&hosts.near), Instant::now() + PATIENCE);
        Keepalive::Idle(1).apply(&case.far.stream);
        while sent_but_probes(&hosts.near) == sent {
            assert!(Instant::now() < end, "{}: no probe is answered", case.name);
            sleep(Duration::from_millis(10));
        }
        Keepalive::Off.apply(&case.far.stream);
        let sweep = sweeper.notice();
        lookups += u32::from(sweep.how == ReadMode::LookUp);
        noticed(&mut checks, &format!("{}: its probe", case.name), &sweep, &case.near, Verdict::PeerProtected);
    }

    // Data, either way.
    for case in &mut off {
        for (what, act) in [("sends", Case::say as fn(&mut Case)), ("receives", Case::hear)] {
            sweeper.sweep_until("a skipped look", |sweep| !sweep.looked());
            let start = Instant::now();
            act(case);
            let (name, sweep) = (format!("{} {what}", case.name), sweeper.notice());
            lookups += u32::from(sweep.how == ReadMode::LookUp);
            noticed(&mut checks, &name, &sweep, &case.near, Verdict::PeerProtected);
            let idle = sweep.row(&case.near).and_then(|row| row.data_idle).map(Duration::from);
            let age = start.elapsed() + JIFFY;
            checks.that(idle.is_some_and(|idle| idle <= age), || format!("{name} data {age:?} ago, not {idle:?}"));
        }
    }

    // No connection came or went: where a walk of the kernel's table costs more, those that are known were looked up.
    checks.that(lookups > 0, || "nothing was looked up".to_owned());

    // New connections, either way: no lookup would show them.
    let (outward, inward) = (Server::dual(&hosts.far, 7070), Server::dual(&hosts.near, 7171));
    let mut held = Vec::new();
    for (here, there) in [(v4(1, 1), v4(1, 2)), (v6(1, 1), v6(1, 2))] {
        sweeper.sweep_until("a skipped look", |sweep| !sweep.looked());
        let opened = outward.connect(&hosts.near, there, [Keepalive::Off; 2]);
        let sweep = sweeper.notice();
        checks.equal("a connection opened", sweep.how, ReadMode::Dump);
        noticed(&mut checks, &format!("opened to {there}"), &sweep, &opened.client, Verdict::Exposed);
        sweeper.sweep_until("a skipped look", |sweep| !sweep.looked());
        let accepted = inward.connect(&hosts.far, here, [Keepalive::Off; 2]);
        let sweep = sweeper.notice();
        checks.equal("a connection accepted", sweep.how, ReadMode::Dump);
        noticed(&mut checks, &format!("accepted at {here}"), &sweep, &accepted.server, Verdict::Exposed);
        held.extend([opened, accepted]);
    }
    let last = sweeper.sweep();
    for case in &kept {
        checks.equal(&case.name, last.verdict(&case.near), Some(Verdict::Protected));
    }

    // One that goes is gone from the next report.
    sweeper.sweep_until("a skipped look", |sweep| !sweep.looked());
    let gone = held.pop().expect("a connection").server;
    let (netns, cookie) = (gone.id.netns, gone.id.cookie);
    drop(gone);
    let sweep = sweeper.sweep_until("a look", Sweep::looked);
    checks.equal("a connection closed", sweep.how, ReadMode::Dump);
    let still = sweep.report.findings.iter().any(|row| (row.netns.0, row.cookie.0) == (netns, cookie));
    checks.that(!still, || "a closed connection is still told of".to_owned());
    checks.finish();
});

kernel_test!(the_agent_skips_and_counts_what_it_skipped, || {
    let hosts = Hosts::new();
    let cases = hosts.four(Keepalive::Off, Keepalive::Off);
    let agent = Agent::start(&["--long-lived", "1ms", "--interval", "250ms"]);
    let skipped = || Page::read(&agent.page("/metrics")).sum("keepalive_auditor_namespaces", &["result"]);
    let is_skipped = || skipped().get(&vec!["skipped".to_owned()]) == Some(&1.0);
    let report = agent.wait(PATIENCE, |_| is_skipped()).expect("a skipped namespace");
    let mut checks = Checks::default();
    for case in &cases {
        checks.end(&case.name, &report, &case.near, "off", "exposed");
    }
    checks.finish();
});

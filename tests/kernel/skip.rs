//! An agent that skips dumps relies on the kernel's counters: they distinguish the local side's probes from any other
//! movement.
//!
//! The agent's parts run in the test, one sweep at a time, so that the test knows what each sweep did.

use std::collections::BTreeSet;
use std::io::Write;
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

/// The pause between two sweeps.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for an event that must happen.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The error of two clock readings at 100 Hz: the event and the sample.
const CLOCK_ERROR: Duration = Duration::from_millis(20);

/// The parts of the agent that sweep. The test starts each sweep.
struct Sweeper<'n> {
    host: Host,
    digest: Digest,
    netns: &'n Netns,
}

/// Passes the records on to the digest and keeps the record of one namespace.
struct Tap<'a> {
    digest: &'a mut Digest,
    id: NsId,
    found: Option<Namespace>,
}

impl Consumer for Tap<'_> {
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

    fn compares_probes(&self, namespace: NsId) -> bool {
        self.digest.compares_probes(namespace)
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

/// One sweep: what it did in the namespace, and its report.
struct Sweep {
    began: Instant,
    ended: Instant,
    how: ReadMode,
    /// Keepalive probes that the namespace had sent.
    probes: u64,
    report: Report,
}

impl<'n> Sweeper<'n> {
    /// Uses the defaults, except that every connection is long-lived at once and the idle timeout may be set.
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
        let mut to = Tap { digest, id, found: None };
        on_own_thread(|| host.sweep_into(&mut to)).expect("a sweep ends");
        let found = to.found.expect("the namespace is found");
        let probes = found.counters.and_then(|counters| counters.keepalive_probes);
        // a read of what is due leaves them out
        assert!(probes.is_some() || found.read == ReadMode::Due, "the kernel counts probes");
        let probes = probes.unwrap_or_default();
        Sweep { began, ended: Instant::now(), how: found.read, probes, report: digest.report("") }
    }

    /// Sweeps until `done` returns true, and returns the last sweep.
    fn sweep_until(&mut self, what: &str, mut done: impl FnMut(&Sweep) -> bool) -> Sweep {
        let end = Instant::now() + TIMEOUT;
        loop {
            let sweep = self.sweep();
            if done(&sweep) {
                return sweep;
            }
            assert!(Instant::now() < end, "{TIMEOUT:?} of sweeps without {what}");
            sleep(PAUSE);
        }
    }

    /// Sweeps until nothing but traffic will cause a read for a long time: each of the `kept` connections has probed
    /// since the last read, so the tracker knows all their timers.
    fn sweep_until_timers_are_known(&mut self, kept: u64) {
        let mut at_read = 0;
        self.sweep_until("skips in spite of the local side's own probes", |sweep| {
            if sweep.has_read() {
                at_read = sweep.probes;
            }
            !sweep.has_read() && sweep.probes >= at_read + 2 * kept
        });
    }

    /// Sweeps once, or twice if the local side probed meanwhile. That is the sweep that must notice the last segment: a
    /// probe between a sweep's readings of the two counters hides one other segment from that sweep.
    fn notice(&mut self) -> Sweep {
        loop {
            let before = counters(self.netns).keepalive_probes;
            let sweep = self.sweep();
            if sweep.has_read() || counters(self.netns).keepalive_probes == before {
                return sweep;
            }
        }
    }
}

impl Sweep {
    /// Whether the sweep read the connections, by a dump or by lookups.
    fn has_read(&self) -> bool {
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

/// Checks the verdict that a connection got from the sweep that must notice the last event.
fn check_noticed(checks: &mut Checks, what: &str, sweep: &Sweep, end: &End, verdict: Verdict) {
    checks.that(sweep.has_read(), || format!("{what}: not read"));
    checks.equal(what, sweep.verdict(end), Some(verdict));
}

/// The namespace's counters at one moment: it reads them again if one moved meanwhile.
fn counters(netns: &Netns) -> Counters {
    netns.enter(|| {
        let read = || Reader::default().read(NsId(netns.inode), true).0;
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

/// The segments that the namespace sent, without keepalive probes.
fn sent_but_probes(netns: &Netns) -> u64 {
    let counters = counters(netns);
    counters.out_segs.expect("OutSegs") - counters.keepalive_probes.expect("TCPKeepAlive")
}

/// Connections of both families in both roles: four without keepalive, and four that this machine probes every 2 s.
fn quiet(hosts: &Hosts) -> (Vec<Case>, Vec<Case>) {
    let (off, kept) = (hosts.four(Keepalive::Off, Keepalive::Off), hosts.four(Keepalive::Idle(2), Keepalive::Off));
    for case in &kept {
        // It is shorter than KEEPIDLE, so the timer shows KEEPIDLE in between and the tracker knows it.
        sockopt::set_tcp_keepintvl(&case.near.stream, Duration::from_secs(1)).expect("TCP_KEEPINTVL is set");
    }
    (off, kept)
}

kernel_test!(a_namespace_is_skipped_while_only_its_own_probes_move, || {
    const SWEEPS: u64 = 40;
    let hosts = Hosts::new();
    let (off, kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, None);
    sweeper.sweep_until_timers_are_known(4);
    let mut checks = Checks::default();
    let (mut sweeps, mut reads) = (0, 0);
    let before = counters(&hosts.near);
    let probes = before.keepalive_probes.expect("TCPKeepAlive");
    sweeper.sweep_until("two probes of each", |sweep| {
        sweeps += 1;
        reads += u64::from(sweep.has_read());
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
    checks.equal("segments sent are all probes", rose(|counters| counters.out_segs), probes);
    let received = rose(|counters| counters.in_segs);
    checks.that(received <= probes, || format!("{received} segments received for {probes} probes"));
    // Ideally none. A probe between the readings of a sweep's two counters causes two reads.
    checks.that(reads <= sweeps / 4, || format!("{reads} reads in {sweeps} sweeps with {probes} probes"));
    checks.finish();
});

kernel_test!(the_first_sweep_after_the_limit_reads_and_reports_overdue_connections, || {
    const LIMIT: Duration = Duration::from_secs(8);
    // The tracker counts in tenths of a second, starting at the first one after a read.
    const TICK: Duration = Duration::from_millis(100);
    let hosts = Hosts::new();
    // The connections without keepalive carry no data, so no delayed acknowledgement disturbs the test.
    let (off, mut kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, Some(LIMIT));
    let first = sweeper.sweep();
    let (earliest, latest) = (first.began + LIMIT, first.ended + LIMIT + TICK + CLOCK_ERROR);
    let mut checks = Checks::default();
    let (mut overdue, mut skipped, mut said) = (0, 0, false);
    sweeper.sweep_until("overdue connections", |sweep| {
        skipped += u32::from(!sweep.has_read());
        // Without traffic, reads come every quarter of the limit, so one comes at its end in any case.
        if !said && sweep.began > first.began + LIMIT * 5 / 8 {
            kept[0].send();
            said = true;
        }
        for case in &kept {
            checks.equal(&case.name, sweep.verdict(&case.near), Some(Verdict::Protected));
        }
        let before = overdue;
        let is_overdue = |case: &&Case| sweep.verdict(&case.near) == Some(Verdict::Overdue);
        overdue = off.iter().filter(is_overdue).count();
        checks.that(overdue >= before, || format!("{} of {before} are overdue no more", before - overdue));
        checks.that(overdue == before || sweep.has_read(), || format!("{overdue} are overdue, without a read"));
        checks.that(overdue == before || sweep.ended >= earliest, || "overdue too early".to_owned());
        checks.that(overdue == off.len() || sweep.began < latest, || format!("only {overdue} overdue, after the time"));
        overdue == off.len()
    });
    checks.that(skipped > 0, || "never skipped".to_owned());
    checks.finish();
});

kernel_test!(where_there_is_traffic_a_silent_connection_is_overdue_in_time_and_read_only_when_it_is_due, || {
    const LIMIT: Duration = Duration::from_secs(8);
    const TICK: Duration = Duration::from_millis(100);
    let hosts = Hosts::new();
    let (off, mut kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, Some(LIMIT));
    sweeper.digest = sweeper.digest.follow_from(0);
    let first = sweeper.sweep();
    let (earliest, latest) = (first.began + LIMIT, first.ended + LIMIT + TICK + CLOCK_ERROR);
    let mut checks = Checks::default();
    let mut sweeps = [0; 2];
    sweeper.sweep_until("overdue connections", |sweep| {
        kept[0].send();
        sweeps[usize::from(sweep.how == ReadMode::Due)] += 1;
        let overdue = off.iter().filter(|case| sweep.verdict(&case.near) == Some(Verdict::Overdue)).count();
        checks.that(overdue == 0 || sweep.ended >= earliest, || "overdue too early".to_owned());
        checks.that(overdue == off.len() || sweep.began < latest, || format!("only {overdue} overdue, after the time"));
        overdue == off.len()
    });
    let [others, due] = sweeps;
    checks.that(due > others, || format!("{due} of {} sweeps read only what was due", due + others));

    // What is lost is sent again, and any connection may have sent it: all are read.
    let before = counters(&hosts.near).retrans_segs;
    hosts.cut();
    kept[0].near.stream.write_all(b"!").expect("the near end writes");
    let sweep = sweeper.sweep_until("a retransmission", |_| counters(&hosts.near).retrans_segs > before);
    hosts.restore();
    let sweep = if sweep.how == ReadMode::Due { sweeper.sweep() } else { sweep };
    checks.that(sweep.how != ReadMode::Due, || "a retransmission did not ask for a whole read".to_owned());

    // A new connection is seen at once.
    let server = Server::dual(&hosts.far, 7070);
    let opened = server.connect(&hosts.near, v4(1, 2), [Keepalive::Off; 2]);
    let sweep = sweeper.sweep();
    checks.equal("a connection opened", sweep.how, ReadMode::Dump);
    check_noticed(&mut checks, "opened", &sweep, &opened.client, Verdict::Exposed);
    checks.finish();
});

kernel_test!(overdue_connections_are_not_read_while_the_counters_prove_that_they_have_sent_nothing, || {
    const LIMIT: Duration = Duration::from_secs(8);
    const QUARTER: Duration = Duration::from_secs(2);
    let hosts = Hosts::new();
    let (mut off, mut kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, Some(LIMIT));
    sweeper.digest = sweeper.digest.follow_from(0);
    let is_overdue = |sweep: &Sweep, case: &Case| sweep.verdict(&case.near) == Some(Verdict::Overdue);
    sweeper.sweep_until("overdue connections", |sweep| {
        kept[0].send();
        off.iter().all(|case| is_overdue(sweep, case))
    });
    let mut checks = Checks::default();
    let mut whole: Option<Instant> = None;
    sweeper.sweep_until("most of the limit without a whole read", |sweep| {
        kept[0].send();
        for case in &off {
            checks.that(is_overdue(sweep, case), || format!("{} is not overdue any more", case.name));
        }
        let before = whole.filter(|_| sweep.how != ReadMode::Due);
        whole = if sweep.how == ReadMode::Due { whole } else { Some(sweep.began) };
        before.is_some_and(|before| sweep.began - before > LIMIT * 3 / 4)
    });

    // What one of them sends is in no sum: a sweep after the quarter finds that, and the next one reads all.
    off[0].send();
    let (until, mut late) = (Instant::now() + QUARTER, 0);
    let sweep = sweeper.sweep_until("the traffic of an overdue connection", |sweep| {
        kept[0].send();
        late += u32::from(sweep.began > until);
        !is_overdue(sweep, &off[0])
    });
    checks.that(late <= 2, || format!("seen in sweep {late} after a quarter of the limit"));
    checks.equal("it is idle for less than the limit", sweep.verdict(&off[0].near), Some(Verdict::Exposed));
    checks.finish();
});

kernel_test!(the_next_sweep_notices_every_event_but_the_local_sides_own_probes, || {
    let hosts = Hosts::new();
    let (mut off, kept) = quiet(&hosts);
    let mut sweeper = Sweeper::new(&hosts.near, None);
    sweeper.sweep_until_timers_are_known(4);
    let mut checks = Checks::default();
    let mut lookups = 0;

    // Probes of the peers, one connection after the other.
    for case in &off {
        sweeper.sweep_until("a skipped read", |sweep| !sweep.has_read());
        let (sent, end) = (sent_but_probes(&hosts.near), Instant::now() + TIMEOUT);
        Keepalive::Idle(1).apply(&case.far.stream);
        while sent_but_probes(&hosts.near) == sent {
            assert!(Instant::now() < end, "{}: no probe is answered", case.name);
            sleep(Duration::from_millis(10));
        }
        Keepalive::Off.apply(&case.far.stream);
        let sweep = sweeper.notice();
        lookups += u32::from(sweep.how == ReadMode::LookUp);
        check_noticed(&mut checks, &format!("{}: its probe", case.name), &sweep, &case.near, Verdict::PeerProtected);
    }

    // Data in each direction.
    for case in &mut off {
        for (what, act) in [("sends", Case::send as fn(&mut Case)), ("receives", Case::receive)] {
            sweeper.sweep_until("a skipped read", |sweep| !sweep.has_read());
            let start = Instant::now();
            act(case);
            let (name, sweep) = (format!("{} {what}", case.name), sweeper.notice());
            lookups += u32::from(sweep.how == ReadMode::LookUp);
            check_noticed(&mut checks, &name, &sweep, &case.near, Verdict::PeerProtected);
            let idle = sweep.row(&case.near).and_then(|row| row.data_idle).map(Duration::from);
            let age = start.elapsed() + CLOCK_ERROR;
            checks.that(idle.is_some_and(|idle| idle <= age), || format!("{name} data {age:?} ago, not {idle:?}"));
        }
    }

    // No connection came or went, so the sweep looked up the known ones where a dump of the kernel's table costs more.
    checks.that(lookups > 0, || "nothing was looked up".to_owned());

    // New connections in each direction. A lookup would not show them.
    let (outward, inward) = (Server::dual(&hosts.far, 7070), Server::dual(&hosts.near, 7171));
    let mut held = Vec::new();
    for (here, there) in [(v4(1, 1), v4(1, 2)), (v6(1, 1), v6(1, 2))] {
        sweeper.sweep_until("a skipped read", |sweep| !sweep.has_read());
        let opened = outward.connect(&hosts.near, there, [Keepalive::Off; 2]);
        let sweep = sweeper.notice();
        checks.equal("a connection opened", sweep.how, ReadMode::Dump);
        check_noticed(&mut checks, &format!("opened to {there}"), &sweep, &opened.client, Verdict::Exposed);
        sweeper.sweep_until("a skipped read", |sweep| !sweep.has_read());
        let accepted = inward.connect(&hosts.far, here, [Keepalive::Off; 2]);
        let sweep = sweeper.notice();
        checks.equal("a connection accepted", sweep.how, ReadMode::Dump);
        check_noticed(&mut checks, &format!("accepted at {here}"), &sweep, &accepted.server, Verdict::Exposed);
        held.extend([opened, accepted]);
    }
    let last = sweeper.sweep();
    for case in &kept {
        checks.equal(&case.name, last.verdict(&case.near), Some(Verdict::Protected));
    }

    // A closed connection is gone from the next report.
    sweeper.sweep_until("a skipped read", |sweep| !sweep.has_read());
    let gone = held.pop().expect("a connection").server;
    let (netns, cookie) = (gone.id.netns, gone.id.cookie);
    drop(gone);
    let sweep = sweeper.sweep_until("a read", Sweep::has_read);
    checks.equal("a connection closed", sweep.how, ReadMode::Dump);
    let still = sweep.report.findings.iter().any(|row| (row.netns.0, row.cookie.0) == (netns, cookie));
    checks.that(!still, || "a closed connection is still reported".to_owned());
    checks.finish();
});

kernel_test!(the_agent_skips_and_counts_what_it_skipped, || {
    let hosts = Hosts::new();
    let cases = hosts.four(Keepalive::Off, Keepalive::Off);
    let agent = Agent::start(&["--long-lived", "1ms", "--interval", "250ms"]);
    let skipped = || Page::read(&agent.page("/metrics")).sum("keepalive_auditor_namespaces", &["result"]);
    let is_skipped = || skipped().get(&vec!["skipped".to_owned()]) == Some(&1.0);
    let report = agent.wait(TIMEOUT, |_| is_skipped()).expect("a skipped namespace");
    let mut checks = Checks::default();
    for case in &cases {
        checks.end(&case.name, &report, &case.near, "off", "exposed");
    }
    checks.finish();
});

//! Two namespaces of one node, with connections of every kind: heartbeats, paths that count payload or no HTTP/2 PING,
//! the two ends of one connection, and peers that vanish before and after the path has dropped a connection.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use keepalive_auditor::judge::policy::{LocalScope, Path, PathRule, Policy, RefreshedBy};
use keepalive_auditor::judge::report::{Counts, Direction, Tally};
use keepalive_auditor::judge::verdict::Verdict;
use keepalive_auditor::owner::NsId;
use keepalive_auditor::socket::{Cookie, Endpoint};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::agent::Agent;
use crate::namespace::{NS, Namespace, SERVER};
use crate::simulated_kernel::{Action, Options};
use crate::{INTERVAL, action, in_time, lookup_cost, options, policy};

/// Where one end of a connection is: the namespace, and the position in it.
type Place = (usize, usize);

/// What a connection is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// To another machine.
    Plain(Option<Options>),
    /// Likewise, over a path that counts only payload.
    Payload(Option<Options>),
    /// Likewise, with a heartbeat every so many milliseconds.
    Beating(u64, Option<Options>),
    /// Likewise, over a path with a middlebox that reads HTTP/2: it counts no heartbeat of these.
    Pinging(u64, Option<Options>),
    /// Between the two namespaces of this node.
    Pair(Option<Options>, Option<Options>),
    /// Likewise, with such a middlebox between them and a heartbeat every so many milliseconds.
    PingingPair(u64),
}

/// What happens to one connection between two sweeps.
#[derive(Clone, Debug)]
pub struct Happens(pub usize, pub Action);

/// The node.
pub struct Node {
    pub namespaces: [Namespace; 2],
    /// Connections in the order in which they were opened: one end, or two.
    connections: Vec<(Place, Option<Place>)>,
    /// Heartbeats, by place: the time between two.
    beats: BTreeMap<Place, u64>,
}

impl Node {
    pub fn new(kinds: &[Kind]) -> Self {
        let namespaces = [Namespace::empty(NS), Namespace::empty(NsId(NS.0 + 1))];
        let mut node = Self { namespaces, connections: Vec::new(), beats: BTreeMap::new() };
        for (number, kind) in (0..).zip(kinds) {
            let ours = Endpoint::new(Ipv4Addr::new(10, 0, 0, 1).into(), 40_000 + number);
            let theirs = Endpoint::new(Ipv4Addr::new(10, 0, 0, 2).into(), 40_000 + number);
            match kind {
                Kind::Plain(options) => {
                    let one = node.connect(0, *options, [ours, Endpoint::new(SERVER.into(), 443)]);
                    node.connections.push((one, None));
                }
                Kind::Payload(options) => {
                    let one = node.connect(0, *options, [ours, Endpoint::new(SERVER.into(), PAYLOAD_PORT)]);
                    node.connections.push((one, None));
                }
                Kind::Beating(period, options) => {
                    let one = node.connect(0, *options, [ours, Endpoint::new(SERVER.into(), 443)]);
                    node.beats.insert(one, *period);
                    node.connections.push((one, None));
                }
                Kind::Pinging(period, options) => {
                    let one = node.connect(0, *options, [ours, Endpoint::new(SERVER.into(), HTTP2_PORT)]);
                    node.beats.insert(one, *period);
                    node.connections.push((one, None));
                }
                Kind::PingingPair(period) => {
                    let theirs = Endpoint::new(theirs.addr, HTTP2_PORT);
                    let one = node.connect(0, None, [ours, theirs]);
                    let other = node.accept(1, None, [theirs, ours]);
                    node.beats.extend([(one, *period), (other, *period)]);
                    node.connections.push((one, Some(other)));
                }
                Kind::Pair(near, far) => {
                    let one = node.connect(0, *near, [ours, theirs]);
                    let other = node.accept(1, *far, [theirs, ours]);
                    node.connections.push((one, Some(other)));
                }
            }
        }
        node
    }

    /// For how many milliseconds a connection has had no segment.
    pub fn idle(&self, cookie: Cookie) -> u64 {
        let mut all = self.namespaces.iter().flat_map(|namespace| &namespace.open);
        let (_, connection) = all.find(|(one, _)| *one == cookie).expect("it is open");
        connection.now - connection.last_segment
    }

    /// The number of probes that the peer of a connection has not answered.
    pub fn unanswered(&self, cookie: Cookie) -> u8 {
        let mut all = self.namespaces.iter().flat_map(Namespace::sockets);
        all.find(|socket| socket.cookie == cookie).and_then(|socket| socket.tcp.probes).unwrap_or_default()
    }

    /// Whether a connection has heartbeats.
    pub fn beats(&self, cookie: Cookie) -> bool {
        self.beats.keys().any(|&(namespace, at)| self.namespaces[namespace].open[at].0 == cookie)
    }

    fn connect(&mut self, namespace: usize, options: Option<Options>, ends: [Endpoint; 2]) -> Place {
        self.namespaces[namespace].connect(options, ends);
        (namespace, self.namespaces[namespace].open.len() - 1)
    }

    fn accept(&mut self, namespace: usize, options: Option<Options>, ends: [Endpoint; 2]) -> Place {
        self.namespaces[namespace].accept(options, ends);
        (namespace, self.namespaces[namespace].open.len() - 1)
    }

    pub fn pass(&mut self, pause: u64, happens: &[Happens]) {
        let mut actions: [BTreeMap<usize, Vec<Action>>; 2] = Default::default();
        let mut act = |(namespace, at): Place, action| actions[namespace].entry(at).or_default().push(action);
        for Happens(number, action) in happens {
            let (one, other) = self.connections[number % self.connections.len()];
            let at_the_peer = match *action {
                // the peer's own timer probes
                Action::Probed(_) if other.is_some() => continue,
                Action::Sends(at) => Action::Receives(at),
                Action::Receives(at) => Action::Sends(at),
                action => action,
            };
            act(one, *action);
            if let Some(other) = other {
                act(other, at_the_peer);
            }
        }
        let start = self.namespaces[0].now;
        for (&place, &period) in &self.beats {
            let first = period - start % period;
            (first..=pause)
                .step_by(usize::try_from(period).expect("a short time"))
                .for_each(|at| act(place, Action::Beats(at)));
        }
        let probes = |node: &Self, (namespace, at): Place| node.namespaces[namespace].open[at].1.counters()[2];
        let pairs: Vec<(Place, Place)> =
            self.connections.iter().filter_map(|&(one, other)| other.map(|other| (one, other))).collect();
        let before: Vec<_> = pairs.iter().map(|&(one, other)| [probes(self, one), probes(self, other)]).collect();
        for (namespace, actions) in self.namespaces.iter_mut().zip(&actions) {
            namespace.run(pause, actions);
        }
        for ((one, other), before) in pairs.into_iter().zip(before) {
            for (from, to, before) in [(one, other, before[0]), (other, one, before[1])] {
                let sent = u32::try_from(probes(self, from) - before).expect("few probes");
                self.namespaces[to.0].open[to.1].1.count_peer_probes(sent);
            }
        }
    }
}

const PAYLOAD_PORT: u16 = 8443;
const HTTP2_PORT: u16 = 9443;
/// Shorter than some KEEPINTVL of these scenes.
const SHORT: Duration = Duration::from_mins(1);

/// The default path, one that counts only payload, and one of a middlebox that reads HTTP/2.
pub fn three_paths(limit_of_payload: Duration) -> Policy {
    let path = Path {
        name: "proxy".to_owned(),
        idle_timeout: limit_of_payload,
        refreshed_by: RefreshedBy::Payload,
        ..Path::default()
    };
    let reads_http2 = Path { name: "gateway".to_owned(), reads_http2: true, ..path.clone() };
    let rule = |port, path| PathRule { cidrs: Vec::new(), ports: vec![port..=port], path: Arc::new(path) };
    let rules = vec![rule(PAYLOAD_PORT, path), rule(HTTP2_PORT, reads_http2)];
    Policy { rules, local_scope: LocalScope::Namespace, ..policy() }
}

pub fn kind() -> impl Strategy<Value = Kind> {
    let near = prop::option::of(in_time());
    let beating = (1..30_u64, prop::option::of(options()));
    let pinging = (1..90_u64, prop::option::of(options()));
    prop_oneof![
        3 => prop::option::of(options()).prop_map(Kind::Plain),
        1 => prop::option::of(options()).prop_map(Kind::Payload),
        1 => beating.prop_map(|(period, options)| Kind::Beating(period * 1000, options)),
        1 => pinging.prop_map(|(period, options)| Kind::Pinging(period * 1000, options)),
        1 => (1..90_u64).prop_map(|period| Kind::PingingPair(period * 1000)),
        2 => (near, prop::option::of(in_time())).prop_map(|(near, far)| Kind::Pair(near, far)),
    ]
}

/// Sweeps with what happens before each, mostly nothing.
fn some_time(most: usize) -> impl Strategy<Value = Vec<(u64, Vec<Happens>)>> {
    let happens = (any::<usize>(), action()).prop_map(|(number, action)| Happens(number, action));
    let happens = prop_oneof![6 => Just(Vec::new()), 1 => vec(happens, 1..3)];
    vec((INTERVAL - 2_000..INTERVAL + 2_000, happens), 1..most)
}

/// A connection is idle for some time, its peer vanishes, and it sends; then some minutes.
pub fn hang() -> impl Strategy<Value = Vec<(u64, Vec<Happens>)>> {
    (1..35_usize, any::<usize>(), 0..INTERVAL, any::<bool>(), 4..12_usize).prop_map(
        |(idle, number, at, sends, after)| {
            let mut last = vec![Happens(number, Action::Vanishes(at))];
            last.extend(sends.then_some(Happens(number, Action::Sends(at))));
            let quiet = |times| std::iter::repeat_n((INTERVAL, Vec::new()), times);
            quiet(idle).chain([(INTERVAL, last)]).chain(quiet(after)).collect()
        },
    )
}

/// What was counted, without the longest idle time: a skipping agent takes that of a connection that probes from the
/// last read.
fn counted(counts: &Counts) -> BTreeMap<Direction, Tally> {
    let without = |tally: &Tally| Tally { flagged_wire_idle_max: None, ..tally.clone() };
    counts.tallies.iter().map(|((_, direction), tally)| (*direction, without(tally))).collect()
}

#[test]
fn every_verdict_is_found_in_the_sweep_that_a_dump_would_find_it_in() {
    let scene = (vec(kind(), 1..6), some_time(40), prop::option::of(hang()), some_time(20), lookup_cost());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let seen = Cell::new([0_u64; Verdict::COUNT]);
    let skipped = Cell::new(0);
    let ran = TestRunner::new(config).run(&scene, |(kinds, before, hang, after, lookup_cost)| {
        let mut node = Node::new(&kinds);
        let mut thorough = Agent::thorough().with(three_paths(SHORT));
        let mut skipping = Agent::skipping(lookup_cost).with(three_paths(SHORT));
        for (at, (pause, happens)) in before.iter().chain(hang.iter().flatten()).chain(&after).enumerate() {
            node.pass(*pause, happens);
            let (truth, report) = (thorough.sweep_all(&node.namespaces), skipping.sweep_all(&node.namespaces));
            prop_assert_eq!(counted(&truth), counted(&report), "sweep {}", at);
            prop_assert_eq!(truth.verdicts, report.verdicts);
            let sums = seen.get();
            seen.set(std::array::from_fn(|verdict| sums[verdict] + truth.verdicts[verdict]));
        }
        skipped.set(skipped.get() + skipping.skipped);
        prop_assert_eq!(thorough.idle_times, skipping.idle_times);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    let never: Vec<_> = Verdict::ALL.into_iter().filter(|&verdict| seen.get()[verdict as usize] == 0).collect();
    // the kernel shows no timer that hides another in the first sweep of a connection, and the ends are far apart
    assert!(never.iter().all(|verdict| matches!(verdict, Verdict::Undetermined | Verdict::Local)), "{never:?}");
    assert!(skipped.get() > 0, "nothing was skipped");
}

/// A sweep of a busy machine may judge long after it has read.
#[test]
fn a_slow_sweep_judges_connections_as_they_were_when_it_read_them() {
    let scene = (vec(kind(), 1..6), some_time(40), prop::option::of(hang()), some_time(20), lookup_cost());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let ran = TestRunner::new(config).run(&scene, |(kinds, before, hang, after, lookup_cost)| {
        let mut node = Node::new(&kinds);
        let mut fast = Agent::skipping(lookup_cost).with(three_paths(SHORT));
        let mut slow = Agent::skipping(lookup_cost).with(three_paths(SHORT));
        slow.late = 12_000;
        for (at, (pause, happens)) in before.iter().chain(hang.iter().flatten()).chain(&after).enumerate() {
            node.pass(*pause, happens);
            let (truth, seen) = (fast.verdicts(&node.namespaces), slow.verdicts(&node.namespaces));
            prop_assert_eq!(truth, seen, "sweep {}", at);
        }
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

/// PINGs every 7 s protect from a middlebox that counts segments or bytes, and not from one that reads HTTP/2.
#[test]
fn pings_alone_make_a_connection_overdue_where_a_middlebox_reads_http2() {
    let seconds = |at: u64| at / 1000;
    let kinds = [(Kind::Beating(7_000, None), 1), (Kind::Pinging(7_000, None), 1), (Kind::PingingPair(7_000), 2)];
    let limit = 60;
    for (kind, rows) in &kinds {
        let mut node = Node::new(std::slice::from_ref(kind));
        let mut agent = Agent::skipping(Duration::ZERO).with(three_paths(SHORT));
        let is_beating = matches!(kind, Kind::Beating(..));
        let mut last_call = node.namespaces[0].now;
        for sweep in 0..120 {
            // a call in the middle refreshes every path
            let calls = [Happens(0, Action::Sends(0)), Happens(0, Action::Receives(1))];
            if sweep == 60 {
                last_call = node.namespaces[0].now;
            }
            node.pass(INTERVAL, if sweep == 60 { &calls } else { &[] });
            let counts = agent.sweep_all(&node.namespaces);
            let of = |verdict: Verdict| counts.verdicts[verdict as usize];
            let since_call = seconds(node.namespaces[0].now - last_call);
            if is_beating {
                assert_eq!(of(Verdict::Overdue), 0, "{kind:?}, sweep {sweep}");
                assert!(sweep < 40 || of(Verdict::AppProtected) == *rows, "{kind:?}, sweep {sweep}");
                continue;
            }
            assert_eq!(of(Verdict::AppProtected), 0, "{kind:?}, sweep {sweep}");
            if since_call < limit {
                assert_eq!(of(Verdict::Overdue), 0, "{kind:?}, {since_call} s after a call");
            } else if sweep > 21 && since_call > limit + 17 {
                assert_eq!(of(Verdict::Overdue), *rows, "{kind:?}, {since_call} s after a call: {:?}", counts.verdicts);
            }
        }
    }
}

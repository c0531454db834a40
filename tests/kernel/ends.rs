//! How flagged connections end: counted by what really happened, with and without `--watch-ends`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::hosts::{Case, Hosts, RULES, exchange_all};
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::metrics::Page;
use crate::support::netns::{Netns, addresses, join, v4};
use crate::support::socket::{Keepalive, Server};
use crate::support::{kernel_test, rtnetlink};

const TIMEOUT: Duration = Duration::from_secs(40);

fn agent(more: &[&str]) -> Agent {
    Agent::start(&[&RULES[..], &["--interval", "250ms"], more].concat())
}

/// Flagged connections that have ended, by direction and outcome.
fn ended(agent: &Agent) -> BTreeMap<Vec<String>, f64> {
    let page = Page::read(&agent.page("/metrics"));
    let mut ended = page.sum("keepalive_auditor_flagged_connections_ended_total", &["direction", "outcome"]);
    ended.retain(|_, count| *count > 0.0);
    ended
}

fn counts<const N: usize>(expected: [(&str, &str, f64); N]) -> BTreeMap<Vec<String>, f64> {
    expected.map(|(direction, outcome, count)| (vec![direction.to_owned(), outcome.to_owned()], count)).into()
}

/// Waits until the agent has counted this many ends.
fn wait_for_ends(agent: &Agent, count: f64) -> BTreeMap<Vec<String>, f64> {
    let end = Instant::now() + TIMEOUT;
    loop {
        let ended = ended(agent);
        if ended.values().sum::<f64>() >= count || Instant::now() > end {
            return ended;
        }
        sleep(Duration::from_millis(100));
    }
}

/// Waits until every connection is flagged, and two sweeps more: from then on its end is watched.
fn wait_until_flagged(agent: &Agent, cases: &[Case]) {
    let flagged = |verdict: &str| ["exposed", "overdue", "unanswered", "blackholed"].contains(&verdict);
    let found = agent.wait(TIMEOUT, |report| {
        cases.iter().all(|case| report.row(case.near.id).is_some_and(|row| flagged(&row.verdict)))
    });
    assert!(found.is_ok(), "not flagged: {found:?}");
    wait_for_sweeps(agent, 2.0);
}

fn wait_for_sweeps(agent: &Agent, count: f64) {
    let sweeps = || Page::read(&agent.page("/metrics")).sum("keepalive_auditor_sweeps_total", &[])[&vec![]];
    let (from, end) = (sweeps(), Instant::now() + TIMEOUT);
    while sweeps() < from + count {
        assert!(Instant::now() < end, "no sweeps");
        sleep(Duration::from_millis(50));
    }
}

/// The router's answer to what it has no state for.
fn filter(hosts: &Hosts, verdict: &str) {
    let rules = format!(
        "add table inet path; add chain inet path in {{ type filter hook input priority 0; }}; \
         add rule inet path in meta l4proto tcp {verdict}"
    );
    hosts.far.run("nft", &[&rules]);
}

fn unfilter(hosts: &Hosts) {
    hosts.far.run("nft", &["delete table inet path"]);
}

fn reset_on_close(stream: &std::net::TcpStream) {
    sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("the option is taken");
}

fn write_all(cases: &mut [Case]) {
    for case in cases {
        case.near.stream.write_all(b"!").expect("the kernel takes it");
    }
}

/// Ends four connections (two outbound, two inbound) in one way, and closes both ends afterwards.
fn end(mut cases: Vec<Case>, how: impl Fn(&mut Case)) {
    cases.iter_mut().for_each(how);
}

kernel_test!(
    watched_ends_are_counted_by_what_happened,
    || {
        let hosts = Hosts::new();
        let agent = agent(&["--watch-ends"]);
        let mut checks = Checks::default();
        let mut sum = 0.0;
        let mut expected = BTreeMap::new();
        let mut step = |name: &str, outcome: &str, cases: Vec<Case>, how: &dyn Fn(Vec<Case>)| {
            wait_until_flagged(&agent, &cases);
            how(cases);
            sum += 4.0;
            for direction in ["inbound", "outbound"] {
                *expected.entry(vec![direction.to_owned(), outcome.to_owned()]).or_insert(0.0) += 2.0;
            }
            checks.equal(name, wait_for_ends(&agent, sum), expected.clone());
        };
        let four = || {
            let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
            exchange_all(&mut cases);
            cases
        };
        step("closed here", "closed", four(), &drop_near_first);
        step("closed by the peer", "closed", four(), &|cases| {
            end(cases, |case| {
                case.far.stream.shutdown(Shutdown::Both).expect("it shuts down");
                assert_eq!(case.near.stream.read(&mut [0]).expect("it is closed"), 0);
            });
        });
        step("aborted here", "closed", four(), &|cases| {
            for case in &cases {
                reset_on_close(&case.near.stream);
            }
            drop_near_first(cases);
        });
        step("reset by the peer", "reset", four(), &|cases| {
            for Case { far, mut near, .. } in cases {
                reset_on_close(&far.stream);
                drop(far);
                near.stream.read(&mut [0]).expect_err("it is reset");
            }
        });
        step("reset by the path", "reset", four(), &|cases| {
            filter(&hosts, "reject with tcp reset");
            end(cases, |case| {
                case.near.stream.write_all(b"!").expect("the kernel takes it");
                case.near.stream.read(&mut [0]).expect_err("it is reset");
            });
            unfilter(&hosts);
        });
        // a program that looks away holds a socket that has ended
        step("reset while nobody reads", "reset", four(), &|cases| {
            filter(&hosts, "reject with tcp reset");
            let mut cases = cases;
            write_all(&mut cases);
            wait_for_sweeps(&agent, 4.0);
            drop(cases);
            unfilter(&hosts);
        });
        step("TCP_USER_TIMEOUT", "timed_out", four(), &|cases| {
            filter(&hosts, "drop");
            for case in &cases {
                sockopt::set_tcp_user_timeout(&case.near.stream, 1000).expect("the option is taken");
            }
            end(cases, |case| {
                case.near.stream.write_all(b"!").expect("the kernel takes it");
                case.near.stream.read(&mut [0]).expect_err("it times out");
            });
            unfilter(&hosts);
        });
        step("retransmissions", "timed_out", four(), &|cases| {
            hosts.near.sysctl("net.ipv4.tcp_retries2", "2");
            filter(&hosts, "drop");
            let mut cases = cases;
            write_all(&mut cases);
            end(cases, |case| {
                case.near.stream.read(&mut [0]).expect_err("it times out");
            });
            unfilter(&hosts);
            hosts.near.sysctl("net.ipv4.tcp_retries2", "15");
        });
        let late = || {
            let mut cases = hosts.four(Keepalive::Idle(6), Keepalive::Off);
            exchange_all(&mut cases);
            cases
        };
        step("keepalive", "timed_out", late(), &|cases| {
            for case in &cases {
                sockopt::set_tcp_keepintvl(&case.near.stream, Duration::from_secs(1)).expect("the option is taken");
                sockopt::set_tcp_keepcnt(&case.near.stream, 2).expect("the option is taken");
            }
            filter(&hosts, "drop");
            end(cases, |case| {
                case.near.stream.read(&mut [0]).expect_err("it times out");
            });
            unfilter(&hosts);
        });
        checks.finish();
    },
    needs "nft"
);

fn drop_near_first(cases: Vec<Case>) {
    for Case { near, mut far, .. } in cases {
        drop(near);
        // an FIN or an RST
        assert_ne!(far.stream.read(&mut [0]).ok(), Some(1));
    }
}

kernel_test!(
    without_a_watch_the_counters_decide_and_what_they_leave_open_is_unknown,
    || {
        let hosts = Hosts::new();
        let agent = agent(&[]);
        let mut checks = Checks::default();
        let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
        exchange_all(&mut cases);
        wait_until_flagged(&agent, &cases);
        drop_near_first(cases);
        let closed = counts([("inbound", "closed", 2.0), ("outbound", "closed", 2.0)]);
        checks.equal("closed", wait_for_ends(&agent, 4.0), closed);

        let mut cases = hosts.four(Keepalive::Off, Keepalive::Off);
        exchange_all(&mut cases);
        wait_until_flagged(&agent, &cases);
        filter(&hosts, "reject with tcp reset");
        write_all(&mut cases);
        // no sweep need come between the four: each is proven, or unknown, and never something else
        let ended = wait_for_ends(&agent, 8.0);
        let wrong: Vec<_> = ended.keys().filter(|key| key[1] == "timed_out").collect();
        checks.that(wrong.is_empty() && ended.values().sum::<f64>() >= 8.0, || format!("{ended:?}"));
        checks.that(ended.iter().any(|(key, _)| key[1] == "reset"), || format!("{ended:?}"));
        unfilter(&hosts);
        checks.finish();
    },
    needs "nft"
);

kernel_test!(a_namespace_that_is_deleted_while_its_ends_are_watched_is_freed_at_once, || {
    let (near, far) = (Netns::named("near"), Netns::unlisted("far"));
    join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
    let server = Server::dual(&far, 8080);
    let connection = server.connect(&near, v4(1, 2), [Keepalive::Off; 2]);
    // the next sweep comes too late to free it
    let agent = Agent::start(&[&RULES[..], &["--interval", "5s", "--watch-ends"]].concat());
    let found =
        agent.wait(TIMEOUT, |report| report.row(connection.client.id).is_some_and(|row| row.verdict == "overdue"));
    assert!(found.is_ok(), "{found:?}");
    wait_for_sweeps(&agent, 2.0);
    assert_eq!((watches(&near), watches(&far)), (1, 0));
    let link = || far.enter(|| Path::new("/sys/class/net/veth0").exists() || rtnetlink::set_link_up("veth0").is_ok());
    assert!(link(), "the link is there");
    drop((connection, server));
    near.delete();
    let start = Instant::now();
    while link() {
        assert!(start.elapsed() < Duration::from_millis(1500), "the namespace is still there");
        sleep(Duration::from_millis(10));
    }
});

/// The sockets of this namespace that receive destroy events of both families.
fn watches(netns: &Netns) -> usize {
    let sockets = netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink")).expect("it can be read");
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // protocol 4 is sock_diag; groups 1 and 3
    fields.filter(|fields| fields.get(1) == Some(&"4") && fields.get(3) == Some(&"00000005")).count()
}

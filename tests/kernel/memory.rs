//! Facts that only a watching agent can know: which end keeps a connection alive, and since when neither does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::hosts::{Case, Hosts, INTERVAL, KEPT, LATE, LIMIT, RULES, agent, exchange_all};
use crate::support::binary::{Agent, Report, audit};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::metrics::{Page, Sample};
use crate::support::recording::Recording;
use crate::support::socket::Keepalive;
use crate::support::timeline::{SLACK, SocketTimeline, check_all, record_for, record_until_expected};

kernel_test!(the_end_that_keeps_a_connection_alive_is_found_in_either_role, || {
    let hosts = Hosts::new();
    // The near end, the far end, and the judgement of the near end when the test ends.
    let combinations = [
        (KEPT, Keepalive::Off, "on", "protected"),
        (KEPT, KEPT, "on", "protected"),
        (Keepalive::Off, KEPT, "off", "peer_protected"),
        (Keepalive::Default, KEPT, "late", "peer_protected"),
        (LATE, KEPT, "late", "peer_protected"),
        (Keepalive::Off, Keepalive::Off, "off", "overdue"),
        (Keepalive::Default, Keepalive::Off, "late", "overdue"),
        (LATE, LATE, "late", "overdue"),
        // The peer's probes come too late for the path.
        (Keepalive::Off, LATE, "off", "overdue"),
    ];
    let mut cases = Vec::new();
    for (near, far, keepalive, verdict) in combinations {
        for mut case in hosts.four(near, far) {
            case.exchange();
            cases.push((case, keepalive, verdict));
        }
    }
    let idle_since = Instant::now();
    let agent = agent();
    let ready = Instant::now();
    let recording = Recording::start("who-keeps-it-alive", Some("6s"), &RULES);
    let mut subjects: Vec<_> = cases
        .iter()
        .map(|(case, keepalive, verdict)| {
            let subject = SocketTimeline::new(&case.name, &case.near, keepalive, verdict);
            if *verdict == "overdue" { subject } else { subject.never(&["overdue", "blackholed", "undetermined"]) }
        })
        .collect();
    record_for(&agent, &mut subjects, LIMIT + Duration::from_secs(3), || ());
    record_until_expected(&agent, &mut subjects, || ());

    let mut checks = Checks::default();
    for (subject, (case, _, verdict)) in subjects.iter().zip(&cases) {
        subject.check(&mut checks, idle_since);
        let Some(row) = subject.last() else { continue };
        // If both ends probe, they do so in the same moment. The answer to our probe then hides the peer's probe unless
        // a sweep falls between the two. So the report may show either.
        if !case.name.starts_with("Idle(1)–Idle(1)") {
            let peer = *verdict == "peer_protected";
            checks.equal(&format!("{}: the peer's probes", case.name), row.peer.probes_seen, peer);
        }
        checks.that(!row.peer.on_node, || format!("{}: a peer that no sweep sees is not on this node", case.name));
        let idle = row.wire_idle_seconds.unwrap_or(-1.0);
        let fresh = idle < LIMIT.as_secs_f64();
        checks.that(fresh == (*verdict != "overdue"), || format!("{}: {idle} s idle and {verdict}", case.name));
        let data = row.data_idle_seconds.unwrap_or(-1.0);
        checks.that(data >= LIMIT.as_secs_f64(), || format!("{}: {data} s without data", case.name));
        if *verdict == "overdue" {
            // The agent was ready soon after it began to watch.
            let earliest = idle_since + LIMIT;
            subject.check_between(&mut checks, "overdue", earliest, ready + LIMIT + INTERVAL + SLACK);
        }
    }

    let watched = recording.finish();
    for (case, keepalive, verdict) in &cases {
        checks.end(&format!("--for: {}", case.name), &watched, &case.near, keepalive, verdict);
    }
    // One sweep cannot see the peer's probes in the clocks, and the report says so.
    let once = audit(&RULES);
    for (case, keepalive, verdict) in &cases {
        let judged = if *verdict == "protected" { verdict } else { &"overdue" };
        if let Some(row) = checks.end(&format!("one sweep: {}", case.name), &once, &case.near, keepalive, judged)
            && *judged == "overdue"
        {
            checks
                .that(row.why.contains("probe"), || format!("one sweep hides that it cannot see probes: {}", row.why));
        }
    }
    checks.finish();
});

kernel_test!(a_connection_is_overdue_only_after_the_agent_watched_its_idle_time, || {
    let hosts = Hosts::new();
    let mut cases: Vec<_> =
        [Keepalive::Off, LATE].into_iter().flat_map(|near| hosts.four(near, Keepalive::Off)).collect();
    exchange_all(&mut cases);
    // The idle timeout has passed before the agent starts.
    std::thread::sleep(LIMIT + Duration::from_millis(500));
    let start = Instant::now();
    let agent = agent();
    let ready = Instant::now();
    let mut subjects: Vec<_> = cases
        .iter()
        .map(|case| {
            let keepalive = if case.name.starts_with("Off") { "off" } else { "late" };
            SocketTimeline::new(&case.name, &case.near, keepalive, "overdue").never(&[
                "young",
                "protected",
                "peer_protected",
            ])
        })
        .collect();
    let mut checks = Checks::default();
    let first = agent.report();
    for case in &cases {
        let row = first.row(case.near.id);
        let waits = row.is_some_and(|row| row.verdict == "exposed" && row.why.contains("watch"));
        checks.that(waits, || format!("{}: exposed, and says what the agent waits for: {row:?}", case.name));
    }
    record_until_expected(&agent, &mut subjects, || ());
    for subject in &subjects {
        subject.check(&mut checks, start);
        subject.check_between(&mut checks, "overdue", start + LIMIT, ready + LIMIT + INTERVAL + SLACK);
    }
    checks.finish();
});

kernel_test!(traffic_of_any_kind_keeps_a_path_fresh, || {
    let hosts = Hosts::new();
    let mut cases: Vec<_> =
        [Keepalive::Off, LATE].into_iter().flat_map(|near| hosts.four(near, Keepalive::Off)).collect();
    exchange_all(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let mut subjects: Vec<_> = cases
        .iter()
        .map(|case| {
            let keepalive = if case.name.starts_with("Off") { "off" } else { "late" };
            SocketTimeline::new(&case.name, &case.near, keepalive, "exposed").never(&[
                "overdue",
                "undetermined",
                "blackholed",
            ])
        })
        .collect();
    // Traffic every two seconds: sent, received, or both. It ends well before the last report.
    let mut turns = 0_u32;
    record_for(&agent, &mut subjects, LIMIT * 3, || {
        if turns < 5 && start.elapsed() > Duration::from_secs(2) * (turns + 1) {
            turns += 1;
            for (at, case) in cases.iter_mut().enumerate() {
                match at % 3 {
                    0 => case.send(),
                    1 => case.receive(),
                    _ => {
                        case.send();
                        case.receive();
                    }
                }
            }
        }
    });
    let mut checks = Checks::default();
    check_all(&subjects, &mut checks, start);
    for (at, (subject, case)) in subjects.iter().zip(&cases).enumerate() {
        let Some(row) = subject.last() else { continue };
        // The near end sent last and received nothing since.
        checks.equal(&format!("{} waits for a reply", case.name), row.waiting_for_reply, at % 3 == 0);
        checks.that(row.wire_idle_seconds < Some(4.0), || format!("{}: {row:?}", case.name));
    }
    checks.finish();
});

kernel_test!(an_idle_time_that_ends_is_counted_by_its_length, || {
    const COUNT: &str = "keepalive_auditor_silence_seconds_count";
    let hosts = Hosts::new();
    // Connections that will have traffic again, connections that will close, and connections that are never idle for
    // long.
    let (mut talking, mut closing, mut busy) = (
        hosts.four(Keepalive::Off, Keepalive::Off),
        hosts.four(LATE, Keepalive::Off),
        hosts.four(Keepalive::Default, Keepalive::Off),
    );
    let idle_since = Instant::now();
    exchange_all(&mut talking);
    exchange_all(&mut closing);
    let agent = Agent::start(&["--local-scope", "namespace", "--long-lived", "1s", "--interval", "250ms"]);
    let counts = || Page::read(&agent.page("/metrics")).sum(COUNT, &["keepalive"]);
    // An idle time counts from 30 s on. So the test waits until a sweep has seen that much, and then ends it.
    let is_idle = |report: &Report| {
        let idle = |case: &Case| report.row(case.near.id).and_then(|row| row.wire_idle_seconds);
        talking.iter().chain(&closing).all(|case| idle(case) >= Some(30.5))
    };
    let mut talked = Instant::now();
    let enough = agent.wait(Duration::from_mins(1), |report| {
        if talked.elapsed() > Duration::from_secs(5) {
            exchange_all(&mut busy);
            talked = Instant::now();
        }
        is_idle(report)
    });
    enough.expect("30.5 s idle");
    let mut checks = Checks::default();
    checks.equal("before any ends", counts(), BTreeMap::new());

    exchange_all(&mut talking);
    drop(closing);
    let ended = BTreeMap::from([(vec!["off".to_owned()], 4.0), (vec!["on".to_owned()], 4.0)]);
    // The check below fails if the counts do not change.
    let _ = agent.wait(Duration::from_secs(30), |_| counts() == ended);
    let longest = idle_since.elapsed().as_secs_f64();
    checks.equal("idle times that ended, by keepalive", counts(), ended.clone());
    let page = Page::read(&agent.page("/metrics"));
    for keepalive in ["off", "on"] {
        let of = |name: &str, le: Option<&str>| {
            let wanted = |sample: &&Sample| {
                sample.labels["keepalive"] == keepalive && sample.labels.get("le").map(String::as_str) == le
            };
            page.of(&format!("keepalive_auditor_silence_seconds_{name}")).find(wanted).map(|sample| sample.value)
        };
        checks.equal(&format!("{keepalive}: up to 30 s"), of("bucket", Some("30")), Some(0.0));
        checks.equal(&format!("{keepalive}: up to 60 s"), of("bucket", Some("60")), Some(4.0));
        let mean = of("sum", None).unwrap_or_default() / 4.0;
        checks.that((30.5..=longest).contains(&mean), || format!("{keepalive}: {mean} s of {longest} s on average"));
    }
    // An idle time is not counted while it lasts, nor if it was shorter than 30 s.
    exchange_all(&mut busy);
    let ids: Vec<_> = busy.iter().map(|case| case.near.id).collect();
    drop(busy);
    let gone = |report: &Report| ids.iter().all(|id| report.row(*id).is_none());
    agent.wait(Duration::from_secs(30), gone).expect("closed connections are gone");
    checks.equal("short ones", counts(), ended);
    checks.finish();
});

//! What only an agent can know that watches: who keeps a connection alive, and since when nobody does.

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

kernel_test!(who_keeps_it_alive_is_seen_from_either_role, || {
    let hosts = Hosts::new();
    // This machine's end, the other's, and what is said in the end.
    let combinations = [
        (KEPT, Keepalive::Off, "on", "protected"),
        (KEPT, KEPT, "on", "protected"),
        (Keepalive::Off, KEPT, "off", "peer_protected"),
        (Keepalive::Default, KEPT, "late", "peer_protected"),
        (LATE, KEPT, "late", "peer_protected"),
        (Keepalive::Off, Keepalive::Off, "off", "overdue"),
        (Keepalive::Default, Keepalive::Off, "late", "overdue"),
        (LATE, LATE, "late", "overdue"),
        // The other's probes come too late for the path.
        (Keepalive::Off, LATE, "off", "overdue"),
    ];
    let mut cases = Vec::new();
    for (near, far, keepalive, verdict) in combinations {
        for mut case in hosts.four(near, far) {
            case.exchange();
            cases.push((case, keepalive, verdict));
        }
    }
    let silent_since = Instant::now();
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
        subject.check(&mut checks, silent_since);
        let Some(row) = subject.last() else { continue };
        // Where both ends keep alive they probe in the same moment, and an answer to ours hides the other's probe
        // unless a sweep falls between the two: it may be either.
        if !case.name.starts_with("Idle(1)–Idle(1)") {
            let peer = *verdict == "peer_protected";
            checks.equal(&format!("{}: the other's probes", case.name), row.peer.probes_seen, peer);
        }
        checks.that(!row.peer.on_node, || format!("{}: an end that nobody sees is on no node", case.name));
        let idle = row.wire_idle_seconds.unwrap_or(-1.0);
        let fresh = idle < LIMIT.as_secs_f64();
        checks.that(fresh == (*verdict != "overdue"), || format!("{}: {idle} s of silence and {verdict}", case.name));
        let data = row.data_idle_seconds.unwrap_or(-1.0);
        checks.that(data >= LIMIT.as_secs_f64(), || format!("{}: {data} s without data", case.name));
        if *verdict == "overdue" {
            // The agent was ready after it began to watch, and not long after.
            let earliest = silent_since + LIMIT;
            subject.check_between(&mut checks, "overdue", earliest, ready + LIMIT + INTERVAL + SLACK);
        }
    }

    let watched = recording.finish();
    for (case, keepalive, verdict) in &cases {
        checks.end(&format!("--for: {}", case.name), &watched, &case.near, keepalive, verdict);
    }
    // One sweep cannot see the peer's probes in the clocks, and says so.
    let glance = audit(&RULES);
    for (case, keepalive, verdict) in &cases {
        let judged = if *verdict == "protected" { verdict } else { &"overdue" };
        if let Some(row) = checks.end(&format!("one look: {}", case.name), &glance, &case.near, keepalive, judged)
            && *judged == "overdue"
        {
            checks.that(row.why.contains("probe"), || format!("one look does not say what it missed: {}", row.why));
        }
    }
    checks.finish();
});

kernel_test!(nothing_is_overdue_that_the_agent_has_not_itself_watched, || {
    let hosts = Hosts::new();
    let mut cases: Vec<_> =
        [Keepalive::Off, LATE].into_iter().flat_map(|near| hosts.four(near, Keepalive::Off)).collect();
    exchange_all(&mut cases);
    // The silence is complete before the agent starts.
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
        checks.that(waits, || format!("{}: exposed, and says what is waited for: {row:?}", case.name));
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
    // Every two seconds, one way, the other, and both: we ask and are answered. The last time long enough before the
    // last look.
    let mut turns = 0_u32;
    record_for(&agent, &mut subjects, LIMIT * 3, || {
        if turns < 5 && start.elapsed() > Duration::from_secs(2) * (turns + 1) {
            turns += 1;
            for (at, case) in cases.iter_mut().enumerate() {
                match at % 3 {
                    0 => case.say(),
                    1 => case.hear(),
                    _ => {
                        case.say();
                        case.hear();
                    }
                }
            }
        }
    });
    let mut checks = Checks::default();
    check_all(&subjects, &mut checks, start);
    for (at, (subject, case)) in subjects.iter().zip(&cases).enumerate() {
        let Some(row) = subject.last() else { continue };
        // We sent last and nothing came back.
        checks.equal(&format!("{} waits for a reply", case.name), row.waiting_for_reply, at % 3 == 0);
        checks.that(row.wire_idle_seconds < Some(4.0), || format!("{}: {row:?}", case.name));
    }
    checks.finish();
});

kernel_test!(a_silence_that_ends_is_counted_by_its_length, || {
    const COUNT: &str = "keepalive_auditor_silence_seconds_count";
    let hosts = Hosts::new();
    // Those that will talk again, those that will close, and those that were never silent for long.
    let (mut talking, mut closing, mut busy) = (
        hosts.four(Keepalive::Off, Keepalive::Off),
        hosts.four(LATE, Keepalive::Off),
        hosts.four(Keepalive::Default, Keepalive::Off),
    );
    let silent_since = Instant::now();
    exchange_all(&mut talking);
    exchange_all(&mut closing);
    let agent = Agent::start(&["--local-scope", "namespace", "--long-lived", "1s", "--interval", "250ms"]);
    let counts = || Page::read(&agent.page("/metrics")).sum(COUNT, &["keepalive"]);
    // A silence counts from 30 s on, as far as the sweeps could see: what ends it waits until one has seen that much.
    let silent = |report: &Report| {
        let idle = |case: &Case| report.row(case.near.id).and_then(|row| row.wire_idle_seconds);
        talking.iter().chain(&closing).all(|case| idle(case) >= Some(30.5))
    };
    let mut talked = Instant::now();
    let enough = agent.wait(Duration::from_mins(1), |report| {
        if talked.elapsed() > Duration::from_secs(5) {
            exchange_all(&mut busy);
            talked = Instant::now();
        }
        silent(report)
    });
    enough.expect("30.5 s of silence");
    let mut checks = Checks::default();
    checks.equal("before any ends", counts(), BTreeMap::new());

    exchange_all(&mut talking);
    drop(closing);
    let ended = BTreeMap::from([(vec!["off".to_owned()], 4.0), (vec!["on".to_owned()], 4.0)]);
    // The check below fails if it does not come.
    let _ = agent.wait(Duration::from_secs(30), |_| counts() == ended);
    let longest = silent_since.elapsed().as_secs_f64();
    checks.equal("silences that ended, by keepalive", counts(), ended.clone());
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
        checks.that((30.5..=longest).contains(&mean), || format!("{keepalive}: {mean} s of {longest} s in the mean"));
    }
    // A silence that goes on or begins again is not counted.
    exchange_all(&mut busy);
    let ids: Vec<_> = busy.iter().map(|case| case.near.id).collect();
    drop(busy);
    let gone = |report: &Report| ids.iter().all(|id| report.row(*id).is_none());
    agent.wait(Duration::from_secs(30), gone).expect("what has closed is gone");
    checks.equal("short ones", counts(), ended);
    checks.finish();
});

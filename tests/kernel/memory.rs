//! What only watching can tell: who keeps a connection alive, and since when nobody does.

use std::time::{Duration, Instant};

use crate::hosts::{Hosts, INTERVAL, KEPT, LATE, LIMIT, RULES, agent, talk};
use crate::support::binary::audit;
use crate::support::check::Checks;
use crate::support::kernel_test;
use crate::support::recording::Recording;
use crate::support::socket::Keep;
use crate::support::watch::{SLACK, Subject, check_all, watch};

kernel_test!(who_keeps_it_alive_is_seen_from_either_role, || {
    let hosts = Hosts::new();
    // This machine's end, the other's, and what is said in the end.
    let combinations = [
        (KEPT, Keep::Off, "on", "protected"),
        (KEPT, KEPT, "on", "protected"),
        (Keep::Off, KEPT, "off", "peer_protected"),
        (Keep::Default, KEPT, "late", "peer_protected"),
        (LATE, KEPT, "late", "peer_protected"),
        (Keep::Off, Keep::Off, "off", "overdue"),
        (Keep::Default, Keep::Off, "late", "overdue"),
        (LATE, LATE, "late", "overdue"),
        // The other's probes come too late for the path.
        (Keep::Off, LATE, "off", "overdue"),
    ];
    let mut cases = Vec::new();
    for (near, far, keepalive, verdict) in combinations {
        for mut case in hosts.four(near, far) {
            case.talk();
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
            let subject = Subject::new(&case.name, &case.near, keepalive, verdict);
            if *verdict == "overdue" { subject } else { subject.never(&["overdue", "blackholed", "undetermined"]) }
        })
        .collect();
    watch(&agent, &mut subjects, LIMIT + Duration::from_secs(3), || ());

    let mut checks = Checks::default();
    for (subject, (case, _, verdict)) in subjects.iter().zip(&cases) {
        subject.check(&mut checks, silent_since);
        let Some(row) = subject.last() else { continue };
        // Where both ends keep alive, whoever's timer fires first keeps the other from probing: it may be either.
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
    // One look by the clocks cannot see the other end's probes, and says so.
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
    let mut cases: Vec<_> = [Keep::Off, LATE].into_iter().flat_map(|near| hosts.four(near, Keep::Off)).collect();
    talk(&mut cases);
    // The silence is complete before the agent starts.
    std::thread::sleep(LIMIT + Duration::from_millis(500));
    let start = Instant::now();
    let agent = agent();
    let ready = Instant::now();
    let mut subjects: Vec<_> = cases
        .iter()
        .map(|case| {
            let keepalive = if case.name.starts_with("Off") { "off" } else { "late" };
            Subject::new(&case.name, &case.near, keepalive, "overdue").never(&["young", "protected", "peer_protected"])
        })
        .collect();
    let mut checks = Checks::default();
    let first = agent.report();
    for case in &cases {
        let row = first.row(case.near.id);
        let waits = row.is_some_and(|row| row.verdict == "exposed" && row.why.contains("watch"));
        checks.that(waits, || format!("{}: exposed, and says what is waited for: {row:?}", case.name));
    }
    watch(&agent, &mut subjects, LIMIT + Duration::from_secs(2), || ());
    for subject in &subjects {
        subject.check(&mut checks, start);
        subject.check_between(&mut checks, "overdue", start + LIMIT, ready + LIMIT + INTERVAL + SLACK);
    }
    checks.finish();
});

kernel_test!(traffic_of_any_kind_keeps_a_path_fresh, || {
    let hosts = Hosts::new();
    let mut cases: Vec<_> = [Keep::Off, LATE].into_iter().flat_map(|near| hosts.four(near, Keep::Off)).collect();
    talk(&mut cases);
    let start = Instant::now();
    let agent = agent();
    let mut subjects: Vec<_> = cases
        .iter()
        .map(|case| {
            let keepalive = if case.name.starts_with("Off") { "off" } else { "late" };
            Subject::new(&case.name, &case.near, keepalive, "exposed").never(&["overdue", "undetermined", "blackholed"])
        })
        .collect();
    // Every two seconds, one way, the other, and both, by turns.
    let mut turns = 0_u32;
    watch(&agent, &mut subjects, LIMIT * 3, || {
        if start.elapsed() > Duration::from_secs(2) * (turns + 1) {
            turns += 1;
            for (at, case) in cases.iter_mut().enumerate() {
                match at % 3 {
                    0 => case.say(),
                    1 => case.hear(),
                    _ => case.talk(),
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

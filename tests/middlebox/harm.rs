//! Harm in the scene: what the agents count of flagged connections that ended, and what really became of each socket.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crowd::Crowd;
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::socket::End;

const FLAGGED: [&str; 4] = ["exposed", "overdue", "blackholed", "unanswered"];
const TIMEOUT: Duration = Duration::from_mins(1);

/// Whether an agent sees this socket.
pub fn sees(which: &str, socket: &End) -> bool {
    match which {
        "inside" => socket.local().ip().to_string().starts_with("10.99.1."),
        "outside" => socket.local().ip().to_string().starts_with("10.99.2."),
        _ => true,
    }
}

/// Flagged connections that have ended, by outcome.
fn ended(agent: &Agent) -> BTreeMap<String, usize> {
    let page = agent.page("/api/v1/report?limit=0");
    let report: Value = serde_json::from_str(&page).expect("it is JSON");
    let counts = report["flagged_ended"].as_object().expect("an object").iter();
    let counts = counts.map(|(outcome, count)| (outcome.clone(), count.as_u64().expect("a count")));
    counts
        .filter(|(_, count)| *count > 0)
        .map(|(outcome, count)| (outcome, usize::try_from(count).expect("few")))
        .collect()
}

/// Closes every connection, and compares what each agent has counted with what happened: some sockets were reset
/// before, and the program closes the others. Connections with heartbeats may be flagged in their last sweep, or not.
pub fn compare<'a>(checks: &mut Checks, crowd: Crowd, agents: impl Iterator<Item = (&'a str, &'a Agent)>) {
    let mut expected = Vec::new();
    for (which, agent) in agents {
        let before = agent.report().sweep.started_at;
        let report = agent.wait(TIMEOUT, |report| report.sweep.started_at > before).expect("the agent goes on");
        let flagged = |socket: &End| report.row(socket.id).is_some_and(|row| FLAGGED.contains(&&*row.verdict));
        let (mut reset, mut closed, mut beating) = (0, 0, 0);
        for member in &crowd.0 {
            let has_heartbeats = member.kind.contains("PING");
            for socket in [&member.connection.client, &member.connection.server] {
                // a socket that was reset has no peer any more
                match socket.stream.peer_addr() {
                    _ if !sees(which, socket) => {}
                    Err(_) => reset += 1,
                    Ok(_) if has_heartbeats => beating += 1,
                    Ok(_) => closed += usize::from(flagged(socket)),
                }
            }
        }
        expected.push((which, agent, reset, closed, beating));
    }
    drop(crowd);
    for (which, agent, reset, closed, beating) in expected {
        let end = Instant::now() + TIMEOUT;
        while ended(agent).values().sum::<usize>() < reset + closed && Instant::now() < end {
            thread::sleep(Duration::from_millis(250));
        }
        let mut counted = ended(agent);
        println!("ended, by the agent that sees {which}: {counted:?}");
        checks.equal(&format!("reset, by the agent that sees {which}"), counted.remove("reset").unwrap_or(0), reset);
        let closed_counted = counted.remove("closed").unwrap_or(0);
        checks.that((closed..=closed + beating).contains(&closed_counted), || {
            format!("closed, by the agent that sees {which}: {closed_counted}, not {closed} to {}", closed + beating)
        });
        checks.that(counted.is_empty(), || format!("the agent that sees {which} says of others: {counted:?}"));
    }
}

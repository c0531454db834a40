//! Harm in the scene: what the agents count of flagged connections that ended, and what really became of each socket.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::support::binary::Agent;
use crate::support::checks::Checks;
use crate::support::metrics::Page;
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
fn ended(agent: &Agent) -> BTreeMap<String, f64> {
    let page = Page::read(&agent.page("/metrics"));
    let counts = page.sum("keepalive_auditor_node_flagged_connections_ended_total", &["outcome"]);
    counts.into_iter().filter(|(_, count)| *count > 0.0).map(|(labels, count)| (labels.concat(), count)).collect()
}

/// Closes every connection, and compares what each agent has counted with what happened: some sockets were reset
/// before, and the program closes the others.
pub fn compare<'a>(checks: &mut Checks, crowd: Crowd, agents: impl Iterator<Item = (&'a str, &'a Agent)>) {
    let mut expected = Vec::new();
    for (which, agent) in agents {
        let ends = crowd.0.iter().flat_map(|member| [&member.connection.client, &member.connection.server]);
        // a socket that was reset has no peer any more
        let is_reset = |socket: &End| socket.stream.peer_addr().is_err();
        let (reset, alive): (Vec<_>, Vec<_>) =
            ends.filter(|socket| sees(which, socket)).partition(|socket| is_reset(socket));
        let report = agent.report();
        let flagged = |socket: &&&End| report.row(socket.id).is_some_and(|row| FLAGGED.contains(&&*row.verdict));
        let closed = alive.iter().filter(flagged).count();
        expected.push((which, agent, reset.len(), closed));
    }
    drop(crowd);
    for (which, agent, reset, closed) in expected {
        let counts: [(&str, usize); 2] = [("closed", closed), ("reset", reset)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let wanted: BTreeMap<String, f64> = counts
            .map(|(outcome, count)| (outcome.to_owned(), f64::from(u16::try_from(count).expect("few"))))
            .collect();
        let end = Instant::now() + TIMEOUT;
        while ended(agent).values().sum::<f64>() < wanted.values().sum() && Instant::now() < end {
            thread::sleep(Duration::from_millis(250));
        }
        println!("ended, by the agent that sees {which}: {:?}", ended(agent));
        checks.equal(&format!("ends that the agent that sees {which} counted"), ended(agent), wanted);
    }
}

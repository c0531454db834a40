//! What `--explain` says of a group of connections: the cause, which is true of all of them, and what helps besides the
//! remedies.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::units::Human;
use crate::judge::cause::{Cause, SystemDefault, probes_after_seconds};
use crate::judge::report::{Finding, Millis, RefreshedBy};
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::OwnerKind;

/// The paragraph on the cause. `node` is the node's `tcp_keepalive_time` in seconds.
pub fn why(cause: Cause, findings: &[&Finding], node: Option<u32>) -> String {
    let Some(first) = findings.first() else { return String::new() };
    let (path, limit) = (&first.path.name, first.path.idle_timeout.as_secs_f64());
    let mut text = match cause {
        Cause::Unanswered => unanswered(findings),
        Cause::PayloadOnly => format!(
            "The path ({path}) counts only data: it drops a connection after {limit} s without data. TCP keepalive \
             does not help there."
        ),
        Cause::KeepaliveOff => format!(
            "Keepalive is off: the local side never probes, and the path ({path}) drops a connection that is idle for \
             {limit} s."
        ),
        _ => late(cause, findings, limit),
    };
    let idle = |finding: &&Finding| match finding.path.refreshed_by {
        RefreshedBy::Segment => finding.wire_idle,
        RefreshedBy::Payload => finding.data_idle,
    };
    let longest = |spans: &mut dyn Iterator<Item = Millis>| spans.max().map(|span| span.get() / 1000);
    if cause == Cause::Unanswered {
        // what was sent again and again was on the wire
        if let Some(seconds) = longest(&mut findings.iter().filter_map(|finding| finding.last_heard)) {
            put(&mut text, &format!(" Nothing was heard from the peer for up to {seconds} s."));
        }
    } else if let Some(seconds) = longest(&mut findings.iter().filter_map(idle)) {
        put(&mut text, &format!(" The longest idle time so far is {seconds} s."));
    }
    let waiting = findings.iter().filter(|finding| finding.waiting_for_reply).count();
    if waiting > 0 {
        put(&mut text, &format!(" {waiting} sent last and still wait for a reply."));
    }
    if matches!(cause, Cause::Unanswered | Cause::PayloadOnly) {
        return text;
    }
    if first.owner.kind == OwnerKind::Pod
        && let Some(own) = first.tcp_keepalive_time
    {
        match (first.keepalive, node.filter(|node| *node != own)) {
            (Keepalive::Off, _) => put(&mut text, " No sysctl helps a socket on which keepalive is off."),
            (_, Some(node)) => put(
                &mut text,
                &format!(" This pod's tcp_keepalive_time is {own} s; the node's {node} s does not reach it."),
            ),
            (_, None) => put(&mut text, &format!(" This pod's tcp_keepalive_time is {own} s.")),
        }
    }
    text
}

fn unanswered(findings: &[&Finding]) -> String {
    let path = findings.first().map_or("", |first| &first.path.name);
    let blackholed = findings.iter().filter(|finding| finding.verdict == Verdict::Blackholed).count();
    if blackholed == findings.len() {
        format!(
            "They were idle for longer than the path ({path}) keeps them, then sent, and nothing is acknowledged: the \
             path has dropped them."
        )
    } else {
        format!("What the local side sent is not answered: the path ({path}) or the peer is gone.")
    }
}

fn late(cause: Cause, findings: &[&Finding], limit: f64) -> String {
    let path = findings.first().map_or("", |first| &first.path.name);
    let too_late = format!(
        "too late for the path ({path}), which drops a connection that is idle for {limit} s (the kernel's timer may \
         take an eighth more)"
    );
    let seconds: BTreeSet<u64> = findings.iter().filter_map(|finding| probes_after_seconds(finding)).collect();
    let after = match (seconds.first(), seconds.last()) {
        (Some(shortest), Some(longest)) if shortest == longest => format!("{shortest} s"),
        (Some(shortest), Some(longest)) => format!("{shortest} s to {longest} s"),
        _ => String::new(),
    };
    match cause {
        Cause::SystemDefault => {
            let defaults: Vec<_> = findings.iter().filter_map(|finding| SystemDefault::of(finding)).collect();
            let is_shown = defaults.iter().all(|default| matches!(default, SystemDefault::Shown(_)));
            let seconds = defaults.first().map_or(0, |default| default.seconds());
            let probably = if is_shown { "" } else { "probably " };
            format!(
                "Keepalive is on, but its first probe comes after {seconds} s, {probably}the system's default: \
                 {too_late}."
            )
        }
        Cause::KeepidleTooLong => format!("Keepalive is on, but its first probe comes after {after}: {too_late}."),
        Cause::KeepintvlTooLong => format!(
            "Keepalive is on, but a probe may come only after {after}, because KEEPIDLE or KEEPINTVL is so long: \
             {too_late}."
        ),
        _ => format!(
            "Keepalive is on, but no probe comes before the path ({path}) drops an idle connection ({limit} s): an \
             option was set late, or \
             unsent data holds the probe back."
        ),
    }
}

/// What helps that is not a remedy of keepalive, line by line.
pub fn help(cause: Cause, findings: &[&Finding]) -> Vec<String> {
    let limit = findings.first().map_or(0.0, |first| first.path.idle_timeout.as_secs_f64());
    let user_timeout = |finding: &&Finding| finding.exact.and_then(|exact| exact.tcp_user_timeout).unwrap_or(0);
    match cause {
        Cause::Unanswered if findings.iter().all(|finding| user_timeout(finding) > 0) => {
            let longest = Millis::from(findings.iter().map(user_timeout).max().unwrap_or_default());
            vec![format!(
                "TCP_USER_TIMEOUT bounds the hang: it is set, and the kernel ends the connection when what was sent \
                 is not acknowledged for {}.",
                Human(longest)
            )]
        }
        Cause::Unanswered => {
            let lines = [
                "What bounds such hangs is TCP_USER_TIMEOUT: the kernel ends the connection when what was sent is not \
                 acknowledged for so long.",
                "  libpq: tcp_user_timeout=30000 (milliseconds)",
                "  HAProxy: `tcp-ut 30s` on bind and server lines",
                "  Netty: EpollChannelOption.TCP_USER_TIMEOUT",
                "  gRPC: the keepalive timeout (its channel sets TCP_USER_TIMEOUT to it)",
                "  Go: net.Dialer.Control with unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30000)",
                "  any program: setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, …), or a timeout of its own for each \
                 request",
            ];
            lines.map(str::to_owned).to_vec()
        }
        Cause::PayloadOnly => vec![format!(
            "What helps: a heartbeat of the application at most every {} s (HTTP/2 or gRPC PING, AMQP or MQTT \
             heartbeat, SSH ServerAliveInterval, WebSocket ping), or a higher limit on the path.",
            limit / 2.0
        )],
        _ => Vec::new(),
    }
}

/// Writing to a String cannot fail.
pub fn put(out: &mut String, text: &str) {
    let _ = out.write_str(text);
}

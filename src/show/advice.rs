//! What `--explain` says of a group of connections: the cause, which is true of all of them, and what helps besides the
//! remedies.

use std::fmt::Write as _;

use super::fit::held_by;
use super::groups::Group;
use super::units::Human;
use crate::judge::cause::Cause;
use crate::judge::report::Millis;
use crate::judge::verdict::{Keepalive, Verdict};
use crate::owner::OwnerKind;
use crate::remedy::fits::HeldBy;

/// The paragraph on the cause. `node` is the node's `tcp_keepalive_time` in seconds.
pub fn why(cause: Cause, group: &Group, node: Option<u32>) -> String {
    let Some(first) = group.worst.first() else { return String::new() };
    let (path, limit) = (&group.path.name, group.path.idle_timeout.as_secs_f64());
    let mut text = match cause {
        Cause::Unanswered => unanswered(group),
        Cause::PayloadOnly => format!(
            "The path ({path}) counts only data: it drops a connection after {limit}s without data. TCP keepalive \
             does not help there."
        ),
        Cause::PingsNotCounted => format!(
            "The path ({path}) reads HTTP/2 itself and answers HTTP/2 and gRPC PING: it drops a connection after \
             {limit}s without a request, however often the two ends ping. TCP keepalive does not help there."
        ),
        Cause::KeepaliveOff => format!(
            "Keepalive is off: the local side never probes, and the path ({path}) drops a connection that is idle for \
             {limit}s."
        ),
        _ => late(cause, group, limit),
    };
    if cause == Cause::Unanswered {
        // what was sent again and again was on the wire
        if let Some(heard) = group.last_heard {
            put(&mut text, &format!(" Nothing was heard from the peer for up to {}.", Human(heard)));
        }
    } else if let Some(idle) = group.idle {
        put(&mut text, &format!(" The longest idle time so far is {}.", Human(idle)));
    }
    if group.waiting > 0 {
        put(&mut text, &format!(" {} sent last and still wait for a reply.", group.waiting));
    }
    if cause == Cause::Unanswered || cause.is_payload() {
        return text;
    }
    if first.owner.kind == OwnerKind::Pod
        && let Some(own) = first.tcp_keepalive_time
    {
        match (first.keepalive, node.filter(|node| *node != own)) {
            (Keepalive::Off, _) => put(&mut text, " No sysctl helps a socket on which keepalive is off."),
            (_, Some(node)) => put(
                &mut text,
                &format!(" This pod's tcp_keepalive_time is {own}s; the node's {node}s does not reach it."),
            ),
            (_, None) => put(&mut text, &format!(" This pod's tcp_keepalive_time is {own}s.")),
        }
    }
    text
}

fn unanswered(group: &Group) -> String {
    let path = &group.path.name;
    if group.count(Verdict::Blackholed) == group.connections() {
        format!(
            "They were idle for longer than the path ({path}) keeps them, then sent, and nothing is acknowledged: the \
             path has dropped them."
        )
    } else if group.worst.iter().all(|finding| finding.peer.unanswered && finding.unanswered.count() == 0) {
        format!("What the peer on this node sent is not answered: the path ({path}) is gone.")
    } else {
        format!("What the local side sent is not answered: the path ({path}) or the peer is gone.")
    }
}

fn late(cause: Cause, group: &Group, limit: f64) -> String {
    let path = &group.path.name;
    let too_late = format!(
        "too late for the path ({path}), which drops a connection that is idle for {limit}s (the kernel's timer may \
         take an eighth more)"
    );
    let after = match group.seconds {
        Some((shortest, longest)) if shortest == longest => format!("{shortest}s"),
        Some((shortest, longest)) => format!("{shortest}s to {longest}s"),
        None => String::new(),
    };
    match cause {
        Cause::SystemDefault => {
            let probably = if group.is_default_shown { "" } else { "probably " };
            format!(
                "Keepalive is on, but its first probe comes after {after}, {probably}the system's default: {too_late}."
            )
        }
        Cause::KeepidleTooLong => format!("Keepalive is on, but its first probe comes after {after}: {too_late}."),
        Cause::KeepintvlTooLong => format!(
            "Keepalive is on, but a probe may come only after {after}, because KEEPIDLE or KEEPINTVL is so long: \
             {too_late}."
        ),
        _ if group.worst.iter().all(|finding| finding.keepalive == Keepalive::Unknown) => format!(
            "Unsent data holds keepalive back, if it is on, and the path ({path}) drops a connection that is idle for \
             {limit}s."
        ),
        _ => format!(
            "Keepalive is on, but no probe comes before the path ({path}) drops an idle connection ({limit}s): an \
             option was set late, or \
             unsent data holds the probe back."
        ),
    }
}

/// What helps that is not a remedy of keepalive, line by line.
pub fn help(cause: Cause, group: &Group) -> Vec<String> {
    let limit = group.path.idle_timeout.as_secs_f64();
    match cause {
        Cause::Unanswered if group.user_timeouts.0 > Millis::ZERO => {
            vec![format!(
                "TCP_USER_TIMEOUT bounds the hang: it is set, and the kernel ends the connection when what was sent \
                 is not acknowledged for {}.",
                Human(group.user_timeouts.1)
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
        Cause::PingsNotCounted => reads_http2(limit),
        Cause::PayloadOnly if group.path.reads_http2 => reads_http2(limit),
        Cause::PayloadOnly => vec![format!(
            "What helps: a heartbeat of the application at most every {}s (HTTP/2 or gRPC PING, AMQP or MQTT \
             heartbeat, SSH ServerAliveInterval, WebSocket ping), or a higher limit on the path.",
            limit / 2.0
        )],
        _ => nobody(group).into_iter().collect(),
    }
}

/// What helps where a middlebox answers HTTP/2 PING itself.
fn reads_http2(limit: f64) -> Vec<String> {
    vec![
        format!(
            "HTTP/2 and gRPC PING do not help: they end at the middlebox. What helps: a request at most every {}s (a \
             call of a health check), messages on an open stream, or a WebSocket ping.",
            limit / 2.0
        ),
        "  Or a higher limit on the path: `keepalive-auditor explain PROFILE` says how.".to_owned(),
        format!(
            "  Or close sooner than the path does: below {limit}s for the client's pool, or for gRPC's \
             max_connection_idle and max_connection_age on the server. Retry calls that never began."
        ),
        "  A middlebox that only forwards bytes counts these frames: say `reads_http2: false` for its path.".to_owned(),
    ]
}

/// Why no program can be changed.
fn nobody(group: &Group) -> Option<String> {
    let first = group.worst.first().filter(|finding| matches!(held_by(finding), HeldBy::Nobody))?;
    let text = if first.inode == 0 {
        "No process has accepted them yet: they wait in the queue of the listener."
    } else {
        "No process that could be read holds them. Either a kernel module does (NFS, iSCSI, NVMe over TCP), \
         or a process that this user may not read."
    };
    Some(text.to_owned())
}

/// Writing to a String cannot fail.
pub fn put(out: &mut String, text: &str) {
    let _ = out.write_str(text);
}

//! The columns of the table, and the text of each cell.
//!
//! A table may have a hundred thousand rows, and each is written twice: for the widths, and for the reader. So cells
//! are appended to one buffer.

use std::fmt::{self, Write as _};

use crate::judge::report::{Direction, Finding, Millis};
use crate::show::units::{Human, Limit, PlainTimer, SsTimer, endpoint, number as write_number};
use crate::show::why::Why;

/// Appends the text of a cell.
pub(super) type Cell = fn(&Finding, &mut String) -> fmt::Result;

/// A column of the table, and its text for `explain`.
#[derive(Clone, Copy)]
pub(in crate::show) struct Column {
    pub title: &'static str,
    pub help: &'static str,
    pub(super) wide: bool,
    /// Numbers end at the same place.
    pub(super) number: bool,
    pub(super) cell: Cell,
    /// The cell for a person at a terminal, where it differs.
    pub(super) plain: Option<Cell>,
}

const fn narrow(title: &'static str, help: &'static str, cell: Cell) -> Column {
    Column { title, help, wide: false, number: false, cell, plain: None }
}

const fn wide(title: &'static str, help: &'static str, cell: Cell) -> Column {
    Column { title, help, wide: true, number: false, cell, plain: None }
}

/// With another cell for a person at a terminal.
const fn plain(column: Column, plain: Cell) -> Column {
    Column { plain: Some(plain), ..column }
}

const fn number(column: Column) -> Column {
    Column { number: true, ..column }
}

pub(in crate::show) const COLUMNS: [Column; 18] = [
    narrow("VERDICT", "The judgement: see `keepalive-auditor explain` for each verdict.", |finding, out| {
        out.write_str(finding.verdict.name())
    }),
    narrow(
        "OWNER",
        "Who holds the connection: namespace/pod (container), a systemd unit, a container, a network namespace or \
         host.",
        |finding, out| write!(out, "{}", finding.owner),
    ),
    narrow("DIR", "in: the connection was accepted here. out: it was opened here.", |finding, out| {
        out.write_str(short(finding.direction))
    }),
    narrow("LOCAL", "The address and port of the local side.", |finding, out| endpoint(out, finding.local)),
    narrow("REMOTE", "The address and port of the peer.", |finding, out| endpoint(out, finding.remote)),
    narrow("KEEPALIVE", "What the local side does: on, late, off or unknown.", |finding, out| {
        out.write_str(finding.keepalive.name())
    }),
    plain(
        narrow(
            "TIMER",
            "The timer that the kernel reports. Pipes and the wide table get it as `ss -o` writes it: name, time until \
             it fires,\n\
             and retransmissions or unanswered probes.",
            |finding, out| SsTimer(finding).write(out),
        ),
        |finding, out| write!(out, "{}", PlainTimer(finding)),
    ),
    wide(
        "KEEPIDLE",
        "The idle time before the first probe. `>=` marks a lower bound that was inferred from the timer. With \
         --exact:\n\
         KEEPIDLE, KEEPINTVL and KEEPCNT of the socket.",
        keepidle,
    ),
    number(narrow("DATA IDLE", "The time since the last payload byte in either direction.", |finding, out| {
        idle(finding.data_idle, out)
    })),
    number(narrow(
        "WIRE IDLE",
        "The time since the last segment of any kind, probes and their answers included. `?`: the kernel does not \
         report it.",
        |finding, out| idle(finding.wire_idle, out),
    )),
    number(narrow("LIMIT", "The idle timeout of the path.", |finding, out| {
        Limit(finding.path.idle_timeout).write(out)
    })),
    wide("PATH", "The path that the configuration gives this connection: its name.", |finding, out| {
        out.write_str(&finding.path.name)
    }),
    number(wide("AGE", "A lower bound of the connection's age.", |finding, out| Human(finding.age).write(out))),
    wide("PROCESS", "The process that holds the socket: program[pid].", |finding, out| match &finding.holder {
        Some(holder) => write!(out, "{}[{}]", holder.program(), holder.pid),
        None => out.write_str("?"),
    }),
    wide("NETNS", "The network namespace: its name, or its inode number.", |finding, out| match &finding.netns_name {
        Some(name) => out.write_str(name),
        None => write!(out, "{}", finding.netns),
    }),
    number(wide("UID", "The user id of the socket.", |finding, out| write_number(out, finding.uid.into()))),
    number(wide("INODE", "The inode number of the socket, as in /proc/PID/fd.", |finding, out| {
        write_number(out, finding.inode.into())
    })),
    wide("WHY", "Why the connection has its verdict.", |finding, out| write!(out, "{}", Why(finding))),
];

fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

fn idle(time: Option<Millis>, out: &mut String) -> fmt::Result {
    match time {
        Some(time) => Human(time).write(out),
        None => out.write_str("?"),
    }
}

fn keepidle(finding: &Finding, out: &mut String) -> fmt::Result {
    let exact = finding.exact.unwrap_or_default();
    match (exact.so_keepalive, exact.tcp_keepidle, finding.keepidle) {
        (Some(true), Some(idle), _) => {
            let or_unknown =
                |value: Option<u32>, unit: &str| value.map_or_else(|| "?".to_owned(), |it| format!("{it}{unit}"));
            write!(out, "{idle}s,{},{}", or_unknown(exact.tcp_keepintvl, "s"), or_unknown(exact.tcp_keepcnt, ""))
        }
        (Some(false), ..) => out.write_str("off"),
        (_, _, Some(idle)) => write!(out, ">={}", Human(idle)),
        (_, _, None) => out.write_str("-"),
    }
}

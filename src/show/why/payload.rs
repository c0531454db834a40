//! The part of `why` about paths that count only payload.

use std::fmt;

use crate::judge::report::{Finding, Millis, OverdueBy};
use crate::show::heartbeats::Insufficient;
use crate::show::units::{Human, Limit};

/// Why a connection is overdue, and what the next write meets.
pub fn overdue(f: &mut fmt::Formatter<'_>, finding: &Finding, limit: Limit, next: &str) -> fmt::Result {
    let path = &finding.path.name;
    let idle = Human(finding.idle().unwrap_or_default());
    if only_pings(finding) {
        write!(
            f,
            "nothing but HTTP/2 PING frames was sent or received for at least {idle}, and the path ({path}) counts \
             only payload without these frames and drops the connection after {limit}: {next}"
        )?;
        // the peer of such a connection is the middlebox itself
        let limit_span = Millis::from(finding.path.idle_timeout);
        let since_limit = finding.idle().map(|idle| idle.saturating_sub(limit_span));
        if let Some(heard) = finding.last_heard.filter(|heard| Some(*heard) < since_limit) {
            write!(f, "; it answered {} ago all the same, so its limit may be longer", Human(heard))?;
        }
        return Ok(());
    }
    write!(
        f,
        "no payload was sent or received for {idle}, and the path ({path}) counts only payload and drops the \
         connection after {limit}: {next}"
    )
}

/// HTTP/2 PING frames were the last payload, and the path does not count them.
fn only_pings(finding: &Finding) -> bool {
    finding.has_uncounted_pings() && finding.request_idle > finding.data_idle
}

/// Why a connection is exposed on a path that counts only payload.
pub fn exposed(f: &mut fmt::Formatter<'_>, finding: &Finding, limit: Limit) -> fmt::Result {
    let Finding { path, watched, overdue_by, .. } = finding;
    let but = if path.reads_http2 { " without HTTP/2 PING frames" } else { "" };
    write!(
        f,
        "keepalive does not refresh the path ({}), which counts only payload{but}: it drops the connection after \
         {limit} without payload",
        path.name
    )?;
    match finding.idle() {
        Some(idle) if only_pings(finding) => {
            return write!(f, ", and nothing but HTTP/2 PING frames came for at least {}", Human(idle));
        }
        Some(idle) => write!(f, ", and the last was {} ago", Human(idle))?,
        None => f.write_str(", and this kernel does not say when the last was")?,
    }
    if path.reads_http2 && *overdue_by == OverdueBy::Clocks && *watched == Millis::ZERO {
        f.write_str(" (one sweep does not show whether that was an HTTP/2 PING frame: --for watches)")?;
    }
    write!(f, "{}", Insufficient(finding))
}

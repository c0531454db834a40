//! The part of `why` about an application's heartbeats.

use std::fmt;

use super::units::Human;
use crate::judge::report::{Finding, Heartbeats, HeartbeatsOf, LimitSource, Millis};

/// Why they protect: whose they are, how far apart, for how long they were watched.
pub struct Seen<'a>(pub &'a Heartbeats);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Heartbeats { protocol, longest_gap, watched, ago, .. } = *self.0;
        write!(
            f,
            "{} came at most {} apart while we watched for {}, the last {} ago",
            name(protocol),
            Human(longest_gap),
            Human(watched),
            Human(ago)
        )
    }
}

/// Why those that were seen do not protect; nothing where none were seen.
pub struct Insufficient<'a>(pub &'a Finding);

impl fmt::Display for Insufficient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(seen) = self.0.heartbeats.filter(|seen| seen.longest_gap > Millis::ZERO) else { return Ok(()) };
        if self.0.has_uncounted_pings() {
            return Ok(());
        }
        let half = self.0.path.idle_timeout / 2;
        let half = Millis::from(half);
        let name = name(seen.protocol);
        if seen.ago > half {
            write!(f, "; {name} came before, and the last was {} ago", Human(seen.ago))
        } else if seen.longest_gap > half {
            write!(f, "; {name} come up to {} apart, more than half of the limit", Human(seen.longest_gap))
        } else {
            write!(f, "; {name} may keep it fresh, but we have watched them for {} only", Human(seen.watched))
        }
    }
}

/// What is assumed of a path without any configuration: that no middlebox on it reads HTTP/2.
pub struct Assumed<'a>(pub &'a Finding);

impl fmt::Display for Assumed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_http2 = self.0.heartbeats.is_some_and(|seen| seen.protocol == HeartbeatsOf::Http2);
        if is_http2 && self.0.path.source == LimitSource::Default {
            f.write_str("; a middlebox that reads HTTP/2 itself would not count these frames (`reads_http2`)")?;
        }
        Ok(())
    }
}

fn name(protocol: HeartbeatsOf) -> &'static str {
    match protocol {
        HeartbeatsOf::Http2 => "HTTP/2 PING frames",
        HeartbeatsOf::Amqp => "AMQP heartbeats",
        HeartbeatsOf::Mqtt => "MQTT pings",
        HeartbeatsOf::WebSocket => "WebSocket pings",
        HeartbeatsOf::Ssh => "SSH keepalive messages",
    }
}

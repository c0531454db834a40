//! The facts from which one connection is judged.

use super::memory::heartbeat::Heartbeats;
use super::memory::{KeepaliveTimer, Millis, PeerProbes, Unanswered};
use super::verdict::Keepalive;
use crate::socket::KeepaliveOptions;

/// The known facts of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not on its own")]
pub struct Facts {
    /// Whether a keepalive timer is armed.
    pub timer: KeepaliveTimer,
    /// Lower bound of KEEPIDLE.
    pub keepidle: Option<Millis>,
    /// Lower bound of the longest idle time before a probe of the local side: of the longer one of KEEPIDLE and
    /// KEEPINTVL.
    pub probes_after: Option<Millis>,
    /// The time until the keepalive timer fires, or the timer that hides it: while that one runs, the kernel sends no
    /// keepalive probe.
    pub next_probe: Option<Millis>,
    /// The local side's keepalive probes are unanswered, and no clock shows them.
    pub probing: bool,
    /// The time since the last known segment of any kind. `None` if the kernel does not report it.
    pub wire_idle: Option<Millis>,
    /// The time since the last payload byte in either direction.
    pub data_idle: Option<Millis>,
    /// A lower bound of the time since the last payload that was not an HTTP/2 PING frame.
    pub request_idle: Option<Millis>,
    /// The time since the last known segment from the peer.
    pub last_heard: Option<Millis>,
    /// The time for which we have watched the connection without traffic.
    pub watched: Millis,
    /// A lower bound of the connection's age.
    pub age: Millis,
    /// Segments of the local side that the peer has not answered.
    pub unanswered: Unanswered,
    /// It was idle for longer than the path keeps its state, and the peer has sent nothing since.
    pub expired: bool,
    /// Nothing between the two ends drops idle connections.
    pub local: bool,
    /// The peer's probes, as this socket showed them.
    pub peer_probes: Option<PeerProbes>,
    /// The application's heartbeats.
    pub heartbeats: Option<Heartbeats>,
    /// The peer's keepalive, by this path's idle timeout, if the peer is on this node.
    pub peer_keepalive: Option<Keepalive>,
    /// The peer is on this node, and what it sends is not answered.
    pub peer_unanswered: bool,
}

impl Facts {
    /// These facts with options that were read from the socket itself: they replace what was inferred.
    #[must_use]
    pub fn with_options(mut self, options: Option<&KeepaliveOptions>) -> Self {
        let Some(options) = options else { return self };
        match options.so_keepalive {
            Some(true) => self.timer = KeepaliveTimer::Armed,
            Some(false) => (self.timer, self.keepidle, self.probes_after) = (KeepaliveTimer::Off, None, None),
            None => {}
        }
        if self.timer == KeepaliveTimer::Armed
            && let Some(idle) = options.tcp_keepidle
        {
            let longest = options.tcp_keepintvl.map_or(idle, |interval| interval.max(idle));
            (self.keepidle, self.probes_after) =
                (Some(Millis::from_secs(idle.into())), Some(Millis::from_secs(longest.into())));
        }
        self
    }
}

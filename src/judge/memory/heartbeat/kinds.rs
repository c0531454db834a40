//! The known heartbeats: the bytes of payload in one segment of each direction.

/// The protocol of the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// PING, which gRPC uses.
    Http2,
    /// Heartbeat frames of AMQP 0-9-1, empty frames of AMQP 1.0.
    Amqp,
    /// Ping and pong, empty or with 1 or 4 bytes.
    WebSocket,
    /// PINGREQ and PINGRESP.
    Mqtt,
    /// `keepalive@openssh.com`, asked by the client (`ServerAliveInterval`) or by the server (`ClientAliveInterval`).
    Ssh,
}

use Protocol::{Amqp, Http2, Mqtt, Ssh, WebSocket};

/// Frames of one size in both directions: plain, in TLS 1.3 (22 bytes more), in TLS 1.2 with AES-GCM (29 bytes more).
const EVEN: [(u8, Protocol); 9] =
    [(17, Http2), (39, Http2), (46, Http2), (8, Amqp), (30, Amqp), (37, Amqp), (2, Mqtt), (24, Mqtt), (31, Mqtt)];

/// A frame and its answer.
const ASKED: [(u8, u8, Protocol); 17] = [
    // the client masks its frames with 4 bytes; plain, TLS 1.3, TLS 1.2
    (6, 2, WebSocket),
    (7, 3, WebSocket),
    (10, 6, WebSocket),
    (28, 24, WebSocket),
    (29, 25, WebSocket),
    (32, 28, WebSocket),
    (35, 31, WebSocket),
    (39, 35, WebSocket),
    // the client asks, and the server asks on a channel: chacha20-poly1305
    (52, 28, Ssh),
    (60, 36, Ssh),
    // aes-gcm; aes-ctr with umac-128-etm
    (52, 36, Ssh),
    (68, 36, Ssh),
    // aes-ctr with umac-64-etm
    (44, 28, Ssh),
    (60, 28, Ssh),
    // aes-ctr with hmac-sha2-256-etm
    (68, 52, Ssh),
    (84, 52, Ssh),
    // aes-ctr with hmac-sha2-512-etm
    (100, 84, Ssh),
];

/// A heartbeat from the view of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// The number of kinds: a request and its answer are one kind for each end.
    pub const COUNT: u8 = 9 + 2 * 17;

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// The kind whose segments have these sizes.
    #[must_use]
    pub fn of(sent: u16, received: u16) -> Option<Self> {
        Self::all().find(|kind| kind.sizes() == (sent, received))
    }

    /// The kind whose segments have this size in both directions.
    #[must_use]
    pub fn even(size: u16) -> Option<Self> {
        Self::of(size, size)
    }

    /// The kind with this number, which is below [`Self::COUNT`].
    #[must_use]
    pub fn from_index(index: u8) -> Self {
        Self(index)
    }

    /// The number of this kind.
    #[must_use]
    pub fn index(self) -> u8 {
        self.0
    }

    /// The bytes of a sent segment and of a received one.
    #[must_use]
    pub fn sizes(self) -> (u16, u16) {
        let (one, other, _) = self.entry();
        let asks = usize::from(self.0) < EVEN.len() || self.0.is_multiple_of(2);
        if asks { (one.into(), other.into()) } else { (other.into(), one.into()) }
    }

    /// The protocol of the frames.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        self.entry().2
    }

    fn entry(self) -> (u8, u8, Protocol) {
        let index = usize::from(self.0);
        match EVEN.get(index) {
            Some(&(size, protocol)) => (size, size, protocol),
            None => ASKED[(index - EVEN.len()) / 2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_different_sizes() {
        assert_eq!(usize::from(Kind::COUNT), EVEN.len() + 2 * ASKED.len());
        let sizes: std::collections::BTreeSet<_> = Kind::all().map(Kind::sizes).collect();
        assert_eq!(sizes.len(), usize::from(Kind::COUNT));
    }

    #[test]
    fn no_measured_pool_has_the_size_of_a_heartbeat() {
        let pools = [
            // Redis: GET, PING, inline PING, INCR
            (22, 9),
            (14, 7),
            (6, 7),
            (21, 5),
            (21, 6),
            // PostgreSQL: SELECT 1, prepared, the empty query, pgbench -S
            (14, 66),
            (43, 71),
            (6, 11),
            (62, 66),
            // HTTP: a health check, an empty answer, the shortest request
            (151, 149),
            (150, 110),
            (33, 149),
        ];
        for (sent, received) in pools {
            assert!(Kind::all().all(|kind| kind.sizes() != (sent, received) && kind.sizes() != (received, sent)));
        }
    }
}

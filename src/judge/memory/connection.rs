//! One connection as the memory stores it from sweep to sweep.

use std::net::{IpAddr, Ipv6Addr};

use super::clock::{Millis, Period, Tick};
use super::heartbeat::HeartbeatWatch;
use super::packed::{PackedCookie, TimerAndRetransmits, U24};
use crate::socket::{Cookie, Endpoint};

/// Shorter idle times are not counted: they are very frequent, and no middlebox drops a connection so soon.
pub const SHORTEST_IDLE_TIME: Millis = Millis::from_secs(30);

/// The state of the keepalive timer. It is kept across samples in which another timer masks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepaliveTimer {
    /// No sample showed it unmasked.
    #[default]
    Unknown,
    /// The last sample that showed it unmasked found none.
    Off,
    /// The last sample that showed it unmasked found it armed.
    Armed,
}

/// One connection: its last sample, and the facts from earlier samples.
///
/// The clocks have the kernel's values at the last sample, in milliseconds of 32 bits. All of the 96 bytes are used.
#[derive(Clone, Debug)]
pub struct TrackedConnection {
    cookie: PackedCookie,
    /// When it was last sampled, monotonic milliseconds, wrapping.
    pub(super) sampled_at: u32,
    /// Index into the namespace's origins, and [`ACCEPTED`].
    origin: U24,
    /// The socket's inode, 0 while nobody has accepted it.
    pub inode: u32,
    /// The first sample, or an earlier event that `tcp_info` showed in it.
    pub(super) born: Tick,
    /// The first moment after the last traffic that a sample showed. We have watched the connection idle since then.
    pub(super) moved: Tick,
    /// The first moment after a sample showed a segment from the peer that restarted no clock.
    pub(super) heard: Tick,
    /// When a sample last showed a probe of the peer; 0: never.
    pub(super) peer_probe: Tick,
    pub(super) segs_in: U24,
    pub(super) segs_out: U24,
    /// Since the last payload byte in either direction.
    pub(super) data_idle: u32,
    /// Since the last data or acknowledgement from the peer.
    pub(super) heard_idle: u32,
    pub(super) expires: u32,
    /// [`Bounds::keepidle`](super::keepidle::Bounds::keepidle).
    pub(super) keepidle: u32,
    /// [`Bounds::unproven`](super::keepidle::Bounds::unproven).
    pub(super) unproven: u32,
    remote_addr: Ipv6Bytes,
    remote_port: u16,
    /// The local port.
    pub local_port: u16,
    /// The time between the last two probes of the peer that samples showed. The default if there were fewer than two.
    pub(super) peer_period: Period,
    flags: u16,
    /// The lowest bits of the number of segments that the local side sent without data.
    pub(super) bare_out: u8,
    pub(super) timer: TimerAndRetransmits,
    /// Unanswered probes, for keepalive or a closed window.
    pub(super) probes: u8,
    pub(super) heartbeats: HeartbeatWatch,
}

/// The address in its IPv6 form: IPv4 addresses are mapped.
type Ipv6Bytes = [u8; 16];

/// The current dump showed it, or the last one if no dump is running.
const SEEN: u16 = 1;
/// The local side sent last.
pub(super) const WAITING: u16 = 1 << 1;
/// It was idle for longer than the path keeps its state, and the peer has sent nothing since.
pub(super) const EXPIRED: u16 = 1 << 2;
/// The clocks are known.
pub(super) const CLOCKS: u16 = 1 << 3;
/// The peer's last probe came after the connection was [`STALE`].
pub(super) const LATE_PEER: u16 = 1 << 4;
/// We watched the whole idle timeout of the path without traffic.
pub(super) const STALE: u16 = 1 << 5;
/// Only the segment counters showed the last traffic.
pub(super) const UNEXPLAINED: u16 = 1 << 6;
/// Only the segment counters showed the last segment from the peer.
pub(super) const HEARD_UNEXPLAINED: u16 = 1 << 7;
/// [`Bounds::turned_on`](super::keepidle::Bounds::turned_on).
pub(super) const TURNED_ON: u16 = 1 << 8;
/// [`Bounds::is_final`](super::keepidle::Bounds::is_final).
pub(super) const FINAL: u16 = 1 << 9;
/// [`Bounds::unprobed`](super::keepidle::Bounds::unprobed).
pub(super) const UNPROBED: u16 = 1 << 10;
/// [`KeepaliveTimer::Off`].
pub(super) const TIMER_OFF: u16 = 1 << 11;
/// [`KeepaliveTimer::Armed`].
pub(super) const TIMER_ARMED: u16 = 1 << 12;
/// The last judgement flagged it.
const FLAGGED: u16 = 1 << 13;
/// The local side connected: its SYN is among the bytes acknowledged.
pub(super) const OPENED_HERE: u16 = 1 << 14;
/// The last judgement found nothing between the two ends.
const LOCAL: u16 = 1 << 15;

/// The highest bit of the origin: the local side did not send the first segment of the connection.
const ACCEPTED: u32 = 1 << 23;

const _: () = assert!(size_of::<TrackedConnection>() <= 96, "the memory of one connection is at most 96 bytes");

impl TrackedConnection {
    /// A connection without a sample.
    pub(super) fn blank(cookie: Cookie, remote: Endpoint, local_port: u16, origin: u32) -> Self {
        let remote_addr = match remote.addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self {
            cookie: PackedCookie::new(cookie),
            sampled_at: 0,
            origin: U24::wrapping(origin),
            inode: 0,
            born: Tick::default(),
            moved: Tick::default(),
            heard: Tick::default(),
            peer_probe: Tick::default(),
            segs_in: U24::default(),
            segs_out: U24::default(),
            data_idle: 0,
            heard_idle: 0,
            expires: 0,
            keepidle: 0,
            unproven: 0,
            remote_addr,
            remote_port: remote.port,
            local_port,
            peer_period: Period::default(),
            flags: 0,
            bare_out: 0,
            timer: TimerAndRetransmits::default(),
            probes: 0,
            heartbeats: HeartbeatWatch::default(),
        }
    }

    pub(super) fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u16, on: bool) {
        if on { self.flags |= flag } else { self.flags &= !flag }
    }

    /// Whether the last dump showed it.
    #[must_use]
    pub fn seen(&self) -> bool {
        self.is(SEEN)
    }

    /// Marks whether the current dump has shown it.
    pub(super) fn set_seen(&mut self, seen: bool) {
        self.set(SEEN, seen);
    }

    /// Gives it another position among the origins of its namespace.
    pub(super) fn set_origin(&mut self, origin: u32) {
        self.origin = U24::wrapping(self.origin.get() & ACCEPTED | origin & !ACCEPTED);
    }

    /// Stores that the local side did not send the first segment.
    pub(super) fn mark_accepted(&mut self) {
        self.origin = U24::wrapping(self.origin.get() | ACCEPTED);
    }

    /// Whether the local side accepted the connection, as far as the counters of a sample have proven it.
    #[must_use]
    pub fn accepted(&self) -> Option<bool> {
        match (self.is(OPENED_HERE), self.origin.get() & ACCEPTED != 0) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        }
    }

    /// Position among the origins of its namespace.
    #[must_use]
    pub fn origin(&self) -> usize {
        (self.origin.get() & !ACCEPTED) as usize
    }

    /// The socket's cookie.
    #[must_use]
    pub fn cookie(&self) -> Cookie {
        self.cookie.get()
    }

    /// The peer's endpoint.
    #[must_use]
    pub fn remote(&self) -> Endpoint {
        Endpoint::new(Ipv6Addr::from(self.remote_addr).into(), self.remote_port)
    }

    /// The peer's address in its IPv6 form, which costs less to compare.
    #[must_use]
    pub fn remote_address(&self) -> [u8; 16] {
        self.remote_addr
    }

    /// Whether it was idle for longer than the path keeps its state, and the peer has sent nothing since.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.is(EXPIRED)
    }

    /// Stores that it is idle for longer than the path keeps its state.
    pub fn mark_expired(&mut self) {
        self.set(EXPIRED, true);
    }

    /// Whether we had watched nothing move for the path's idle timeout, and nothing has moved since.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is(STALE)
    }

    /// Stores that we watched the path's whole idle timeout without traffic, so a later probe of the peer is late.
    pub fn mark_stale(&mut self) {
        self.set(STALE, true);
    }

    /// Whether the last judgement found nothing between the two ends.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is(LOCAL)
    }

    /// Stores whether there is nothing between the two ends.
    pub fn mark_local(&mut self, local: bool) {
        self.set(LOCAL, local);
    }

    /// Drops the state that depends on the idle timeout of its path, because that has changed.
    pub fn clear_marks(&mut self) {
        self.set(EXPIRED | STALE, false);
    }

    /// Whether the last judgement flagged it.
    #[must_use]
    pub fn is_flagged(&self) -> bool {
        self.is(FLAGGED)
    }

    /// Stores whether the judgement flagged it.
    pub fn mark_flagged(&mut self, flagged: bool) {
        self.set(FLAGGED, flagged);
    }
}

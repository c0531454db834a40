//! The types of one TCP socket, as the kernel describes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The kernel's socket cookie: 64 bits that identify one socket for its whole lifetime.
///
/// Later sockets reuse addresses and ports, but not cookies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(pub u64);

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One end of a connection. IPv4-mapped IPv6 addresses are kept as the IPv4 that is on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address; never IPv4-mapped.
    pub addr: IpAddr,
    /// The port, in host byte order.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint; an IPv4-mapped address becomes its IPv4 address.
    #[must_use]
    pub fn new(addr: IpAddr, port: u16) -> Self {
        Self { addr: addr.to_canonical(), port }
    }

    /// The endpoint 0.0.0.0:0, where a value is needed before one is known.
    pub const UNSPECIFIED: Self = Self { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0 };
}

/// `ip:port`, or `[ip6]:port`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.addr, self.port).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The values that find the socket of a connection again and prove that it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketName {
    /// The local endpoint.
    pub local: Endpoint,
    /// The peer's endpoint.
    pub remote: Endpoint,
    /// The cookie.
    pub cookie: Cookie,
}

/// The states that a sweep asks the kernel for; any other state is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Established: both ends may send.
    Established,
    /// A listener; it gives connections their direction.
    Listen,
    /// The peer has closed its side.
    CloseWait,
    /// The local side is closed, and the peer's is not.
    FinWait2,
}

/// The one timer that the kernel reports for a socket (`idiag_timer`).
///
/// The kernel reports a single timer, and retransmission and zero-window probes win over keepalive:
/// while one of these runs, the keepalive timer is *masked*, not absent. See [`Timer::masks_keepalive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// No timer: in ESTABLISHED, keepalive is off.
    None,
    /// Retransmission, RACK or loss probe; `ss` writes `on`.
    Retransmit,
    /// The keepalive timer.
    KeepAlive,
    /// TIME-WAIT.
    TimeWait,
    /// Zero-window probe; `ss` writes `persist`.
    Persist,
    /// Delayed acknowledgement (newest kernels); in ESTABLISHED, keepalive is off.
    DelAck,
    /// A number that this version does not know.
    Unknown(u8),
}

impl Timer {
    /// From `idiag_timer`.
    #[must_use]
    pub fn from_idiag(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::Retransmit,
            2 => Self::KeepAlive,
            3 => Self::TimeWait,
            4 => Self::Persist,
            5 => Self::DelAck,
            other => Self::Unknown(other),
        }
    }

    /// As `idiag_timer`: half the size.
    #[must_use]
    pub fn idiag(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Retransmit => 1,
            Self::KeepAlive => 2,
            Self::TimeWait => 3,
            Self::Persist => 4,
            Self::DelAck => 5,
            Self::Unknown(other) => other,
        }
    }

    /// Whether this timer hides the state of the keepalive timer.
    #[must_use]
    pub fn masks_keepalive(self) -> bool {
        !matches!(self, Self::None | Self::DelAck | Self::KeepAlive)
    }

    /// The name in JSON, and the name that `ss -o` writes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Retransmit => "on",
            Self::KeepAlive => "keepalive",
            Self::TimeWait => "timewait",
            Self::Persist => "persist",
            Self::DelAck => "delack",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// The clocks and counters of `tcp_info` that the judgement needs, each absent where the kernel is too
/// old to fill it. Clocks are milliseconds since the event; counters wrap at 2³².
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Since the last data segment was sent; since the handshake if none was.
    pub last_data_sent: Option<u32>,
    /// Since the last data segment was received; since the handshake if none was.
    pub last_data_recv: Option<u32>,
    /// Since the last acknowledgement was received; moves when *our* probe is answered.
    pub last_ack_recv: Option<u32>,
    /// Retransmissions in a row by the retransmission timer; an acknowledgement of new data ends the row.
    pub retransmits: Option<u8>,
    /// Probes without an answer: of keepalive, or of a closed window.
    pub probes: Option<u8>,
    /// All segments received, probes included.
    pub segs_in: Option<u32>,
    /// All segments sent, probes included.
    pub segs_out: Option<u32>,
    /// Segments received that carried payload.
    pub data_segs_in: Option<u32>,
    /// Segments sent that carried payload.
    pub data_segs_out: Option<u32>,
    /// Bytes sent that were acknowledged; the SYN of the end that connected is one.
    pub bytes_acked: Option<u64>,
    /// Payload bytes received in order.
    pub bytes_received: Option<u64>,
    /// Payload bytes sent, retransmissions included.
    pub bytes_sent: Option<u64>,
    /// Payload bytes sent again.
    pub bytes_retrans: Option<u64>,
    /// Bytes that wait to be sent for the first time.
    pub not_sent: Option<u32>,
}

impl TcpInfo {
    /// Segments sent without payload: the handshake's, acknowledgements, probes.
    #[must_use]
    pub fn bare_segs_out(&self) -> Option<u32> {
        Some(self.segs_out?.wrapping_sub(self.data_segs_out?))
    }

    /// By how much the acknowledged bytes exceed the payload that was sent: 1 for the SYN of the end that connected,
    /// and 1 for a FIN. Negative while payload is in flight.
    #[must_use]
    pub fn acknowledged_beyond_payload(&self) -> Option<i64> {
        let payload = self.bytes_sent?.wrapping_sub(self.bytes_retrans?);
        Some(self.bytes_acked?.wrapping_sub(payload).cast_signed())
    }
}

/// One socket of a dump: the decoded values of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The cookie.
    pub cookie: Cookie,
    /// ESTABLISHED or LISTEN.
    pub state: State,
    /// The local endpoint.
    pub local: Endpoint,
    /// The peer's endpoint; port 0 for a listener.
    pub remote: Endpoint,
    /// Whether the socket itself is `AF_INET6` (a dual-stack socket may carry IPv4 traffic).
    pub inet6: bool,
    /// The timer that the kernel chose to report.
    pub timer: Timer,
    /// Milliseconds until that timer fires (`idiag_expires`).
    pub expires: u32,
    /// Retransmissions, or unanswered probes of a keepalive timer (`idiag_retrans`).
    pub retransmits: u8,
    /// The owner's user id, as seen from our user namespace.
    pub uid: u32,
    /// The socket's inode in sockfs; 0 for a socket that no process has accepted yet.
    pub inode: u32,
    /// The inode number of the cgroup v2 directory of the process that made the socket or its listener.
    pub cgroup: Option<u64>,
    /// The device that the socket is bound to, such as a VRF; 0 for none.
    pub device: u32,
    /// The local address need not be an address of this host (`IP_TRANSPARENT`): a proxy uses those of its clients or
    /// servers.
    pub is_transparent: bool,
    /// `tcp_info`; every field absent when the kernel sent none.
    pub tcp: TcpInfo,
}

/// A socket that the kernel has destroyed, as its last message describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSocket {
    /// The cookie.
    pub cookie: Cookie,
    /// The peer's port; 0 if its program aborted the connection.
    pub remote_port: u16,
    /// Bytes, or a FIN, that the program has not read (`idiag_rqueue`).
    pub unread: u32,
    /// Sequence numbers from the first unacknowledged one to the last one written (`idiag_wqueue`); a FIN has one.
    pub queued: u32,
    /// `tcp_info`; every field absent when the kernel sent none.
    pub tcp: TcpInfo,
}

/// The socket options themselves, read from the process that holds the socket (`--exact`). A kernel may refuse some of
/// them: an MPTCP socket has no `TCP_USER_TIMEOUT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeepaliveOptions {
    /// `SO_KEEPALIVE`.
    pub so_keepalive: Option<bool>,
    /// `TCP_KEEPIDLE`, seconds.
    pub tcp_keepidle: Option<u32>,
    /// `TCP_KEEPINTVL`, seconds.
    pub tcp_keepintvl: Option<u32>,
    /// `TCP_KEEPCNT`.
    pub tcp_keepcnt: Option<u32>,
    /// `TCP_USER_TIMEOUT`, milliseconds; 0 is the system's default.
    pub tcp_user_timeout: Option<u32>,
}

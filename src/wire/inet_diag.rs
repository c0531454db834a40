//! The requests that we send to `sock_diag`, and a borrowed view of its replies.
//!
//! Layouts are those of `include/uapi/linux/inet_diag.h`. A reply is read in place in the receive buffer. Only the
//! fields of [`Socket`] are copied.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkMessage};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SOCK_DIAG_BY_FAMILY, SockDiagMessage};
use zerocopy::byteorder::{BigEndian, NativeEndian};
use zerocopy::{FromBytes, Immutable, KnownLayout, U16, U32, Unaligned};

use super::attributes::Attributes;
use super::tcp_info;
use crate::socket::{Cookie, Endpoint, Socket, SocketName, State, TcpInfo, Timer};

/// The request that `ss` itself uses: both address families in one walk of the hash table.
const TCPDIAG_GETSOCK: u16 = 18;
/// Attribute: `struct tcp_info`. As a request: bit `INET_DIAG_INFO - 1` of the extensions.
pub(super) const INET_DIAG_INFO: u16 = 2;
/// Attribute: the inode of the socket's cgroup v2 directory, `u64`; arrives without being asked for.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Attribute: `struct inet_diag_sockopt`, bits; arrives without being asked for.
const INET_DIAG_SOCKOPT: u16 = 22;
/// The sixth bit field of its first byte is `transparent`.
const TRANSPARENT: u8 = if cfg!(target_endian = "little") { 1 << 5 } else { 1 << 2 };
const TCP_ESTABLISHED: u8 = 1;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;
const NLMSG_HDRLEN: usize = size_of::<NlMsgHdr>();

/// A request: the sockets, and its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `TCPDIAG_GETSOCK`: both families in one walk; replies carry its number as their type.
    BothFamilies,
    /// `SOCK_DIAG_BY_FAMILY` for IPv4.
    Inet,
    /// `SOCK_DIAG_BY_FAMILY` for IPv6.
    Inet6,
}

impl Request {
    /// The bytes of a dump request for listening, established and half-closed TCP sockets with `tcp_info`.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let states = StateFlags::ESTABLISHED | StateFlags::LISTEN | StateFlags::CLOSE_WAIT | StateFlags::FIN_WAIT2;
        match self {
            Self::BothFamilies => legacy_request(states.bits()),
            Self::Inet => by_family(AF_INET, SocketId::new_v4(), states, NLM_F_REQUEST | NLM_F_DUMP),
            Self::Inet6 => by_family(AF_INET6, SocketId::new_v6(), states, NLM_F_REQUEST | NLM_F_DUMP),
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req`, which the packet crate does not have.
fn legacy_request(states: u32) -> Vec<u8> {
    const LENGTH: usize = NLMSG_HDRLEN + 60;
    let extensions = 1_u8 << (INET_DIAG_INFO - 1);
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend(u32::try_from(LENGTH).unwrap_or_default().to_ne_bytes()); // nlmsg_len
    bytes.extend(TCPDIAG_GETSOCK.to_ne_bytes()); // nlmsg_type
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes()); // nlmsg_flags
    bytes.extend([0; 8]); // nlmsg_seq, nlmsg_pid
    bytes.extend([0, 0, 0, extensions]); // idiag_family: both, src_len, dst_len, idiag_ext
    bytes.extend([0; 48]); // id: any socket
    bytes.extend(states.to_ne_bytes()); // idiag_states
    bytes.extend([0; 4]); // idiag_dbs
    bytes
}

fn by_family(family: u8, socket_id: SocketId, states: StateFlags, flags: u16) -> Vec<u8> {
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states,
        socket_id,
    });
    let mut message = NetlinkMessage::from(request);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Appends a request for one socket by its name, with `tcp_info`. It does not find a socket that is bound to a device,
/// because the device is part of the name.
pub fn lookup(name: &SocketName, bytes: &mut Vec<u8>) {
    let [low, high] = [name.cookie.0 & u64::from(u32::MAX), name.cookie.0 >> 32];
    let mut cookie = [0; 8];
    for (place, half) in cookie.chunks_exact_mut(4).zip([low, high]) {
        place.copy_from_slice(&u32::try_from(half).unwrap_or_default().to_ne_bytes());
    }
    let socket_id = SocketId {
        source_port: name.local.port,
        destination_port: name.remote.port,
        source_address: name.local.addr,
        destination_address: name.remote.addr,
        interface_id: 0,
        cookie,
    };
    // an IPv6 socket that carries IPv4 is found by its IPv4 addresses
    let family = if name.local.addr.is_ipv4() { AF_INET } else { AF_INET6 };
    bytes.extend(by_family(family, socket_id, StateFlags::ESTABLISHED, NLM_F_REQUEST));
}

/// `struct nlmsghdr`, before every message.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NlMsgHdr {
    len: U32<NativeEndian>,
    kind: U16<NativeEndian>,
    flags: U16<NativeEndian>,
    seq: U32<NativeEndian>,
    pid: U32<NativeEndian>,
}

/// `struct inet_diag_msg` in a reply.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InetDiagMsg {
    family: u8,
    pub(super) state: u8,
    timer: u8,
    retrans: u8,
    sport: U16<BigEndian>,
    pub(super) dport: U16<BigEndian>,
    src: [u8; 16],
    dst: [u8; 16],
    interface: U32<NativeEndian>,
    cookie: [U32<NativeEndian>; 2],
    expires: U32<NativeEndian>,
    pub(super) rqueue: U32<NativeEndian>,
    pub(super) wqueue: U32<NativeEndian>,
    uid: U32<NativeEndian>,
    inode: U32<NativeEndian>,
}

impl InetDiagMsg {
    pub(super) fn cookie(&self) -> Cookie {
        let [low, high] = self.cookie;
        Cookie(u64::from(high.get()) << 32 | u64::from(low.get()))
    }
}

/// One netlink message of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The dump is over: 0, or the negative errno it ended with (`NLMSG_DONE`).
    Done(i32),
    /// The request was refused with this negative errno (`NLMSG_ERROR`; 0 would be an acknowledgement).
    Error(i32),
    /// One socket.
    Socket(Reply<'a>),
    /// A message that we did not request.
    Other,
}

/// A socket's reply, in the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub(super) payload: &'a [u8],
}

/// The reason why bytes cannot be decoded. It is never fatal: the rest of the dump still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A netlink message is cut off or has an impossible length.
    #[error("a netlink message is cut off")]
    Message,
    /// An `inet_diag_msg` is shorter than its 72 bytes.
    #[error("an inet_diag_msg is cut off")]
    InetDiagMsg,
}

impl Reply<'_> {
    /// The socket; `None` for a state or family that we do not audit. Attributes that are cut off are treated as
    /// absent.
    pub fn socket(self) -> Result<Option<Socket>, WireError> {
        let (msg, attributes) = InetDiagMsg::ref_from_prefix(self.payload).map_err(|_| WireError::InetDiagMsg)?;
        let state = match msg.state {
            TCP_ESTABLISHED => State::Established,
            TCP_LISTEN => State::Listen,
            TCP_CLOSE_WAIT => State::CloseWait,
            TCP_FIN_WAIT2 => State::FinWait2,
            _ => return Ok(None),
        };
        let addr = |bytes: &[u8; 16]| match msg.family {
            AF_INET => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
            AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(*bytes))),
            _ => None,
        };
        let (Some(src), Some(dst)) = (addr(&msg.src), addr(&msg.dst)) else { return Ok(None) };

        let mut tcp = TcpInfo::default();
        let mut cgroup = None;
        let mut is_transparent = false;
        for (kind, value) in Attributes(attributes) {
            match kind {
                INET_DIAG_INFO => tcp = tcp_info::read(value),
                INET_DIAG_SOCKOPT => is_transparent = value.first().is_some_and(|bits| bits & TRANSPARENT != 0),
                INET_DIAG_CGROUP_ID => cgroup = value.first_chunk().map(|id| u64::from_ne_bytes(*id)),
                _ => {}
            }
        }
        Ok(Some(Socket {
            cookie: msg.cookie(),
            state,
            local: Endpoint::new(src, msg.sport.get()),
            remote: Endpoint::new(dst, msg.dport.get()),
            inet6: msg.family == AF_INET6,
            timer: Timer::from_idiag(msg.timer),
            expires: msg.expires.get(),
            retransmits: msg.retrans,
            uid: msg.uid.get(),
            inode: msg.inode.get(),
            cgroup,
            device: msg.interface.get(),
            is_transparent,
            tcp,
        }))
    }
}

/// The messages of one datagram, in order; [`Messages::interrupted`] says afterwards whether the dump was interrupted.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    interrupted: bool,
}

impl<'a> Messages<'a> {
    /// The messages in a datagram as received.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram, interrupted: false }
    }

    /// Whether a message so far said that the table changed under the walk (`NLM_F_DUMP_INTR`).
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let Ok((header, _)) = NlMsgHdr::ref_from_prefix(bytes) else { return Some(Err(WireError::Message)) };
        let length = header.len.get() as usize;
        let Some(payload) = bytes.get(NLMSG_HDRLEN..length) else { return Some(Err(WireError::Message)) };
        // messages are aligned to 4 bytes; the last one may lack its padding
        self.rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        self.interrupted |= header.flags.get() & NLM_F_DUMP_INTR != 0;
        let errno = || payload.first_chunk().map_or(0, |errno| i32::from_ne_bytes(*errno));
        Some(Ok(match header.kind.get() {
            NLMSG_DONE => Message::Done(errno()),
            NLMSG_ERROR => Message::Error(errno()),
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => Message::Socket(Reply { payload }),
            _ => Message::Other,
        }))
    }
}

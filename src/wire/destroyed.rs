//! Sockets that have ended: the kernel's destroy events, and sockets in the states before CLOSE.

use zerocopy::FromBytes as _;

use super::attributes::Attributes;
use super::inet_diag::{INET_DIAG_INFO, InetDiagMsg, Reply};
use super::tcp_info;
use crate::socket::{Cookie, EndedSocket, TcpInfo};

/// The states after an orderly close on either side: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING.
const CLOSING: [u8; 6] = [4, 5, 6, 8, 9, 11];

impl Reply<'_> {
    /// The cookie of the socket.
    #[must_use]
    pub fn cookie(self) -> Option<Cookie> {
        InetDiagMsg::ref_from_prefix(self.payload).ok().map(|(msg, _)| msg.cookie())
    }

    /// Whether one side has closed the connection in order, and the kernel still has a socket for it.
    #[must_use]
    pub fn is_closing(self) -> bool {
        InetDiagMsg::ref_from_prefix(self.payload).is_ok_and(|(msg, _)| CLOSING.contains(&msg.state))
    }

    /// The socket of a destroy event; `None` where the message is cut off.
    #[must_use]
    pub fn ended(self) -> Option<EndedSocket> {
        let (msg, attributes) = InetDiagMsg::ref_from_prefix(self.payload).ok()?;
        let info = Attributes(attributes).find(|&(kind, _)| kind == INET_DIAG_INFO);
        Some(EndedSocket {
            cookie: msg.cookie(),
            remote_port: msg.dport.get(),
            unread: msg.rqueue.get(),
            queued: msg.wqueue.get(),
            tcp: info.map_or_else(TcpInfo::default, |(_, info)| tcp_info::read(info)),
        })
    }
}

//! Asks `sock_diag` for the TCP sockets of the namespace that the thread is in, and passes on raw datagrams until the dump ends.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::record::LossReason;
use crate::wire::inet_diag::{Message, Messages, Request};

/// The kernel fills at most this much for one receive of a dump; larger buffers gain nothing, 8 KiB cost 15 % more (measured).
pub const BUFFER: usize = 32 * 1024;
/// The kernel answers a dump within milliseconds; this long means that something is wrong with it.
const ANSWER: Duration = Duration::from_secs(10);
/// `MSG_TRUNC`: a receive returns the datagram's true length, so that a cut one is noticed.
const MSG_TRUNC: i32 = 0x20;

/// How a dump ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The table changed during the walk: some sockets may be missing.
    pub interrupted: bool,
    /// Why the dump could not be finished.
    pub error: Option<DiagError>,
}

impl From<DiagError> for Ended {
    fn from(error: DiagError) -> Self {
        Self { interrupted: true, error: Some(error) }
    }
}

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}{}", hint(*.reason))]
pub struct DiagError {
    action: &'static str,
    /// As a label.
    pub reason: LossReason,
    source: io::Error,
}

fn hint(reason: LossReason) -> &'static str {
    match reason {
        LossReason::NoTcpDiag => {
            ". The kernel has no tcp_diag: load the module (modprobe tcp_diag), or enable CONFIG_INET_DIAG"
        }
        LossReason::Timeout => ". The kernel did not answer in time",
        _ => "",
    }
}

/// How this kernel is asked. Found out once: a kernel that refuses the request for both families refuses it always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Both families in one walk of the hash table.
    #[default]
    OneWalk,
    /// One request per family: two walks.
    PerFamily,
}

/// Dumps the current namespace; `each` receives every datagram as it came. The socket is closed before this returns.
///
/// An error of the kernel is part of [`Ended`]; an error of `each` ends the dump and is returned.
pub fn dump<E>(
    dialect: &mut Dialect,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Ended, E> {
    let socket = match open() {
        Ok(socket) => socket,
        Err(error) => return Ok(error.into()),
    };
    if *dialect == Dialect::OneWalk {
        let ended = ask(&socket, Request::BothFamilies, buffer, &mut each)?;
        if !ended.error.as_ref().is_some_and(refused) {
            return Ok(ended);
        }
        *dialect = Dialect::PerFamily;
    }
    let mut interrupted = false;
    for request in [Request::Inet, Request::Inet6] {
        let ended = ask(&socket, request, buffer, &mut each)?;
        match ended.error {
            None => interrupted |= ended.interrupted,
            // a kernel without IPv6 has no IPv6 sockets
            Some(error) if request == Request::Inet6 && refused(&error) => {}
            Some(error) => return Ok(error.into()),
        }
    }
    Ok(Ended { interrupted, error: None })
}

fn refused(error: &DiagError) -> bool {
    let refusals = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOENT, Errno::PROTONOSUPPORT, Errno::AFNOSUPPORT];
    error.source.raw_os_error().is_some_and(|errno| refusals.iter().any(|refusal| refusal.raw_os_error() == errno))
}

/// A `sock_diag` socket of the namespace that the thread is in.
pub(super) fn open() -> Result<Socket, DiagError> {
    let failed = |action, source| DiagError { action, reason: LossReason::NoTcpDiag, source };
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(|source| failed("open a sock_diag socket", source))?;
    socket.bind_auto().map_err(|source| failed("bind a sock_diag socket", source))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(|source| failed("connect a sock_diag socket", source))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))
        .map_err(|errno| failed("set a timeout on a sock_diag socket", errno.into()))?;
    Ok(socket)
}

/// Sends requests.
pub(super) fn send(socket: &Socket, requests: &[u8]) -> Result<(), DiagError> {
    socket.send(requests, 0).map(drop).map_err(|source| {
        let missing = source.raw_os_error() == Some(Errno::NOENT.raw_os_error());
        let reason = if missing { LossReason::NoTcpDiag } else { LossReason::Dump };
        DiagError { action: "ask sock_diag for TCP sockets", reason, source }
    })
}

/// Appends one datagram to what the buffer has room for beyond its content; returns the datagram's true length.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> Result<usize, DiagError> {
    loop {
        match socket.recv(buffer, MSG_TRUNC) {
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            received => {
                return received.map_err(|source| {
                    let timeout = matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    let reason = if timeout { LossReason::Timeout } else { LossReason::Dump };
                    DiagError { action: "receive TCP sockets from sock_diag", reason, source }
                });
            }
        }
    }
}

/// Sends one request and passes its answer on.
fn ask<E>(
    socket: &Socket,
    request: Request,
    buffer: &mut Vec<u8>,
    each: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Ended, E> {
    if let Err(error) = send(socket, &request.to_bytes()) {
        return Ok(error.into());
    }
    let mut interrupted = false;
    loop {
        buffer.clear();
        buffer.reserve_exact(BUFFER);
        let length = match receive(socket, buffer) {
            Ok(length) => length,
            Err(error) => return Ok(error.into()),
        };
        let datagram = &buffer[..length.min(buffer.len())];
        interrupted |= length > datagram.len();
        match end(datagram, &mut interrupted) {
            None => each(datagram)?,
            Some(errno) => {
                // the last datagram may hold sockets before its end mark
                each(datagram)?;
                return Ok(errno.map_or_else(Ended::from, |()| Ended { interrupted, error: None }));
            }
        }
    }
}

/// Whether the dump ends in this datagram, and how.
fn end(datagram: &[u8], interrupted: &mut bool) -> Option<Result<(), DiagError>> {
    let mut messages = Messages::new(datagram);
    let mut ended = None;
    for message in &mut messages {
        match message {
            Ok(Message::Done(0)) => ended = Some(Ok(())),
            Ok(Message::Done(errno) | Message::Error(errno)) if errno < 0 => {
                let source = io::Error::from_raw_os_error(errno.saturating_neg());
                let reason =
                    if errno == -Errno::NOENT.raw_os_error() { LossReason::NoTcpDiag } else { LossReason::Dump };
                ended = Some(Err(DiagError { action: "dump TCP sockets", reason, source }));
            }
            Ok(_) => {}
            Err(_) => *interrupted = true,
        }
    }
    *interrupted |= messages.interrupted();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    /// The local ports of the sockets that a dump tells, and the dialect that it ended in.
    fn ports(mut dialect: Dialect) -> (BTreeSet<u16>, Dialect) {
        let mut ports = BTreeSet::new();
        let ended: io::Result<_> = dump(&mut dialect, &mut Vec::new(), |datagram| {
            for message in Messages::new(datagram).flatten() {
                if let Message::Socket(reply) = message
                    && let Ok(Some(socket)) = reply.socket()
                {
                    ports.insert(socket.local.port);
                }
            }
            Ok(())
        });
        assert!(ended.unwrap().error.is_none());
        (ports, dialect)
    }

    #[test]
    fn one_walk_and_one_request_per_family_tell_the_same_sockets() {
        let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        // a machine may have no IPv6 on its loopback
        let listeners: Vec<_> = addresses.iter().filter_map(|&addr| TcpListener::bind((addr, 0)).ok()).collect();
        let streams: Vec<_> =
            listeners.iter().map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let listening = listeners.iter().map(|listener| listener.local_addr().unwrap().port());
        let ours: BTreeSet<u16> =
            listening.chain(streams.iter().map(|stream| stream.local_addr().unwrap().port())).collect();
        assert!(ours.len() >= 2);
        for wanted in [Dialect::OneWalk, Dialect::PerFamily] {
            let (found, dialect) = ports(wanted);
            assert!(found.is_superset(&ours), "{wanted:?}: {found:?} lacks some of {ours:?}");
            assert_eq!(dialect, wanted, "this kernel knows both");
        }
    }

    #[test]
    fn a_kernel_that_refuses_one_request_is_asked_per_family_and_one_that_fails_is_not() {
        let error = |errno: Errno| DiagError { action: "dump", reason: LossReason::Dump, source: errno.into() };
        for refusal in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOENT] {
            assert!(refused(&error(refusal)), "{refusal}");
        }
        for failure in [Errno::NOMEM, Errno::PERM, Errno::INTR] {
            assert!(!refused(&error(failure)), "{failure}");
        }
    }
}

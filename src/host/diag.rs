//! Asks `sock_diag` for the TCP sockets of the thread's current namespace, and passes on raw datagrams until the dump
//! ends.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::failure;
use crate::record::LossReason;
use crate::wire::inet_diag::{Message, Messages, Request};

/// The kernel returns at most this much in one receive of a dump. A larger buffer is not faster, and one of 8 KiB costs
/// 15 % more time (measured).
pub const BUFFER: usize = 32 * 1024;
/// The kernel answers a dump within milliseconds. A delay of this length is an error.
const ANSWER: Duration = Duration::from_secs(10);
/// `MSG_TRUNC`: a receive returns the datagram's true length, so that we notice a truncated one.
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
    /// The label value.
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

impl DiagError {
    /// An error of a socket call. `EPROTONOSUPPORT` and `ENOENT` say that the kernel lacks a module; nothing else does.
    fn new(action: &'static str, source: io::Error) -> Self {
        let reason = match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::PROTONOSUPPORT) => LossReason::NoTcpDiag,
            Some(Errno::AGAIN) => LossReason::Timeout,
            _ => match failure::reason(&source) {
                LossReason::Other => LossReason::Dump,
                reason => reason,
            },
        };
        Self { action, reason, source }
    }

    /// The kernel does not know the request, or not yet.
    fn is_refusal(&self) -> bool {
        let refusals = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOENT, Errno::PROTONOSUPPORT, Errno::AFNOSUPPORT];
        Errno::from_io_error(&self.source).is_some_and(|errno| refusals.contains(&errno))
    }
}

/// The known properties of the kernel's `sock_diag`. Each sweep finds them again, because a module may have been
/// loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    dialect: Dialect,
    /// It has no `tcp_diag`. Each further request would start a `modprobe`.
    has_no_tcp_diag: bool,
}

/// The form of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Dialect {
    /// Both families in one walk of the hash table.
    #[default]
    OneWalk,
    /// One request per family: two walks.
    PerFamily,
}

impl Kernel {
    /// Begins a sweep.
    pub fn begin_sweep(&mut self) {
        *self = Self::default();
    }
}

/// Dumps the current namespace. `each` receives every datagram unchanged. The socket is closed before this returns.
///
/// An error of the kernel is part of [`Ended`]. An error of `each` ends the dump and is returned.
pub fn dump<E>(
    kernel: &mut Kernel,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Ended, E> {
    if kernel.has_no_tcp_diag {
        return Ok(DiagError::new("dump TCP sockets", Errno::NOENT.into()).into());
    }
    let ended = match open() {
        Ok(socket) => dump_from(&socket, kernel, buffer, &mut each)?,
        Err(error) => error.into(),
    };
    kernel.has_no_tcp_diag = ended.error.as_ref().is_some_and(|error| error.reason == LossReason::NoTcpDiag);
    Ok(ended)
}

fn dump_from<E>(
    socket: &Socket,
    kernel: &mut Kernel,
    buffer: &mut Vec<u8>,
    each: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Ended, E> {
    if kernel.dialect == Dialect::OneWalk {
        let ended = ask(socket, Request::BothFamilies, buffer, each)?;
        // a kernel without tcp_diag has no answer to the other requests either
        if !ended.error.as_ref().is_some_and(|error| error.is_refusal() && error.reason != LossReason::NoTcpDiag) {
            return Ok(ended);
        }
        kernel.dialect = Dialect::PerFamily;
    }
    let mut interrupted = false;
    for request in [Request::Inet, Request::Inet6] {
        let ended = ask(socket, request, buffer, each)?;
        match ended.error {
            None => interrupted |= ended.interrupted,
            // a kernel without IPv6 has no IPv6 sockets
            Some(error) if request == Request::Inet6 && error.is_refusal() => {}
            Some(error) => return Ok(error.into()),
        }
    }
    Ok(Ended { interrupted, error: None })
}

/// A `sock_diag` socket of the thread's current namespace.
pub(super) fn open() -> Result<Socket, DiagError> {
    let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(|source| DiagError::new("open a sock_diag socket", source))?;
    // this binds it, too
    socket.connect(&SocketAddr::new(0, 0)).map_err(|source| DiagError::new("connect a sock_diag socket", source))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))
        .map_err(|errno| DiagError::new("set a timeout on a sock_diag socket", errno.into()))?;
    Ok(socket)
}

/// Sends requests.
pub(super) fn send(socket: &Socket, requests: &[u8]) -> Result<(), DiagError> {
    socket.send(requests, 0).map(drop).map_err(|source| DiagError::new("ask sock_diag for TCP sockets", source))
}

/// Appends one datagram to the buffer, within its capacity. Returns the datagram's true length.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> Result<usize, DiagError> {
    loop {
        match socket.recv(buffer, MSG_TRUNC) {
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            received => {
                return received.map_err(|source| DiagError::new("receive TCP sockets from sock_diag", source));
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
                ended = Some(Err(DiagError::new("dump TCP sockets", source)));
            }
            Ok(_) => {}
            Err(_) => *interrupted = true,
        }
    }
    *interrupted |= messages.interrupted();
    ended
}

#[cfg(test)]
mod tests;

//! Asks `sock_diag` for known sockets, one by one. The kernel finds each in its table by addresses and ports.
//!
//! A dump walks the whole table instead: on a node with many connections, a few hundred lookups cost a fraction of
//! that.

use super::diag::{DiagError, receive, send};
use crate::socket::SocketName;
use crate::wire::inet_diag::{Message, Messages, lookup};

/// The number of requests in one send. Each answer takes 1 to 2 KiB of the socket's receive buffer, which has some
/// 200 KiB by default.
const BATCH: usize = 32;
/// More than the kernel sends about one socket.
const ANSWER: usize = 4096;

/// The answers, one entry per batch: the netlink messages, and when they were received (monotonic milliseconds).
pub type Answers = Vec<(u64, Vec<u8>)>;

/// Looks up sockets of the thread's current namespace.
///
/// `None` if one of them has closed, or cannot be found by its name because it is bound to a device. Then only a dump
/// shows all sockets.
pub fn look_up(sockets: &[SocketName]) -> Result<Option<Answers>, DiagError> {
    if sockets.is_empty() {
        return Ok(Some(Answers::new()));
    }
    let socket = super::diag::open()?;
    let mut answers = Vec::with_capacity(sockets.len().div_ceil(BATCH));
    for batch in sockets.chunks(BATCH) {
        let mut requests = Vec::new();
        for name in batch {
            lookup(name, &mut requests);
        }
        send(&socket, &requests)?;
        let mut bytes = Vec::with_capacity(BATCH * 512 + ANSWER);
        for _ in batch {
            let from = bytes.len();
            bytes.reserve(ANSWER);
            let length = receive(&socket, &mut bytes)?;
            let found = matches!(Messages::new(&bytes[from..]).next(), Some(Ok(Message::Socket(_))));
            if !found || length != bytes.len() - from {
                return Ok(None);
            }
            // the next message begins where netlink expects it
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        answers.push((super::clock(), bytes));
    }
    Ok(Some(answers))
}

/// Looks up sockets of the thread's current namespace. Closed ones are left out. The answers are consecutive netlink
/// messages.
pub fn find(sockets: &[SocketName]) -> Result<Vec<u8>, DiagError> {
    let mut found = Vec::new();
    if sockets.is_empty() {
        return Ok(found);
    }
    let socket = super::diag::open()?;
    for batch in sockets.chunks(BATCH) {
        let mut requests = Vec::new();
        for name in batch {
            lookup(name, &mut requests);
        }
        send(&socket, &requests)?;
        for _ in batch {
            let from = found.len();
            found.reserve(ANSWER);
            receive(&socket, &mut found)?;
            if matches!(Messages::new(&found[from..]).next(), Some(Ok(Message::Socket(_)))) {
                found.resize(found.len().next_multiple_of(4), 0);
            } else {
                found.truncate(from);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;
    use crate::host::diag::{Kernel, dump};
    use crate::socket::{Cookie, Socket, State};

    /// The sockets in these bytes.
    fn sockets(bytes: &[u8]) -> Vec<Socket> {
        Messages::new(bytes)
            .filter_map(|message| match message {
                Ok(Message::Socket(reply)) => reply.socket().unwrap(),
                _ => None,
            })
            .collect()
    }

    /// The names of all connections with one of these ports, from a dump.
    fn names(ports: &[u16]) -> Vec<SocketName> {
        let mut names = Vec::new();
        let ended: std::io::Result<_> = dump(&mut Kernel::default(), &mut Vec::new(), |datagram| {
            names.extend(
                sockets(datagram).iter().filter(|socket| socket.state == State::Established).map(|socket| SocketName {
                    local: socket.local,
                    remote: socket.remote,
                    cookie: socket.cookie,
                }),
            );
            Ok(())
        });
        assert!(ended.unwrap().error.is_none());
        names.retain(|name| ports.contains(&name.local.port) || ports.contains(&name.remote.port));
        names
    }

    #[test]
    fn a_socket_of_a_dump_can_be_looked_up_until_it_closes() {
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        let addresses: [(IpAddr, IpAddr); 3] = [
            (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()),
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
            (Ipv6Addr::UNSPECIFIED.into(), mapped),
        ];
        // a machine may have no IPv6 on its loopback
        let listeners: Vec<_> =
            addresses.iter().filter_map(|&(on, to)| Some((TcpListener::bind((on, 0)).ok()?, to))).collect();
        let ports: Vec<u16> = listeners.iter().map(|(listener, _)| listener.local_addr().unwrap().port()).collect();
        let mut held = Vec::new();
        for ((listener, to), port) in listeners.iter().zip(&ports) {
            // more than one batch in all
            for _ in 0..BATCH {
                held.push(TcpStream::connect((*to, *port)).unwrap());
                held.push(listener.accept().unwrap().0);
            }
        }
        let names = names(&ports);
        assert_eq!(names.len(), held.len());
        let answers = look_up(&names).unwrap().expect("every socket is there");
        let found: Vec<_> = answers.iter().flat_map(|(_, bytes)| sockets(bytes)).collect();
        let answered: Vec<_> =
            found.iter().map(|it| SocketName { local: it.local, remote: it.remote, cookie: it.cookie }).collect();
        assert_eq!(answered, names);
        assert!(found.iter().all(|socket| socket.tcp.segs_in.is_some()), "with tcp_info");

        let other = Cookie(names[0].cookie.0 ^ 1);
        assert!(
            look_up(&[SocketName { cookie: other, ..names[0] }]).unwrap().is_none(),
            "the name of a closed socket, used again"
        );
        held.clear();
        assert!(look_up(&names).unwrap().is_none(), "gone");
        assert!(look_up(&[]).unwrap().unwrap().is_empty());
    }
}

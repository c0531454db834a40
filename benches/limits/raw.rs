//! The lower bound: a loop with the program's own request and buffer that receives the answer and reads only its end.

use keepalive_auditor::host::diag::BUFFER;
use keepalive_auditor::wire::inet_diag::Request;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::{RecvFlags, recv};

/// A `sock_diag` socket of the namespace that the thread is in.
pub fn open() -> Socket {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).expect("a sock_diag socket");
    socket.bind_auto().expect("a bound sock_diag socket");
    socket.connect(&SocketAddr::new(0, 0)).expect("a connected sock_diag socket");
    socket
}

/// Sends the requests one after the other and discards the answers. Returns the number of bytes.
pub fn drain(socket: &Socket, requests: &[Request]) -> usize {
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    for request in requests {
        socket.send(&request.to_bytes(), 0).expect("a request is sent");
        loop {
            let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty()).expect("an answer is received");
            bytes += length;
            if is_last(&buffer[..length]) {
                break;
            }
        }
    }
    bytes
}

/// Whether a datagram ends with `NLMSG_DONE`: a header of 16 bytes and an errno.
fn is_last(datagram: &[u8]) -> bool {
    let Some((_, done)) = datagram.split_last_chunk::<20>() else { panic!("an answer shorter than its end") };
    done[..6] == [20, 0, 0, 0, 3, 0]
}

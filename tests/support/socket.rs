//! TCP connections between two namespaces, with given keepalive options at each end.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::fs::fstat;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

use super::netns::Netns;

/// The keepalive options of one end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keepalive {
    /// `SO_KEEPALIVE` is off.
    Off,
    /// `SO_KEEPALIVE` alone. The namespace's sysctls apply: 7200 s in a new namespace.
    Default,
    /// `SO_KEEPALIVE`, with `TCP_KEEPIDLE` and `TCP_KEEPINTVL` set to this many seconds.
    Idle(u32),
    /// `SO_KEEPALIVE`, with `TCP_KEEPIDLE` and `TCP_KEEPINTVL` set to these seconds.
    IdleThenEvery(u32, u32),
}

impl Keepalive {
    /// Sets the options of a socket.
    pub fn apply(self, stream: &TcpStream) {
        if let Self::Idle(idle) | Self::IdleThenEvery(idle, _) = self {
            let interval = if let Self::IdleThenEvery(_, interval) = self { interval } else { idle };
            // TCP_KEEPINTVL comes first: a socket that is already idle for longer than KEEPIDLE probes at once, then
            // waits KEEPINTVL.
            sockopt::set_tcp_keepintvl(stream, Duration::from_secs(interval.into())).expect("TCP_KEEPINTVL is set");
            sockopt::set_tcp_keepidle(stream, Duration::from_secs(idle.into())).expect("TCP_KEEPIDLE is set");
        }
        sockopt::set_socket_keepalive(stream, self != Self::Off).expect("SO_KEEPALIVE is set");
    }
}

/// Identifies a socket in a report: the inode of its namespace, and its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub netns: u64,
    pub cookie: u64,
}

/// One end of a connection.
pub struct End {
    pub stream: TcpStream,
    pub id: Id,
    /// Its inode in sockfs.
    pub inode: u64,
}

impl End {
    fn new(stream: TcpStream, netns: u64) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY is set");
        let cookie = sockopt::socket_cookie(&stream).expect("a socket has a cookie");
        let inode = fstat(&stream).expect("a socket has an inode").st_ino;
        Self { stream, id: Id { netns, cookie }, inode }
    }

    pub fn local(&self) -> SocketAddr {
        canonical(self.stream.local_addr().expect("a connected socket has an address"))
    }

    pub fn remote(&self) -> SocketAddr {
        canonical(self.stream.peer_addr().expect("a connected socket has a peer"))
    }
}

/// Both ends of a connection.
pub struct Connection {
    pub client: End,
    pub server: End,
}

impl Connection {
    /// The client sends one byte and the server reads it.
    pub fn send_request(&mut self) {
        self.client.stream.write_all(b"?").expect("the client writes");
        self.server.stream.read_exact(&mut [0]).expect("the server reads");
    }

    /// The client sends one byte and the server answers with one.
    pub fn exchange(&mut self) {
        self.send_request();
        self.server.stream.write_all(b"!").expect("the server writes");
        self.client.stream.read_exact(&mut [0]).expect("the client reads");
    }

    /// The client writes until the window of the server, which reads nothing, is closed.
    pub fn fill_window(&mut self) {
        fill_windows(&mut [&mut self.client.stream]);
    }
}

/// Each stream writes until the window of its peer, which reads nothing, is closed.
pub fn fill_windows(streams: &mut [&mut TcpStream]) {
    for stream in &mut *streams {
        stream.set_nonblocking(true).expect("O_NONBLOCK is set");
    }
    // The send buffer is full before the window is closed, because data is still in flight.
    let mut quiet = 0;
    while quiet < 8 {
        quiet += 1;
        for stream in &mut *streams {
            while stream.write(&[0; 16 << 10]).is_ok() {
                quiet = 0;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for stream in streams {
        stream.set_nonblocking(false).expect("O_NONBLOCK is cleared");
    }
}

/// A listener in a namespace.
pub struct Server {
    listener: TcpListener,
    netns: u64,
    pub port: u16,
}

impl Server {
    /// Listens on `[::]`, which takes IPv4 as v4-mapped.
    pub fn dual(netns: &Netns, port: u16) -> Self {
        Self::at(netns, SocketAddr::new(IpAddr::from([0_u16; 8]), port))
    }

    /// Listens on `0.0.0.0`.
    pub fn ipv4(netns: &Netns, port: u16) -> Self {
        Self::at(netns, SocketAddr::new(IpAddr::from([0_u8; 4]), port))
    }

    /// Listens on an address.
    pub fn at(netns: &Netns, addr: SocketAddr) -> Self {
        let listener = netns.enter(|| {
            let socket = stream_socket(addr.ip());
            sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR is set");
            bind(&socket, &addr).unwrap_or_else(|error| panic!("bind {addr}: {error}"));
            listen(&socket, 4096).expect("the socket listens");
            TcpListener::from(socket)
        });
        Self { listener, netns: netns.inode, port: addr.port() }
    }

    /// Accepts the next connection that another program opens.
    pub fn accept(&self) -> TcpStream {
        self.listener.accept().expect("the server accepts").0
    }

    /// Opens a connection from `client` to this server's address `to`, with these options of client and server.
    pub fn connect(&self, client: &Netns, to: IpAddr, keep: [Keepalive; 2]) -> Connection {
        self.connect_from(client, None, SocketAddr::new(to, self.port), keep)
    }

    /// As [`Server::connect`], to an address and port that NAT translates to this server's, from `port` if given.
    pub fn connect_from(&self, client: &Netns, port: Option<u16>, to: SocketAddr, keep: [Keepalive; 2]) -> Connection {
        let stream = client.enter(|| {
            let socket = stream_socket(to.ip());
            if let Some(port) = port {
                sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR is set");
                let any = if to.is_ipv4() { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u16; 8]) };
                bind(&socket, &SocketAddr::new(any, port)).unwrap_or_else(|error| panic!("bind {port}: {error}"));
            }
            connect(&socket, &to).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
            TcpStream::from(socket)
        });
        let (accepted, from) = self.listener.accept().expect("the server accepts");
        assert_eq!(
            from.port(),
            stream.local_addr().expect("a client has an address").port(),
            "accepted another connection"
        );
        let connection = Connection { client: End::new(stream, client.inode), server: End::new(accepted, self.netns) };
        keep[0].apply(&connection.client.stream);
        keep[1].apply(&connection.server.stream);
        connection
    }
}

fn stream_socket(addr: IpAddr) -> rustix::fd::OwnedFd {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // CLOEXEC: the program under test must not inherit the socket, because that would keep the namespace alive.
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a TCP socket is made")
}

/// The address on the wire: an IPv4-mapped address is IPv4.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

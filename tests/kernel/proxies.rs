//! Proxies and NAT whose sockets look like the two ends of one connection, and are not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};
use socket2::SockRef;

use crate::support::binary::{Report, audit};
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4};
use crate::support::rtnetlink;
use crate::support::socket::{Id, Keepalive, Server};

const RULES: [&str; 4] = ["--idle-timeout", "100s", "--long-lived", "1ms"];

fn id(stream: &TcpStream, netns: &Netns) -> Id {
    Id { netns: netns.inode, cookie: sockopt::socket_cookie(stream).expect("a socket has a cookie") }
}

/// A socket that may use an address that is not the host's.
fn transparent(at: SocketAddr) -> rustix::fd::OwnedFd {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    SockRef::from(&socket).set_ip_transparent_v4(true).expect("IP_TRANSPARENT is set");
    sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR is set");
    bind(&socket, &at).expect("the address is free");
    socket
}

/// A client and a server on other machines, and between them a proxy that keeps the client's address and port.
struct Proxied {
    proxy: Netns,
    /// The proxy's socket to the client, and the one to the server.
    legs: [TcpStream; 2],
    _ends: (TcpStream, TcpStream, Netns, Netns),
}

impl Proxied {
    /// `at` is the address to which the client connects.
    fn new(at: SocketAddr) -> Self {
        let (client, server) = (Netns::unlisted("client"), Netns::unlisted("server"));
        let proxy = Netns::named("proxy");
        join("veth0", (&client, &addresses(1, 2)), (&proxy, &addresses(1, 1)));
        join("veth1", (&proxy, &addresses(2, 1)), (&server, &addresses(2, 2)));
        client.enter(|| rtnetlink::add_route((v4(2, 0), 24), v4(1, 1))).expect("a route");
        server.enter(|| rtnetlink::add_route((v4(1, 0), 24), v4(2, 1))).expect("a route");
        proxy.sysctl("net.ipv4.conf.all.rp_filter", "0");
        proxy.sysctl("net.ipv4.conf.veth0.rp_filter", "0");
        proxy.sysctl("net.ipv4.conf.veth1.rp_filter", "0");
        proxy.run("ip", &["route", "add", "local", "default", "dev", "lo", "table", "100"]);
        // What comes from one side for the other is the proxy's.
        proxy.run("ip", &["rule", "add", "pref", "1", "iif", "veth0", "to", "10.99.2.2", "lookup", "100"]);
        proxy.run("ip", &["rule", "add", "pref", "2", "iif", "veth1", "to", "10.99.1.2", "lookup", "100"]);
        let to = SocketAddr::new(v4(2, 2), 8080);
        let listener = proxy.enter(|| {
            let socket = transparent(at);
            listen(&socket, 8).expect("the proxy listens");
            TcpListener::from(socket)
        });
        let backend = server.enter(|| TcpListener::bind(to)).expect("the server listens");
        let mut near = client.enter(|| TcpStream::connect(at)).expect("the client connects");
        let (mut accepted, from) = listener.accept().expect("the proxy accepts");
        let mut upstream = proxy.enter(|| {
            let socket = transparent(from);
            connect(&socket, &to).expect("the proxy connects");
            TcpStream::from(socket)
        });
        let (mut far, seen) = backend.accept().expect("the server accepts");
        assert_eq!(seen, from, "the server sees the client's address and port");
        for (one, other) in [(&mut near, &mut accepted), (&mut upstream, &mut far)] {
            one.write_all(b"?").expect("it writes");
            other.read_exact(&mut [0]).expect("it reads");
        }
        Self { proxy, legs: [accepted, upstream], _ends: (near, far, client, server) }
    }

    fn check(&self, case: &str, report: &Report, checks: &mut Checks) {
        for (leg, direction) in self.legs.iter().zip(["inbound", "outbound"]) {
            let row = report.row(id(leg, &self.proxy));
            checks.that(row.is_some_and(|row| row.verdict == "exposed" && !row.peer.on_node), || {
                format!("{case}, {direction}: it crosses the network: {row:?}")
            });
            checks.equal(&format!("{case}, {direction}"), row.map(|row| &*row.direction), Some(direction));
        }
    }
}

kernel_test!(the_two_legs_of_a_transparent_proxy_are_not_one_connection, || {
    let mut checks = Checks::default();
    // By an address of its own, as HAProxy with `usesrc client`.
    let scene = Proxied::new(SocketAddr::new(v4(1, 1), 80));
    std::thread::sleep(Duration::from_millis(250));
    scene.check("own address", &audit(&RULES), &mut checks);
    checks.finish();
}, needs "ip");

kernel_test!(the_two_legs_of_a_proxy_by_tproxy_are_not_one_connection, || {
    let mut checks = Checks::default();
    // By the server's address, as with TPROXY: the tuples of both legs are exactly reversed.
    let scene = Proxied::new(SocketAddr::new(v4(2, 2), 8080));
    std::thread::sleep(Duration::from_millis(250));
    scene.check("the server's address", &audit(&RULES), &mut checks);
    checks.finish();
}, needs "ip");

kernel_test!(a_socket_with_the_endpoint_that_nat_gave_to_another_is_not_its_peer, || {
    let (client, server, host) = (Netns::named("client"), Netns::named("server"), Netns::named("host"));
    let elsewhere = Netns::unlisted("elsewhere");
    join("veth0", (&client, &addresses(1, 2)), (&host, &addresses(1, 1)));
    join("veth1", (&host, &addresses(2, 1)), (&server, &addresses(2, 2)));
    join("veth2", (&host, &addresses(3, 1)), (&elsewhere, &addresses(3, 2)));
    host.sysctl("net.ipv4.ip_forward", "1");
    client.enter(|| rtnetlink::add_route((v4(2, 0), 24), v4(1, 1))).expect("a route");
    elsewhere.enter(|| rtnetlink::add_route((v4(2, 0), 24), v4(3, 1))).expect("a route");
    host.run("nft", &["table ip nat { chain post { type nat hook postrouting priority srcnat; \
                       ip saddr 10.99.1.2 masquerade; }; }"]);
    // A process of the host uses the endpoint 10.99.2.1:40000 for a server elsewhere.
    let target = elsewhere.enter(|| TcpListener::bind(SocketAddr::new(v4(3, 2), 443))).expect("it listens");
    let mut other = host.enter(|| {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("made");
        bind(&socket, &SocketAddr::new(v4(2, 1), 40_000)).expect("bound");
        connect(&socket, &SocketAddr::new(v4(3, 2), 443)).expect("connected");
        TcpStream::from(socket)
    });
    let (mut far, _) = target.accept().expect("accepted");
    other.write_all(b"?").expect("written");
    far.read_exact(&mut [0]).expect("read");
    std::thread::sleep(Duration::from_millis(5_500));
    // NAT gives the client the same endpoint for its own connection.
    let listener = Server::ipv4(&server, 8080);
    let to = SocketAddr::new(v4(2, 2), 8080);
    let mut through = listener.connect_from(&client, Some(40_000), to, [Keepalive::Off, Keepalive::Idle(20)]);
    through.exchange();
    assert_eq!(through.server.remote(), SocketAddr::new(v4(2, 1), 40_000), "NAT keeps the port");
    std::thread::sleep(Duration::from_millis(1_250));
    let report = audit(&RULES);
    let mut checks = Checks::default();
    let row = report.row(id(&other, &host));
    checks.that(row.is_some_and(|row| row.verdict == "exposed" && row.wire_idle_seconds >= Some(6.0)), || {
        format!("the peer of this one is elsewhere: {row:?}")
    });
    checks.end("behind NAT, client", &report, &through.client, "off", "exposed");
    checks.end("behind NAT, server", &report, &through.server, "on", "protected");
    checks.finish();
}, needs "nft");

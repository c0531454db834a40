//! Which end opened a connection: that decides its service port, and so its path.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

use crate::support::binary::audit;
use crate::support::checks::Checks;
use crate::support::kernel_test;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Id, Keepalive, Server};

kernel_test!(a_connection_is_inbound_after_its_listener_has_closed, || {
    let (near, far) = (Netns::named("near"), Netns::unlisted("far"));
    join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
    let rules = "/run/paths.yaml";
    fs::write(rules, "paths: [{name: service, ports: [8080], idle_timeout: 40s}]\nlong_lived: 1s\n").expect("written");
    let listener = Server::dual(&near, 8080);
    let mut held: Vec<_> = [v4(1, 1), v6(1, 1)]
        .into_iter()
        .map(|to| listener.connect(&far, to, [Keepalive::Off, Keepalive::Idle(60)]))
        .collect();
    held[0].exchange();
    drop(listener);
    std::thread::sleep(Duration::from_millis(1_250));
    let report = audit(&["--config", rules]);
    let mut checks = Checks::default();
    for connection in &held {
        // Probes after 60 s are too late for the path of port 8080, and in time for the default path.
        let Some(row) = checks.end("accepted", &report, &connection.server, "late", "exposed") else { continue };
        checks.equal("its direction", (&*row.direction, &*row.endpoint, &*row.path), ("inbound", ":8080", "service"));
    }
    checks.finish();
});

kernel_test!(a_connection_from_a_port_that_is_listened_on_is_outbound, || {
    let (near, far) = (Netns::named("near"), Netns::unlisted("far"));
    join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
    // As members of a cluster do that speak from the port on which they listen.
    let at = SocketAddr::new(v4(1, 1), 7946);
    let (_listener, stream) = near.enter(|| {
        let sockets = [(); 2].map(|()| {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            let socket = socket.expect("a socket is made");
            sockopt::set_socket_reuseport(&socket, true).expect("SO_REUSEPORT is set");
            bind(&socket, &at).expect("bound");
            socket
        });
        let [one, other] = sockets;
        listen(&one, 8).expect("it listens");
        let target = far.enter(|| TcpListener::bind(SocketAddr::new(v4(1, 2), 443))).expect("it listens");
        connect(&other, &SocketAddr::new(v4(1, 2), 443)).expect("connected");
        ((TcpListener::from(one), target), TcpStream::from(other))
    });
    let report = audit(&[]);
    let cookie = sockopt::socket_cookie(&stream).expect("a socket has a cookie");
    let row = report.row(Id { netns: near.inode, cookie }).expect("it is shown");
    assert_eq!((&*row.direction, &*row.endpoint), ("outbound", "10.99.1.2:443"));
});

kernel_test!(a_socket_that_is_connected_to_itself_is_local, || {
    let near = Netns::named("near");
    let at = SocketAddr::from(([127, 0, 0, 1], 5555));
    let stream = near.enter(|| {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("made");
        bind(&socket, &at).expect("bound");
        connect(&socket, &at).expect("connected");
        TcpStream::from(socket)
    });
    std::thread::sleep(Duration::from_millis(250));
    let report = audit(&["--idle-timeout", "100ms", "--long-lived", "1ms"]);
    let cookie = sockopt::socket_cookie(&stream).expect("a socket has a cookie");
    let row = report.row(Id { netns: near.inode, cookie }).expect("it is shown");
    assert_eq!((&*row.verdict, row.peer.on_node), ("local", true), "{row:?}");
});

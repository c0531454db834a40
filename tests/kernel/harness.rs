//! Checks of the test harness itself, without the program: the namespaces and sockets are as the other tests assume.

use std::io::Write as _;
use std::time::Duration;

use rustix::net::sockopt;

use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Keepalive, Server};
use crate::support::{kernel_test, rtnetlink};

kernel_test!(connections_cross_namespaces_in_both_families_with_the_options_they_were_given, || {
    let (client, server) = (Netns::named("client"), Netns::with_process());
    assert_ne!(client.inode, server.inode);
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::dual(&server, 8080);
    for to in [v4(1, 2), v6(1, 2), "::ffff:10.99.1.2".parse().unwrap()] {
        let mut connection = listener.connect(&client, to, [Keepalive::Idle(60), Keepalive::Off]);
        connection.exchange();
        assert_eq!(connection.client.local(), connection.server.remote());
        assert!(sockopt::socket_keepalive(&connection.client.stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&connection.client.stream).unwrap(), Duration::from_mins(1));
        assert!(!sockopt::socket_keepalive(&connection.server.stream).unwrap());
    }
});

kernel_test!(a_full_window_stops_the_writer_and_a_cut_link_loses_what_is_sent, || {
    let (client, server) = (Netns::named("client"), Netns::named("server"));
    join("veth0", (&client, &addresses(1, 1)), (&server, &addresses(1, 2)));
    let listener = Server::ipv4(&server, 8080);
    let mut full = listener.connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    full.fill_window();
    full.client.stream.set_nonblocking(true).unwrap();
    assert_eq!(full.client.stream.write(&[0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    let mut cut = listener.connect(&client, v4(1, 2), [Keepalive::Off; 2]);
    server.enter(|| rtnetlink::set_link_down("veth0")).unwrap();
    cut.client.stream.write_all(b"lost").unwrap();
    cut.server.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = std::io::Read::read(&mut cut.server.stream, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing arrives");
    server.delete();
});

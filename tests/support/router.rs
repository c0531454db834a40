//! Two hosts, and between them a router with NAT that drops established flows after some seconds.
//!
//! ```text
//! inside 10.99.1.2, .3 -- 10.99.1.1 router 10.99.2.1 -- 10.99.2.2, .3 outside
//! ```
//!
//! Each host reaches the other only through an address of the router. Nothing of this is mocked: the flows expire in
//! the kernel's own conntrack, and what it then makes of a segment is what routers and load balancers of Linux do.

use std::net::{IpAddr, SocketAddr};

use super::netns::{Netns, join, v4};
use super::rtnetlink;
use super::socket::{Connection, Keepalive, Server};

/// After how long the router drops an established flow that is idle.
pub const LIMIT: u32 = 10;
/// The port of both hosts.
const PORT: u16 = 8080;

/// What becomes of a segment of a flow that the router has dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The router drops it.
    Silent,
    /// The router answers with a reset.
    Reset,
    /// The router takes it for a new flow and sends it to another backend, which knows no such connection. So do IPVS
    /// and every load balancer without a table shared by its instances.
    AnotherBackend,
}

impl std::fmt::Display for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Silent => "The router drops segments of flows that it has dropped:",
            Self::Reset => "The router answers segments of flows that it has dropped with a reset:",
            Self::AnotherBackend => "The router sends segments of flows that it has dropped to another backend:",
        })
    }
}

/// Which host opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    Inside,
    Outside,
}

/// The three namespaces.
pub struct Router {
    pub inside: Netns,
    pub outside: Netns,
    outside_server: Server,
    inside_server: Server,
}

/// The folders of the two hosts: an agent that is given one of them does not see the other host.
pub const INSIDE: &str = "/run/inside";
pub const OUTSIDE: &str = "/run/outside";

impl Router {
    /// The two hosts and their router, which drops idle flows after `limit` seconds.
    pub fn new(behaviour: Behaviour, limit: u32) -> Self {
        let inside = Netns::in_directory(INSIDE, "inside");
        let outside = Netns::in_directory(OUTSIDE, "outside");
        let router = Netns::unlisted("router");
        let net = |net: u8, hosts: &[u8]| hosts.iter().map(|host| (v4(net, *host), 24)).collect::<Vec<_>>();
        join("inner", (&router, &net(1, &[1])), (&inside, &net(1, &[2, 3])));
        join("outer", (&router, &net(2, &[1])), (&outside, &net(2, &[2, 3])));
        let everywhere = (IpAddr::from([10, 99, 0, 0]), 16);
        inside.enter(|| rtnetlink::add_route(everywhere, v4(1, 1))).expect("a route to the router");
        outside.enter(|| rtnetlink::add_route(everywhere, v4(2, 1))).expect("a route to the router");
        router.sysctl("net.ipv4.ip_forward", "1");
        let rules = rules(behaviour);
        router.run("nft", &[&rules]);
        let loose = if behaviour == Behaviour::AnotherBackend { "1" } else { "0" };
        router.sysctl("net.netfilter.nf_conntrack_tcp_loose", loose);
        router.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", &limit.to_string());
        let (outside_server, inside_server) = (Server::ipv4(&outside, PORT), Server::ipv4(&inside, PORT));
        Self { inside, outside, outside_server, inside_server }
    }

    /// A connection through the router, with these options of client and server.
    pub fn connect(&self, from: From, keep: [Keepalive; 2]) -> Connection {
        let (client, server, to) = match from {
            From::Inside => (&self.inside, &self.outside_server, v4(1, 1)),
            From::Outside => (&self.outside, &self.inside_server, v4(2, 1)),
        };
        server.connect_from(client, None, SocketAddr::new(to, PORT), keep)
    }
}

/// The ruleset of nftables.
fn rules(behaviour: Behaviour) -> String {
    // Translation is decided once for each flow, by its first segment. Another than SYN is one of a dropped flow.
    let another = behaviour == Behaviour::AnotherBackend;
    let to = |vip: &str, backends: [&str; 2]| {
        let first =
            format!("ip daddr {vip} tcp dport {PORT} tcp flags & (fin|syn|rst|ack) == syn dnat to {}; ", backends[0]);
        let later = format!("ip daddr {vip} tcp dport {PORT} dnat to {}; ", backends[1]);
        first + if another { &later } else { "" }
    };
    let translate = to("10.99.1.1", ["10.99.2.2", "10.99.2.3"]) + &to("10.99.2.1", ["10.99.1.2", "10.99.1.3"]);
    let masquerade = if another { "" } else { "masquerade;" };
    let unknown = match behaviour {
        Behaviour::Silent => "ct state invalid drop;",
        Behaviour::Reset => "ct state invalid reject with tcp reset;",
        Behaviour::AnotherBackend => "",
    };
    format!(
        "table ip middlebox {{
            chain to {{ type nat hook prerouting priority -100; {translate} }}
            chain from {{ type nat hook postrouting priority 100; {masquerade} }}
            chain through {{ type filter hook forward priority 0; {unknown} }}
            chain in {{ type filter hook input priority 0; {unknown} }}
        }}"
    )
}

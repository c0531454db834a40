//! Two machines on one link. The audit sees only the near one. Connections between them have both families and roles.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::support::binary::Agent;
use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::rtnetlink;
use crate::support::socket::{End, Keepalive, Server};

/// The idle timeout of the path in these scenes, as in [`RULES`].
pub const LIMIT: Duration = Duration::from_secs(4);
/// The time between two sweeps of [`agent`].
pub const INTERVAL: Duration = Duration::from_millis(250);
pub const RULES: [&str; 6] = ["--local-scope", "namespace", "--idle-timeout", "4s", "--long-lived", "1s"];
/// A keepalive that is well below [`LIMIT`].
pub const KEPT: Keepalive = Keepalive::Idle(1);
/// A keepalive that is well above [`LIMIT`].
pub const LATE: Keepalive = Keepalive::Idle(60);

/// Starts an agent with [`RULES`].
pub fn agent() -> Agent {
    Agent::start(&[&RULES[..], &["--interval", "250ms"]].concat())
}

/// The two machines.
pub struct Hosts {
    pub near: Netns,
    pub far: Netns,
    outward: Server,
    inward: Server,
}

impl Hosts {
    /// Two machines on one link.
    pub fn new() -> Self {
        let (near, far) = (Netns::named("near"), Netns::unlisted("far"));
        join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
        Self { outward: Server::dual(&far, 8080), inward: Server::dual(&near, 9090), near, far }
    }

    /// Opens a connection of each family in each role, with these options of the near and the far end.
    pub fn four(&self, near: Keepalive, far: Keepalive) -> Vec<Case> {
        let mut cases = Vec::new();
        for (family, here, there) in [("ipv4", v4(1, 1), v4(1, 2)), ("ipv6", v6(1, 1), v6(1, 2))] {
            let out = self.outward.connect(&self.near, there, [near, far]);
            cases.push(Case::new(format!("{near:?}–{far:?} {family} client"), out.client, out.server));
            let inward = self.inward.connect(&self.far, here, [far, near]);
            cases.push(Case::new(format!("{near:?}–{far:?} {family} server"), inward.server, inward.client));
        }
        cases
    }

    /// Cuts the link: every segment of either side is lost.
    pub fn cut(&self) {
        self.far.enter(|| rtnetlink::set_link_down("veth0")).expect("the link goes down");
    }

    /// Restores the link. The kernel removed its IPv6 addresses when the link went down.
    pub fn restore(&self) {
        self.far.enter(|| {
            rtnetlink::set_link_up("veth0").expect("the link comes up");
            rtnetlink::add_address("veth0", addresses(1, 2)[1]).expect("the link takes its address");
        });
    }
}

/// One connection between the machines.
pub struct Case {
    pub name: String,
    pub near: End,
    pub far: End,
}

impl Case {
    fn new(name: String, near: End, far: End) -> Self {
        Self { name, near, far }
    }

    /// Receives one byte and sends one back.
    pub fn exchange(&mut self) {
        self.receive();
        self.near.stream.write_all(b"!").expect("the near end writes");
        self.far.stream.read_exact(&mut [0]).expect("the far end reads");
    }

    /// Receives one byte from the far machine.
    pub fn receive(&mut self) {
        self.far.stream.write_all(b"?").expect("the far end writes");
        self.near.stream.read_exact(&mut [0]).expect("the near end reads");
    }

    /// Sends one byte to the far machine.
    pub fn send(&mut self) {
        self.near.stream.write_all(b"!").expect("the near end writes");
        self.far.stream.read_exact(&mut [0]).expect("the far end reads");
    }
}

/// Calls [`Case::exchange`] on each.
pub fn exchange_all(cases: &mut [Case]) {
    for case in cases {
        case.exchange();
    }
}

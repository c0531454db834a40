//! This machine and another, which no audit sees: connections between them in both families and both roles.

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
/// A keepalive well inside [`LIMIT`].
pub const KEPT: Keepalive = Keepalive::Idle(1);
/// A keepalive well outside it.
pub const LATE: Keepalive = Keepalive::Idle(60);

/// An agent with these scenes' rules.
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

    /// A connection of each family in each role, with these options of this machine's end and the other's.
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

    /// Cuts the link: what either side sends is lost.
    pub fn cut(&self) {
        self.far.enter(|| rtnetlink::set_link_down("veth0")).expect("the link goes down");
    }

    /// Mends it. Taking a link down takes its IPv6 addresses with it.
    pub fn mend(&self) {
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

    /// One byte here and one back.
    pub fn exchange(&mut self) {
        self.hear();
        self.near.stream.write_all(b"!").expect("the near end writes");
        self.far.stream.read_exact(&mut [0]).expect("the far end reads");
    }

    /// One byte from the other machine.
    pub fn hear(&mut self) {
        self.far.stream.write_all(b"?").expect("the far end writes");
        self.near.stream.read_exact(&mut [0]).expect("the near end reads");
    }

    /// One byte to the other machine.
    pub fn say(&mut self) {
        self.near.stream.write_all(b"!").expect("the near end writes");
        self.far.stream.read_exact(&mut [0]).expect("the far end reads");
    }
}

/// [`Case::exchange`] on each.
pub fn exchange_all(cases: &mut [Case]) {
    for case in cases {
        case.exchange();
    }
}

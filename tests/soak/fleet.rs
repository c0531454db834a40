//! The connections of the soak test, and the events on each of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::support::netns::{Netns, addresses, join, v4, v6};
use crate::support::socket::{Connection, End, Keepalive, Server};

/// A keepalive that is well below the path's idle timeout.
const KEPT: Keepalive = Keepalive::Idle(5);
/// The longest time between two of its probes: KEEPIDLE and an eighth for the timer's slack.
pub const PROBE: Duration = Duration::from_millis(5_700);

/// The behaviour of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Exchanges data every few seconds, without keepalive.
    Active,
    /// Is idle for a long time, then exchanges a byte, without keepalive.
    Idle,
    /// Behaves as `Idle`, with the default keepalive of 7200 s.
    Late,
    /// The near end sends keepalive probes.
    Kept,
    /// The far end sends keepalive probes.
    PeerKept,
    /// Its window was closed before the agent started.
    Masked,
    /// Its window is closed after the agent has seen its keepalive.
    MaskedKept,
    /// Lives for some seconds, without keepalive.
    Churn,
    /// The near end's keepalive is turned off and on.
    Switched,
    /// The far end's keepalive is turned off and on.
    PeerSwitched,
}

/// The kinds, and how many of a thousand connections are of each.
const MIX: [(Kind, u32); 10] = [
    (Kind::Active, 150),
    (Kind::Idle, 150),
    (Kind::Late, 125),
    (Kind::Kept, 125),
    (Kind::PeerKept, 125),
    (Kind::Masked, 50),
    (Kind::MaskedKept, 25),
    (Kind::Churn, 150),
    (Kind::Switched, 50),
    (Kind::PeerSwitched, 50),
];

/// One connection and its state.
pub struct Slot {
    pub kind: Kind,
    pub connection: Connection,
    /// Whether the near end is the client.
    client: bool,
    family: usize,
    /// The moments before and after the last event.
    pub touched: (SystemTime, SystemTime),
    pub opened: SystemTime,
    /// Whether keepalive is on at the end that switches.
    pub kept: bool,
}

impl Slot {
    /// The end that the agent sees.
    pub fn near(&self) -> &End {
        if self.client { &self.connection.client } else { &self.connection.server }
    }

    fn far(&self) -> &End {
        if self.client { &self.connection.server } else { &self.connection.client }
    }
}

/// All connections.
pub struct Fleet {
    pub slots: Vec<Slot>,
    due: BinaryHeap<Reverse<(SystemTime, usize)>>,
    hosts: Hosts,
    random: Random,
    exchanges: u64,
    opened: u64,
}

impl Fleet {
    /// Opens `count` connections.
    pub fn new(count: u32, seed: u64) -> Self {
        let mut fleet = Self {
            slots: Vec::new(),
            due: BinaryHeap::new(),
            hosts: Hosts::new(),
            random: Random(seed),
            exchanges: 0,
            opened: 0,
        };
        for (kind, share) in MIX {
            for number in 0..count * share / 1000 {
                // Both roles and both families of every kind.
                let (client, family) = (number % 2 == 0, (number / 2 % 2) as usize);
                let slot = fleet.hosts.open(kind, client, family);
                fleet.opened += 1;
                let at = fleet.slots.len();
                fleet.slots.push(slot);
                fleet.plan(at);
            }
        }
        fleet
    }

    /// Runs every event that is due.
    pub fn run_due(&mut self) {
        while let Some(Reverse((when, at))) = self.due.peek().copied() {
            if when > SystemTime::now() {
                return;
            }
            self.due.pop();
            self.act(at);
            self.plan(at);
        }
    }

    fn act(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if slot.kind == Kind::Churn {
            let (client, family) = (slot.client, slot.family);
            *slot = self.hosts.open(Kind::Churn, client, family);
            self.opened += 1;
            return;
        }
        slot.touched.0 = SystemTime::now();
        match slot.kind {
            Kind::Active | Kind::Idle | Kind::Late => {
                self.exchanges += 1;
                slot.connection.exchange();
            }
            Kind::Switched => {
                slot.kept = !slot.kept;
                (if slot.kept { KEPT } else { Keepalive::Off }).apply(&slot.near().stream);
            }
            Kind::PeerSwitched => {
                slot.kept = !slot.kept;
                (if slot.kept { KEPT } else { Keepalive::Off }).apply(&slot.far().stream);
            }
            Kind::MaskedKept => slot.connection.fill_window(),
            Kind::Kept | Kind::PeerKept | Kind::Masked | Kind::Churn => {}
        }
        slot.touched.1 = SystemTime::now();
    }

    /// Plans the next event of a connection, if it has one.
    fn plan(&mut self, at: usize) {
        let slot = &self.slots[at];
        let pause = match slot.kind {
            Kind::Active => self.random.between(1_000, 9_000),
            // Idle times below the timeout, around it, and far above it.
            Kind::Idle | Kind::Late => self.random.between(15_000, 75_000),
            Kind::Switched | Kind::PeerSwitched => self.random.between(30_000, 60_000),
            Kind::Churn => self.random.between(50, 15_000),
            Kind::MaskedKept if slot.touched.1 == slot.opened => self.random.between(15_000, 30_000),
            Kind::MaskedKept | Kind::Masked | Kind::Kept | Kind::PeerKept => return,
        };
        self.due.push(Reverse((SystemTime::now() + Duration::from_millis(pause), at)));
    }
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, _) in MIX {
            write!(f, "{} {kind:?}, ", self.slots.iter().filter(|slot| slot.kind == kind).count())?;
        }
        write!(f, "{} exchanges, {} opened in all", self.exchanges, self.opened)
    }
}

/// The near namespace, and the far one, which the agent does not see.
struct Hosts {
    near: Netns,
    far: Netns,
    outward: Server,
    inward: Server,
}

impl Hosts {
    fn new() -> Self {
        let (near, far) = (Netns::named("near"), Netns::unlisted("far"));
        join("veth0", (&near, &addresses(1, 1)), (&far, &addresses(1, 2)));
        for netns in [&near, &far] {
            netns.sysctl("net.ipv4.ip_local_port_range", "10000 65000");
        }
        Self { outward: Server::dual(&far, 8080), inward: Server::dual(&near, 9090), near, far }
    }

    fn open(&self, kind: Kind, client: bool, family: usize) -> Slot {
        // The near end writes until the window closes, because the agent sees only that end.
        let client = client || matches!(kind, Kind::Masked | Kind::MaskedKept);
        let (near, far) = match kind {
            Kind::Late => (Keepalive::Default, Keepalive::Off),
            Kind::Kept | Kind::MaskedKept | Kind::Switched => (KEPT, Keepalive::Off),
            Kind::PeerKept | Kind::PeerSwitched => (Keepalive::Off, KEPT),
            Kind::Active | Kind::Idle | Kind::Masked | Kind::Churn => (Keepalive::Off, Keepalive::Off),
        };
        let before = SystemTime::now();
        let mut connection = if client {
            self.outward.connect(&self.near, [v4(1, 2), v6(1, 2)][family], [near, far])
        } else {
            self.inward.connect(&self.far, [v4(1, 1), v6(1, 1)][family], [far, near])
        };
        connection.exchange();
        if kind == Kind::Masked {
            connection.fill_window();
        }
        let opened = SystemTime::now();
        Slot { kind, connection, client, family, touched: (before, opened), opened, kept: true }
    }
}

/// `SplitMix64`: the same seed, the same soak.
struct Random(u64);

impl Random {
    fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        least + (mixed ^ (mixed >> 31)) % (most - least)
    }
}

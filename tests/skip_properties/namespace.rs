//! The connections of one network namespace, and the counters that the kernel keeps of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use keepalive_auditor::judge::memory::baseline::Activity;
use keepalive_auditor::owner::NsId;
use keepalive_auditor::socket::{Cookie, Endpoint, Socket};

use crate::simulated_kernel::{Action, Connection, Options};

pub const NS: NsId = NsId(4_026_531_840);
/// A server on another machine.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// An event between two sweeps. A number modulo the number of connections chooses the connection.
#[derive(Clone, Debug)]
pub enum Event {
    To(usize, Action),
    Opens(Option<Options>),
    Closes(usize),
    /// The program sets `SO_KEEPALIVE`: no segment moves.
    TurnsOn(usize, Options),
}

/// The connections of one namespace, and its counters.
pub struct Namespace {
    pub id: NsId,
    pub now: u64,
    pub open: Vec<(Cookie, Connection)>,
    /// The ends of each connection.
    ends: BTreeMap<Cookie, [Endpoint; 2]>,
    opened: u64,
    /// What closed connections have added: segments received, segments sent, probes, retransmissions.
    closed: [u64; 4],
}

impl Namespace {
    /// The only namespace, with these connections to one server.
    pub fn new(kinds: &[Option<Options>]) -> Self {
        let mut namespace = Self::empty(NS);
        for kind in kinds {
            namespace.open(*kind);
        }
        namespace
    }

    /// A namespace without connections.
    pub fn empty(id: NsId) -> Self {
        let now = Connection::without_keepalive().now;
        Self { id, now, open: Vec::new(), ends: BTreeMap::new(), opened: 0, closed: [0; 4] }
    }

    fn open(&mut self, kind: Option<Options>) {
        let ends = [Endpoint::new(Ipv4Addr::new(10, 0, 0, 1).into(), 40_000), Endpoint::new(SERVER.into(), 443)];
        self.connect(kind, ends);
    }

    /// Opens a connection between a local and a remote endpoint.
    pub fn connect(&mut self, kind: Option<Options>, ends: [Endpoint; 2]) {
        let mut connection = Connection::without_keepalive();
        connection.set_connected();
        self.add(connection, kind, ends);
    }

    /// Accepts a connection at a local endpoint from a remote one.
    pub fn accept(&mut self, kind: Option<Options>, ends: [Endpoint; 2]) {
        self.add(Connection::without_keepalive(), kind, ends);
    }

    fn add(&mut self, mut connection: Connection, kind: Option<Options>, ends: [Endpoint; 2]) {
        // a new connection's clocks start now
        connection.set_handshake(self.now);
        if let Some(options) = kind {
            connection.turn_on(options);
        }
        self.opened += 1;
        let cookie = Cookie((self.id.0 & 0xff) << 32 | self.opened);
        self.ends.insert(cookie, ends);
        self.open.push((cookie, connection));
    }

    /// Lets time pass, with actions by the position of their connection.
    pub fn run(&mut self, pause: u64, actions: &BTreeMap<usize, Vec<Action>>) {
        for (at, (_, connection)) in self.open.iter_mut().enumerate() {
            connection.run(pause, actions.get(&at).map_or(&[], Vec::as_slice));
        }
        self.now += pause;
    }

    pub fn pass(&mut self, pause: u64, events: &[Event]) {
        let mut actions: BTreeMap<usize, Vec<Action>> = BTreeMap::new();
        for event in events {
            let which = |number: &usize| number.checked_rem(self.open.len());
            match event {
                Event::To(number, action) => {
                    if let Some(at) = which(number) {
                        actions.entry(at).or_default().push(*action);
                    }
                }
                Event::TurnsOn(number, options) => {
                    if let Some(at) = which(number) {
                        self.open[at].1.turn_on(*options);
                    }
                }
                Event::Opens(_) | Event::Closes(_) => {}
            }
        }
        self.run(pause, &actions);
        for event in events {
            match event {
                Event::Opens(kind) => self.open(*kind),
                Event::Closes(number) if !self.open.is_empty() => {
                    let (_, connection) = self.open.remove(number % self.open.len());
                    // a FIN in each direction, and its acknowledgement
                    let [segs_in, segs_out, probes, retransmitted] = connection.counters();
                    for (sum, more) in self.closed.iter_mut().zip([segs_in + 2, segs_out + 2, probes, retransmitted]) {
                        *sum += more;
                    }
                }
                _ => {}
            }
        }
    }

    pub fn sockets(&self) -> impl Iterator<Item = Socket> {
        self.open.iter().map(|(cookie, connection)| Socket {
            cookie: *cookie,
            local: self.ends[cookie][0],
            remote: self.ends[cookie][1],
            ..connection.socket()
        })
    }

    pub fn activity(&self) -> Activity {
        let mut sums = self.closed;
        for (_, connection) in &self.open {
            sums.iter_mut().zip(connection.counters()).for_each(|(sum, more)| *sum += more);
        }
        let [segs_in, segs_out, probes, retransmitted] = sums;
        let established = self.open.len() as u64;
        Activity { opens: self.opened, established, segs_in, segs_out, retransmitted, probes }
    }
}

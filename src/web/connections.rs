//! Who is connected, and which connection is closed when there are too many or when one takes too long.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// One in this many connections goes when there are too many.
const BATCH: usize = 64;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The client's part of the TLS handshake.
    Handshake,
    /// The rest of a request.
    Request,
    /// The next request.
    Idle,
    /// The client's reading of the answer.
    Answer,
}

impl Stage {
    /// How long it may take.
    fn deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Handshake => 5,
            Self::Request => 10,
            // longer than the usual time between two scrapes
            Self::Idle => 90,
            Self::Answer => 60,
        })
    }
}

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<u64, Arc<Visit>>,
    next: u64,
    evicted: u64,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Visit {
    /// The client's address: of IPv6 the /64, because one host has as many addresses as it likes there.
    pub from: IpAddr,
    state: Mutex<State>,
    closed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    stage: Stage,
    since: Instant,
    costly: bool,
}

/// Keeps a connection in the table until it is dropped.
pub(super) struct Entry {
    id: u64,
    connections: Arc<Connections>,
    pub visit: Arc<Visit>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.id);
    }
}

impl Connections {
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), table: Mutex::default() }
    }

    /// Adds a connection. When there are too many, another one is closed.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Entry {
        let visit = Arc::new(Visit::new(from));
        let mut table = self.table();
        while table.open.len() >= self.limit && table.evict(self.limit / BATCH + 1) {}
        let id = table.next;
        table.next += 1;
        table.open.insert(id, visit.clone());
        drop(table);
        Entry { id, connections: self.clone(), visit }
    }

    /// Closes one connection, because descriptors ran out.
    pub fn make_room(&self) {
        self.table().evict(1);
    }

    /// Closes every connection that has waited too long.
    pub fn close_overdue(&self, now: Instant) {
        let mut table = self.table();
        let overdue: Vec<u64> =
            table.open.iter().filter(|(_, visit)| visit.is_overdue(now)).map(|(&id, _)| id).collect();
        for id in overdue {
            table.close(id);
        }
    }

    /// Closes the costly answer that has been read for the longest time, if that is more than `patience`.
    pub fn close_slowest_reader(&self, patience: Duration) {
        let mut table = self.table();
        let costly = table.open.iter().map(|(&id, visit)| (id, visit.state())).filter(|(_, state)| state.costly);
        let slowest = costly.min_by_key(|(_, state)| state.since);
        if let Some((id, state)) = slowest
            && state.since.elapsed() > patience
        {
            table.close(id);
        }
    }

    /// How many are open, and how many were closed to make room so far.
    pub fn counts(&self) -> (usize, u64) {
        let table = self.table();
        (table.open.len(), table.evicted)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes connections of the address that holds most of them: those that have waited longest for their client, else
    /// those whose answers have taken longest. Several at once, because each search costs time. False when there are
    /// none.
    fn evict(&mut self, count: usize) -> bool {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for visit in self.open.values() {
            *held.entry(visit.from).or_default() += 1;
        }
        let most = held.values().max().copied().unwrap_or_default();
        // the others of that address stay as many as the next address has
        let second = held.values().filter(|&&held| held < most).max().copied().unwrap_or_default();
        let candidates = self.open.iter().filter(|(_, visit)| held.get(&visit.from) == Some(&most));
        let mut ranked: Vec<_> = candidates
            .map(|(&id, visit)| {
                let state = visit.state();
                ((state.stage == Stage::Answer, state.since, id), id)
            })
            .collect();
        ranked.sort_unstable();
        let count = count.min(most - second);
        for (_, id) in ranked.into_iter().take(count) {
            self.close(id);
            self.evicted += 1;
        }
        count > 0
    }

    fn close(&mut self, id: u64) {
        if let Some(visit) = self.open.remove(&id) {
            visit.closed.notify_one();
        }
    }
}

impl Visit {
    fn new(from: IpAddr) -> Self {
        let state = State { stage: Stage::Request, since: Instant::now(), costly: false };
        Self { from: network(from), state: Mutex::new(state), closed: Notify::new() }
    }

    /// Completes when the connection must be closed.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    /// The connection waits for something else from now on.
    pub fn enter(&self, stage: Stage) {
        *self.lock() = State { stage, since: Instant::now(), costly: false };
    }

    /// Bytes came: where none were expected, a request begins.
    pub fn received(&self) {
        let mut state = self.lock();
        if state.stage == Stage::Idle {
            *state = State { stage: Stage::Request, since: Instant::now(), costly: false };
        }
    }

    /// The answer under way is a costly one.
    pub fn mark_costly(&self) {
        let mut state = self.lock();
        state.costly = true;
        state.since = Instant::now();
    }

    fn is_overdue(&self, now: Instant) -> bool {
        let state = self.state();
        now.saturating_duration_since(state.since) > state.stage.deadline()
    }

    fn state(&self) -> State {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for one client: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(connections: &Connections) -> Vec<u64> {
        connections.table().open.keys().copied().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_by_closing_what_its_client_keeps_waiting() {
        let connections = Arc::new(Connections::new(3));
        let busy: IpAddr = "192.0.2.1".parse().unwrap();
        let entries: Vec<_> = (0..3).map(|_| connections.enter(busy)).collect();
        entries[0].visit.enter(Stage::Answer);
        tokio::time::advance(Duration::from_millis(1)).await;
        entries[1].visit.enter(Stage::Idle);
        // an answer is under way on 0, and 2 has waited longer than 1
        let _fourth = connections.enter(busy);
        assert_eq!(open(&connections), [0, 1, 3]);
        entries[2].visit.closed().await;
        // another client has one connection only: it stays, although it has waited longest
        let other = connections.enter("2001:db8::1".parse().unwrap());
        assert_eq!(open(&connections), [0, 3, 4]);
        let _more = [connections.enter(busy), connections.enter(busy)];
        assert!(open(&connections).contains(&other.id));
        assert_eq!(connections.counts(), (3, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn each_stage_has_its_deadline() {
        for (stage, seconds) in [(Stage::Handshake, 5), (Stage::Request, 10), (Stage::Idle, 90), (Stage::Answer, 60)] {
            let connections = Arc::new(Connections::new(3));
            let entry = connections.enter("192.0.2.1".parse().unwrap());
            entry.visit.enter(stage);
            tokio::time::advance(Duration::from_secs(seconds)).await;
            connections.close_overdue(Instant::now());
            assert_eq!(connections.counts().0, 1, "{stage:?}");
            tokio::time::advance(Duration::from_millis(1)).await;
            connections.close_overdue(Instant::now());
            assert_eq!(connections.counts().0, 0, "{stage:?}");
        }
    }

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_64() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}

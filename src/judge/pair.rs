//! Finds the two sockets that are the ends of one connection.
//!
//! An *exact* pair has reversed tuples. A *translated* pair is found by the client's endpoint: NAT of the destination
//! (sidecar redirect, `ClusterIP`) hides the server's address from the client, but not the client's from the server. If
//! several sockets match, there is no pair, because a wrong pair would hide an unprotected connection. Loopback
//! addresses pair only inside one namespace.
//!
//! A transparent proxy uses the client's address and port for its own connection to the server. So its two sockets look
//! like the two ends of one connection, and each may cross the network. A pair needs at least one end whose address is
//! the host's own. SNAT may give a connection the endpoint of another socket, so a pair must also [agree] on when
//! payload last moved.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::HashTable;

use super::memory::{Millis, Moment, NamespaceMemory, Origin, TrackedConnection, Tracker};
use crate::owner::NsId;
use crate::socket::Endpoint;

/// The peer of a connection, if it is on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its namespace.
    pub namespace: NsId,
    /// Its position among the entries of that namespace.
    pub at: usize,
    /// Whether the tuples are exactly reversed, so there is no NAT between them.
    pub exact: bool,
}

/// A connection: the namespace's position in the sweep's order, and the entry's position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ref {
    namespace: u32,
    at: u32,
}

/// The pairs of one sweep.
#[derive(Debug, Default)]
pub struct Pairs {
    ids: Vec<NsId>,
    /// The peer by namespace id and entry. Empty if a namespace has none.
    peers: BTreeMap<NsId, Vec<Link>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    None,
    /// More than one connection claims to be its peer.
    Ambiguous,
    Exact(Ref),
    Translated(Ref),
}

impl Default for Ref {
    fn default() -> Self {
        Self { namespace: u32::MAX, at: u32::MAX }
    }
}

impl Pairs {
    /// Finds all pairs among the connections that the last sweep showed.
    #[must_use]
    pub fn find(tracker: &Tracker) -> Self {
        Search::new(tracker).run()
    }

    /// The peer of the connection at `at` in a namespace, if it is on this node.
    #[must_use]
    pub fn peer(&self, namespace: NsId, at: u32) -> Option<Peer> {
        let (other, exact) = match *self.peers.get(&namespace)?.get(at as usize)? {
            Link::Exact(other) => (other, true),
            Link::Translated(other) => (other, false),
            Link::None | Link::Ambiguous => return None,
        };
        Some(Peer { namespace: *self.ids.get(other.namespace as usize)?, at: other.at as usize, exact })
    }
}

struct Search<'a> {
    memories: Vec<(NsId, &'a NamespaceMemory)>,
    /// The local addresses of connections on this node.
    locals: hashbrown::HashSet<IpAddr>,
    links: Vec<Vec<Link>>,
}

/// The keys are the same in every run, so that the pairs are the same. Entries are compared by value, not only by hash.
type Spread = std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>;

impl<'a> Search<'a> {
    fn new(tracker: &'a Tracker) -> Self {
        let memories: Vec<_> = tracker.namespaces().collect();
        let locals = memories.iter().flat_map(|(_, memory)| memory.origins()).map(|origin| origin.local).collect();
        let links = vec![Vec::new(); memories.len()];
        Self { memories, locals, links }
    }

    fn run(mut self) -> Pairs {
        // only a connection to an address of this node can have its peer here; most nodes have no such connection, so
        // the search ends here
        let candidates = self.candidates();
        if !candidates.is_empty() {
            for (links, (_, memory)) in self.links.iter_mut().zip(&self.memories) {
                links.resize(memory.entries().len(), Link::None);
            }
            self.exact(&candidates);
            self.translated(&candidates);
        }
        let ids: Vec<NsId> = self.memories.iter().map(|&(id, _)| id).collect();
        let peers = ids.iter().copied().zip(self.links).filter(|(_, links)| !links.is_empty()).collect();
        Pairs { ids, peers }
    }

    fn candidates(&self) -> Vec<Ref> {
        let mut found = Vec::new();
        for (namespace, (_, memory)) in (0_u32..).zip(&self.memories) {
            // many in a row go to one address
            let mut last = None;
            for (at, entry) in (0_u32..).zip(memory.entries()).filter(|(_, entry)| entry.seen()) {
                let is_here = match last {
                    Some((address, is_here)) if address == entry.remote_address() => is_here,
                    _ => self.locals.contains(&entry.remote().addr),
                };
                last = Some((entry.remote_address(), is_here));
                if is_here {
                    found.push(Ref { namespace, at });
                }
            }
        }
        found
    }

    fn exact(&mut self, candidates: &[Ref]) {
        let mut by_tuple: HashTable<Ref> = HashTable::with_capacity(candidates.len());
        for &one in candidates {
            let key = |one: &Ref| tuple_key(one.namespace, self.local(*one), self.remote(*one));
            by_tuple.insert_unique(key(&one), one, key);
        }
        for &one in candidates {
            let (local, remote) = (self.local(one), self.remote(one));
            let reversed = by_tuple
                .iter_hash(tuple_key(one.namespace, remote, local))
                .copied()
                .filter(|&other| other != one && self.local(other) == remote && self.remote(other) == local)
                .filter(|other| other.namespace == one.namespace || !loopback(local, remote))
                .filter(|&other| self.may_be_ends(one, other));
            if let Some(other) = only(reversed, one.namespace) {
                self.link(one, Link::Exact(other));
            }
        }
    }

    fn translated(&mut self, candidates: &[Ref]) {
        let wanted: HashSet<IpAddr, Spread> =
            candidates.iter().filter(|&&one| self.links(one) == Link::None).map(|&one| self.remote(one).addr).collect();
        // by client endpoint and namespace; `true` if several connections share it
        let mut by_local: HashTable<(Ref, bool)> = HashTable::new();
        for one in self.all() {
            let local = self.local(one);
            // only clients can be found by their endpoint, because all connections of a server share one
            if !wanted.contains(&local.addr) || self.links(one) != Link::None || self.accepted(one) {
                continue;
            }
            // its local endpoint may be that of its own client, which the accepted socket has as well
            if self.origin(one).is_transparent {
                continue;
            }
            by_local
                .entry(
                    endpoint_key(one.namespace, local),
                    |&(other, _)| other.namespace == one.namespace && self.local(other) == local,
                    |&(other, _)| endpoint_key(other.namespace, self.local(other)),
                )
                .and_modify(|(_, shared)| *shared = true)
                .or_insert((one, false));
        }
        for &one in candidates {
            if self.links(one) != Link::None || !self.accepted(one) {
                continue;
            }
            let remote = self.remote(one);
            let found = by_local
                .iter_hash(endpoint_key(one.namespace, remote))
                .copied()
                .filter(|&(other, _)| other != one && self.local(other) == remote)
                .filter(|(other, _)| other.namespace == one.namespace || !loopback(remote, remote))
                .filter(|&(other, _)| self.may_be_ends(one, other));
            let Some((other, false)) = only_of(found, one.namespace) else { continue };
            match self.links(other) {
                Link::None => {
                    self.link(other, Link::Translated(one));
                    self.link(one, Link::Translated(other));
                }
                // a second match: the peer may be either of the two
                Link::Translated(first) if first != one => {
                    self.link(first, Link::Ambiguous);
                    self.link(other, Link::Ambiguous);
                }
                _ => {}
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = Ref> + use<'a> {
        let memories = self.memories.clone();
        (0_u32..).zip(memories).flat_map(|(namespace, (_, memory))| {
            (0_u32..).zip(memory.entries()).filter(|(_, entry)| entry.seen()).map(move |(at, _)| Ref { namespace, at })
        })
    }

    fn local(&self, one: Ref) -> Endpoint {
        let memory = self.memories[one.namespace as usize].1;
        memory.local(&memory.entries()[one.at as usize])
    }

    fn remote(&self, one: Ref) -> Endpoint {
        self.memories[one.namespace as usize].1.entries()[one.at as usize].remote()
    }

    fn origin(&self, one: Ref) -> Origin {
        let memory = self.memories[one.namespace as usize].1;
        memory.origin(&memory.entries()[one.at as usize])
    }

    /// Whether two sockets with matching endpoints may be the ends of one connection. Not both addresses are those of
    /// others, and both sockets belong to the same VRF.
    fn may_be_ends(&self, one: Ref, other: Ref) -> bool {
        let [one_is, other_is] = [one, other].map(|of| self.origin(of));
        let same_device = one_is.device == other_is.device || one_is.device == 0 || other_is.device == 0;
        !(one_is.is_transparent && other_is.is_transparent) && (one.namespace != other.namespace || same_device)
    }

    /// Whether this is the server's end.
    fn accepted(&self, one: Ref) -> bool {
        let memory = self.memories[one.namespace as usize].1;
        memory.accepted(&memory.entries()[one.at as usize])
    }

    fn links(&self, one: Ref) -> Link {
        self.links[one.namespace as usize][one.at as usize]
    }

    fn link(&mut self, one: Ref, link: Link) {
        self.links[one.namespace as usize][one.at as usize] = link;
    }
}

/// By how much the moments at which payload last moved may differ at two ends: what is lost is sent again meanwhile.
const SAME_PAYLOAD: Millis = Millis::from_secs(5);

/// Whether the clocks of two sockets allow that they are the ends of one connection: payload last moved at the same
/// moment. If it may have moved between the two samples, or has no answer yet, the clocks prove nothing.
#[must_use]
pub fn agree(
    one: (&NamespaceMemory, &TrackedConnection),
    other: (&NamespaceMemory, &TrackedConnection),
    now: Moment,
) -> bool {
    let ends = [one, other];
    if ends.iter().any(|(memory, end)| memory.is_unread() || end.unanswered().count() > 0) {
        return true;
    }
    let [Some(one_idle), Some(other_idle)] = ends.map(|(_, end)| end.data_idle(now)) else { return true };
    // the counters of a namespace that was skipped show that nothing moved since
    let sampled = |(memory, end): &(&NamespaceMemory, &TrackedConnection)| {
        if memory.skipped() { Millis::ZERO } else { now.since(end.sampled_at(now)) }
    };
    let unseen = ends.iter().map(sampled).max().unwrap_or_default();
    let (newer, older) = (one_idle.min(other_idle), one_idle.max(other_idle));
    newer <= unseen || older.saturating_sub(newer) <= SAME_PAYLOAD
}

/// A tuple as a key. If it has a loopback address, the namespace is part of the key.
fn tuple_key(namespace: u32, local: Endpoint, remote: Endpoint) -> u64 {
    let scope = if loopback(local, remote) { namespace } else { u32::MAX };
    Spread::default().hash_one((scope, local, remote))
}

/// An endpoint as a key, in the same way.
fn endpoint_key(namespace: u32, endpoint: Endpoint) -> u64 {
    tuple_key(namespace, endpoint, endpoint)
}

fn loopback(one: Endpoint, other: Endpoint) -> bool {
    one.addr.is_loopback() || other.addr.is_loopback()
}

/// The candidate in the same namespace, otherwise the only candidate.
fn only(found: impl Iterator<Item = Ref>, namespace: u32) -> Option<Ref> {
    only_of(found.map(|other| (other, false)), namespace).map(|(other, _)| other)
}

fn only_of(found: impl Iterator<Item = (Ref, bool)>, namespace: u32) -> Option<(Ref, bool)> {
    let mut elsewhere = None;
    let mut several = false;
    for (other, shared) in found {
        if other.namespace == namespace {
            return Some((other, shared));
        }
        several |= elsewhere.is_some();
        elsewhere = Some((other, shared));
    }
    if several { None } else { elsewhere }
}

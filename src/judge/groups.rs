//! Groups and counts the connections of one namespace by owner. Whatever depends only on the owner is computed once for
//! all its connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::memory::{Millis, NamespaceMemory, TrackedConnection};
use super::policy::{Path, Policy};
use super::report::{Direction, MAX_ENDPOINTS, ServiceEndpoint, Tally};
use super::verdict::{Keepalive, Verdict};
use crate::owner::{NsId, Owner};

/// Who owns a socket.
pub trait OwnerOf {
    /// The best known owner of a socket of this namespace, by its cgroup and inode.
    fn owner(&self, namespace: NsId, cgroup: Option<u64>, inode: u32) -> Arc<Owner>;
    /// Whether the inodes of these sockets give better owners than their namespace and cgroup.
    fn by_inode(&self, namespace: NsId, cgroup: Option<u64>) -> bool;
    /// Whether a holder of this inode is known. Without one, all sockets of a namespace and cgroup have one owner.
    fn knows_inode(&self, inode: u32) -> bool;
}

/// The owners of one namespace's connections.
pub(super) struct Groups<'a> {
    all: Vec<Group<'a>>,
    /// By origin.
    by_origin: Vec<OfOrigin>,
    id: NsId,
    memory: &'a NamespaceMemory,
    policy: &'a Policy,
    owners: &'a dyn OwnerOf,
}

/// The group of the connections from one origin.
struct OfOrigin {
    /// Its position in `all`.
    at: usize,
    /// Only for sockets whose holder is not known: a known one may be another owner.
    if_unknown: bool,
}

/// The connections of one owner.
pub(super) struct Group<'a> {
    owner: Arc<Owner>,
    /// An ignore rule matches the owner.
    pub ignored: bool,
    /// The selection includes the owner.
    pub selected: bool,
    /// By direction.
    counts: [Counts<'a>; 2],
}

/// A tally that is still being counted.
#[derive(Default)]
struct Counts<'a> {
    by_state: [[u64; Verdict::COUNT]; Keepalive::COUNT],
    flagged_wire_idle_max: Option<Millis>,
    endpoints: HashMap<FlaggedKey, (&'a Arc<Path>, u64)>,
    /// The last key that was counted, and how often in a row: those are not in `endpoints` yet.
    last: Option<(FlaggedKey, &'a Arc<Path>, u64)>,
}

/// Endpoint, path and verdict. Paths are compared by their address in memory, because comparing names would cost more
/// than everything else.
type FlaggedKey = (Option<ServiceEndpoint>, *const Path, Verdict);

impl<'a> Groups<'a> {
    pub fn new(id: NsId, memory: &'a NamespaceMemory, policy: &'a Policy, owners: &'a dyn OwnerOf) -> Self {
        let mut groups = Self { all: Vec::new(), by_origin: Vec::new(), id, memory, policy, owners };
        let by_origin = memory.origins().iter().map(|origin| OfOrigin {
            at: groups.position(owners.owner(id, origin.cgroup, 0)),
            if_unknown: owners.by_inode(id, origin.cgroup),
        });
        groups.by_origin = by_origin.collect();
        groups
    }

    fn position(&mut self, owner: Arc<Owner>) -> usize {
        self.all.iter().position(|group| group.owner == owner).unwrap_or_else(|| {
            self.all.push(Group {
                ignored: self.policy.ignores(&owner),
                selected: self.policy.select.takes_namespace(self.id) && self.policy.select.takes_owner(&owner),
                owner,
                counts: Default::default(),
            });
            self.all.len() - 1
        })
    }

    /// The group of a connection.
    pub fn of(&mut self, tracked: &TrackedConnection) -> &mut Group<'a> {
        let at = match self.by_origin.get(tracked.origin()) {
            Some(of) if !of.if_unknown || !self.owners.knows_inode(tracked.inode) => of.at,
            _ => {
                let cgroup = self.memory.origin(tracked).cgroup;
                self.position(self.owners.owner(self.id, cgroup, tracked.inode))
            }
        };
        &mut self.all[at]
    }

    /// Adds the counts to the tallies of the node. Returns the owner of each origin, if origins name owners.
    pub fn pour_into(self, tallies: &mut BTreeMap<(Arc<Owner>, Direction), Tally>) -> Vec<Option<Arc<Owner>>> {
        let owner = |of: &OfOrigin| (!of.if_unknown).then(|| self.all[of.at].owner.clone());
        let by_origin = self.by_origin.iter().map(owner).collect();
        for group in self.all {
            for (direction, counts) in [Direction::Inbound, Direction::Outbound].into_iter().zip(group.counts) {
                if counts.by_state.iter().flatten().any(|&count| count > 0) {
                    tallies.entry((group.owner.clone(), direction)).or_default().add(counts.into());
                }
            }
        }
        by_origin
    }
}

impl<'a> Group<'a> {
    /// Whose connections they are.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Counts a connection of this owner.
    pub fn count(&mut self, direction: Direction, keepalive: Keepalive, verdict: Verdict) {
        self.counts[direction as usize].by_state[keepalive as usize][verdict as usize] += 1;
    }

    /// Counts the endpoint of a flagged connection.
    pub fn flag(
        &mut self,
        direction: Direction,
        endpoint: ServiceEndpoint,
        path: &'a Arc<Path>,
        verdict: Verdict,
        wire_idle: Option<Millis>,
    ) {
        let counts = &mut self.counts[direction as usize];
        counts.flagged_wire_idle_max = counts.flagged_wire_idle_max.max(wire_idle);
        let key = (Some(endpoint), Arc::as_ptr(path), verdict);
        match &mut counts.last {
            Some((last, _, count)) if *last == key => *count += 1,
            _ => {
                counts.count_last();
                counts.last = Some((key, path, 1));
            }
        }
    }
}

impl Counts<'_> {
    fn count_last(&mut self) {
        let Some(((endpoint, path, verdict), of, more)) = self.last.take() else { return };
        if let Some((_, count)) = self.endpoints.get_mut(&(endpoint, path, verdict)) {
            *count += more;
            return;
        }
        let endpoint = endpoint.filter(|_| self.endpoints.len() < MAX_ENDPOINTS);
        self.endpoints.entry((endpoint, path, verdict)).or_insert((of, 0)).1 += more;
    }
}

impl From<Counts<'_>> for Tally {
    fn from(mut counts: Counts<'_>) -> Self {
        counts.count_last();
        let mut tally =
            Self { counts: counts.by_state, flagged_wire_idle_max: counts.flagged_wire_idle_max, ..Self::default() };
        for ((endpoint, _, verdict), (path, count)) in counts.endpoints {
            *tally.endpoints.entry((endpoint, path.clone(), verdict)).or_default() += count;
        }
        tally
    }
}

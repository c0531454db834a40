//! Stores the owners from all sources, and chooses between two names for one socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::judge::groups::OwnerOf;
use crate::judge::memory::Tracker;
use crate::owner::{NsId, Owner, OwnerKind};

/// Owners by namespace, cgroup and inode.
#[derive(Default)]
pub(super) struct KnownOwners {
    pub cgroups: HashMap<u64, Arc<Owner>>,
    pub inodes: HashMap<u32, Arc<Owner>>,
    pub namespaces: BTreeMap<NsId, Arc<Owner>>,
}

impl KnownOwners {
    /// Assigns a namespace whose processes could not be read to the pod whose sockets it has. Drops the owners that no
    /// socket needs any more.
    pub fn resolve(&mut self, tracker: &Tracker) {
        let mut needed = BTreeSet::new();
        for (id, memory) in tracker.namespaces() {
            needed.extend(memory.cgroups());
            let Some(owner) = self.namespaces.get_mut(&id) else { continue };
            if !matches!(owner.kind, OwnerKind::Netns) {
                continue;
            }
            let mut pods = memory
                .origins()
                .iter()
                .filter_map(|origin| self.cgroups.get(&origin.cgroup?))
                .filter(|owner| owner.kind == OwnerKind::Pod);
            if let Some(pod) = pods.next()
                && pods.all(|other| other.pod_uid == pod.pod_uid)
            {
                *owner = Arc::new(Owner { container: None, container_id: None, ..(**pod).clone() });
            }
        }
        self.cgroups.retain(|id, _| needed.contains(id));
        if !self.inodes.is_empty() {
            let connections = tracker.namespaces().flat_map(|(_, memory)| memory.connections());
            let inodes = connections.map(|tracked| tracked.inode);
            let open: HashSet<_> = inodes.filter(|inode| self.inodes.contains_key(inode)).collect();
            self.inodes.retain(|inode, _| open.contains(inode));
        }
    }
}

impl KnownOwners {
    /// Stores the holders of sockets. Holders that are alike become one owner, so that comparing them costs nothing.
    pub fn add_holders(&mut self, holders: &BTreeMap<u32, Owner>) {
        let mut distinct: BTreeSet<Arc<Owner>> = BTreeSet::new();
        for (inode, holder) in holders {
            let owner = distinct.get(holder).cloned().unwrap_or_else(|| {
                let owner = Arc::new(holder.clone());
                distinct.insert(owner.clone());
                owner
            });
            self.inodes.insert(*inode, owner);
        }
    }

    /// Every owner that is known.
    pub fn all(&self) -> impl Iterator<Item = &Owner> {
        self.cgroups.values().chain(self.inodes.values()).chain(self.namespaces.values()).map(|owner| &**owner)
    }

    /// The owner that a socket's cgroup names.
    fn by_cgroup(&self, cgroup: Option<u64>) -> Option<&Arc<Owner>> {
        cgroup.and_then(|id| self.cgroups.get(&id))
    }

    /// Whether neither the namespace nor the cgroup of a socket names an owner.
    pub fn is_nameless(&self, namespace: NsId, cgroup: Option<u64>) -> bool {
        !self.owner(namespace, cgroup, 0).has_name()
    }
}

impl OwnerOf for KnownOwners {
    /// The owner of a socket: its own pod; else the namespace's pod; else the socket's container or unit; else the
    /// namespace's owner, unless only the program that holds the socket has a name.
    fn owner(&self, namespace: NsId, cgroup: Option<u64>, inode: u32) -> Arc<Owner> {
        let by_cgroup = self.by_cgroup(cgroup);
        let by_inode = self.inodes.get(&inode);
        let is_container = |owner: &&Arc<Owner>| matches!(owner.kind, OwnerKind::Pod | OwnerKind::Container);
        // on a hybrid host only the other hierarchies of the holder name the container
        let container = by_cgroup.filter(is_container).or_else(|| by_inode.filter(is_container));
        let named = container.or_else(|| by_cgroup.filter(|owner| owner.has_name()));
        let socket = named.or(by_inode).or(by_cgroup);
        let namespace = self.namespaces.get(&namespace);
        let kind = |owner: Option<&Arc<Owner>>| owner.map(|owner| owner.kind);
        let best = match (kind(socket), kind(namespace)) {
            (Some(OwnerKind::Pod), _) => socket,
            (_, Some(OwnerKind::Pod)) => namespace,
            (Some(OwnerKind::Container | OwnerKind::Unit), _) => socket,
            (_, Some(OwnerKind::Host)) => socket.filter(|owner| owner.has_name()).or(namespace),
            _ => namespace,
        };
        best.cloned().unwrap_or_default()
    }

    fn knows_inode(&self, inode: u32) -> bool {
        self.inodes.contains_key(&inode)
    }

    fn by_inode(&self, namespace: NsId, cgroup: Option<u64>) -> bool {
        let in_named = self.namespaces.get(&namespace).is_some_and(|owner| owner.has_name());
        // a cgroup that names nobody is enough in a namespace that has a name
        let enough = self.by_cgroup(cgroup).is_some_and(|owner| owner.has_name() || in_named);
        !self.inodes.is_empty() && !enough
    }
}

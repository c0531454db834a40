//! The processes that hold sockets, by inode.

use std::collections::HashMap;
use std::sync::Arc;

use crate::owner::Holder;
use crate::socket::Cookie;

/// The result of the search for the process that holds a socket.
#[derive(Debug)]
struct Sought {
    /// `None`: no process holds it.
    holder: Option<Arc<Holder>>,
    /// The connection. The kernel reuses inodes.
    cookie: Option<Cookie>,
}

/// The results of all searches that are still true.
#[derive(Debug, Default)]
pub struct Holders {
    by_inode: HashMap<u32, Sought>,
    /// The bytes of the names of libraries. Each process decides how many it has.
    library_bytes: usize,
}

/// Beyond this, processes are stored without their libraries.
const MAX_LIBRARY_BYTES: usize = 4 << 20;

fn library_bytes(holder: &Holder) -> usize {
    holder.libraries.iter().map(|name| name.len() + size_of::<String>()).sum()
}

impl Holders {
    /// Drops all.
    pub fn clear(&mut self) {
        self.by_inode.clear();
        self.library_bytes = 0;
    }

    /// Keeps the results for these connections, which were open when the results were found.
    pub fn keep(&mut self, connections: impl Iterator<Item = (u32, Cookie)>) {
        if self.by_inode.is_empty() {
            return;
        }
        let mut kept = HashMap::new();
        for (inode, cookie) in connections {
            if let Some(sought) = self.by_inode.remove(&inode)
                && sought.cookie.is_none_or(|known| known == cookie)
            {
                kept.insert(inode, Sought { cookie: Some(cookie), ..sought });
            }
        }
        self.by_inode = kept;
        let holders = self.by_inode.values().filter_map(|sought| sought.holder.as_ref());
        let distinct: HashMap<_, _> = holders.map(|holder| (Arc::as_ptr(holder), library_bytes(holder))).collect();
        self.library_bytes = distinct.into_values().sum();
    }

    /// Stores the process that holds these sockets. If there are several, the first one counts.
    pub fn add(&mut self, holder: &Arc<Holder>, inodes: &[u32]) {
        let bytes = library_bytes(holder);
        let holder = if self.library_bytes + bytes > MAX_LIBRARY_BYTES {
            &Arc::new(Holder { libraries: Vec::new(), ..(**holder).clone() })
        } else {
            self.library_bytes += bytes;
            holder
        };
        for inode in inodes {
            self.by_inode.entry(*inode).or_insert_with(|| Sought { holder: Some(Arc::clone(holder)), cookie: None });
        }
    }

    /// Stores that no process holds these sockets.
    pub fn add_unheld(&mut self, inodes: &[u32]) {
        for inode in inodes {
            self.by_inode.entry(*inode).or_insert(Sought { holder: None, cookie: None });
        }
    }

    /// The process that holds a socket, if a search found it.
    #[must_use]
    pub fn get(&self, inode: u32) -> Option<&Arc<Holder>> {
        self.by_inode.get(&inode)?.holder.as_ref()
    }

    /// Whether a search for the process that holds a socket has a result.
    #[must_use]
    pub fn is_sought(&self, inode: u32) -> bool {
        self.by_inode.contains_key(&inode)
    }

    /// The number of results.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_inode.len()
    }

    /// Whether there is no result.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_lasts_as_long_as_its_connection() {
        let holder = Arc::new(Holder { pid: 7, ..Holder::default() });
        let mut holders = Holders::default();
        holders.add(&holder, &[1, 2]);
        holders.add_unheld(&[2, 3]);
        assert_eq!((holders.get(2).map(|holder| holder.pid), holders.is_sought(3)), (Some(7), true));
        assert!(holders.get(3).is_none() && !holders.is_sought(4));
        holders.keep([(1, Cookie(10)), (2, Cookie(20))].into_iter());
        assert!(holders.is_sought(1) && !holders.is_sought(3), "3 is no longer asked for");
        // another connection has the inode
        holders.keep([(1, Cookie(11)), (2, Cookie(20))].into_iter());
        assert!(!holders.is_sought(1) && holders.is_sought(2));
    }

    #[test]
    fn the_libraries_of_all_processes_have_a_limit() {
        let libraries = vec!["x".repeat(1000); 1000];
        let mut holders = Holders::default();
        for pid in 1..=10 {
            holders.add(&Arc::new(Holder { pid, libraries: libraries.clone(), ..Holder::default() }), &[pid]);
        }
        let full = |holders: &Holders, range: std::ops::RangeInclusive<u32>| {
            range.filter(|pid| holders.get(*pid).is_some_and(|holder| !holder.libraries.is_empty())).count()
        };
        assert_eq!(full(&holders, 1..=10), 4, "the names and pids of the others are kept");
        holders.keep([(1, Cookie(1))].into_iter());
        holders.add(&Arc::new(Holder { pid: 11, libraries, ..Holder::default() }), &[11]);
        assert_eq!(full(&holders, 1..=11), 2, "what is dropped leaves room");
    }
}

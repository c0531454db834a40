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
pub struct Holders(HashMap<u32, Sought>);

impl Holders {
    /// Drops all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps the results for these connections, which were open when the results were found.
    pub fn keep(&mut self, connections: impl Iterator<Item = (u32, Cookie)>) {
        if self.0.is_empty() {
            return;
        }
        let mut kept = HashMap::new();
        for (inode, cookie) in connections {
            if let Some(sought) = self.0.remove(&inode)
                && sought.cookie.is_none_or(|known| known == cookie)
            {
                kept.insert(inode, Sought { cookie: Some(cookie), ..sought });
            }
        }
        self.0 = kept;
    }

    /// Stores the process that holds these sockets. If there are several, the first one counts.
    pub fn add(&mut self, holder: &Arc<Holder>, inodes: &[u32]) {
        for inode in inodes {
            self.0.entry(*inode).or_insert_with(|| Sought { holder: Some(Arc::clone(holder)), cookie: None });
        }
    }

    /// Stores that no process holds these sockets.
    pub fn add_unheld(&mut self, inodes: &[u32]) {
        for inode in inodes {
            self.0.entry(*inode).or_insert(Sought { holder: None, cookie: None });
        }
    }

    /// The process that holds a socket, if a search found it.
    #[must_use]
    pub fn get(&self, inode: u32) -> Option<&Arc<Holder>> {
        self.0.get(&inode)?.holder.as_ref()
    }

    /// Whether a search for the process that holds a socket has a result.
    #[must_use]
    pub fn is_sought(&self, inode: u32) -> bool {
        self.0.contains_key(&inode)
    }

    /// The number of results.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no result.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
}

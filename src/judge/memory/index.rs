//! Finds the entries of one namespace by cookie.
//!
//! The kernel assigns cookies in ascending order when somebody first asks for a socket. So a cookie above all known
//! ones is new, and most first reads of a namespace need no index.

use hashbrown::HashTable;

use super::connection::TrackedConnection;
use crate::socket::Cookie;

/// The positions of entries, by cookie. It has the first entries; [`CookieIndex::fill`] adds the rest.
#[derive(Debug, Default)]
pub(super) struct CookieIndex {
    positions: HashTable<u32>,
    /// No entry has a higher cookie.
    highest: Option<Cookie>,
}

impl CookieIndex {
    /// Notes the cookie of an entry that was added.
    pub fn note(&mut self, cookie: Cookie) {
        self.highest = self.highest.max(Some(cookie));
    }

    /// The position of the entry with this cookie.
    pub fn find(&mut self, cookie: Cookie, entries: &Vec<TrackedConnection>) -> Option<usize> {
        if self.highest < Some(cookie) {
            return None;
        }
        self.fill(entries);
        self.get(cookie, entries)
    }

    /// The same, without adding to the index.
    pub fn get(&self, cookie: Cookie, entries: &[TrackedConnection]) -> Option<usize> {
        let indexed = self.positions.find(hash(cookie), |&at| entries[at as usize].cookie() == cookie);
        let rest = || (self.positions.len()..entries.len()).find(|&at| entries[at].cookie() == cookie);
        indexed.map(|&at| at as usize).or_else(rest)
    }

    /// Adds the entries that it does not have.
    pub fn fill(&mut self, entries: &Vec<TrackedConnection>) {
        let known = self.positions.len();
        if known == entries.len() {
            return;
        }
        if known + 1 > self.positions.capacity() {
            self.positions.reserve(entries.capacity() - known, |&at| hash(entries[at as usize].cookie()));
        }
        for (at, entry) in entries.iter().enumerate().skip(known) {
            let Ok(at) = u32::try_from(at) else { return };
            self.positions.insert_unique(hash(entry.cookie()), at, |&at| hash(entries[at as usize].cookie()));
        }
    }

    /// Makes it again, because entries were removed.
    pub fn rebuild(&mut self, entries: &Vec<TrackedConnection>) {
        self.positions.clear();
        self.positions.shrink_to(entries.len(), |_| 0);
        self.fill(entries);
    }
}

/// Cookies come in sequence: one multiplication distributes them over all bits.
fn hash(cookie: Cookie) -> u64 {
    cookie.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

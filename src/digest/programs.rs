//! Which programs the agent searches: those that hold flagged connections, because remedies depend on the program.
//!
//! A search walks the descriptors of every process. So there is one at most every minute, and only if it can find
//! something new.

use super::Digest;
use crate::judge::memory::{Millis, TrackedConnection};
use crate::record::SocketsToRead;

/// The shortest time between two searches.
const BETWEEN_SEARCHES: Millis = Millis::from_secs(60);
/// The most connections whose programs are stored: as many as the agent shows in detail.
const MAX_NAMED: usize = 10_000;

impl Digest {
    /// Names the programs that hold flagged connections.
    #[must_use]
    pub fn naming_programs(self) -> Self {
        Self { names_programs: true, ..self }
    }

    /// Keeps what is known of the programs of flagged connections, and decides whether this sweep searches for more.
    pub(super) fn begin_search(&mut self) {
        let mut holders = std::mem::take(self.tracker.holders_mut());
        holders.keep(self.flagged_connections().map(|tracked| (tracked.inode, tracked.cookie())));
        *self.tracker.holders_mut() = holders;
        let now = self.sweep.clock;
        let is_due = self.searched_at.is_none_or(|at| now.since(at) >= BETWEEN_SEARCHES);
        self.searches = is_due && self.nameless().next().is_some();
        if self.searches {
            self.searched_at = Some(now);
        }
    }

    /// The sockets to search for in this sweep.
    pub(super) fn sockets_of_programs(&self) -> SocketsToRead {
        let room = MAX_NAMED.saturating_sub(self.tracker.holders().len());
        let nameless = self.nameless().map(|tracked| tracked.inode).take(if self.searches { room } else { 0 });
        SocketsToRead { holders: nameless.collect(), ..SocketsToRead::default() }
    }

    /// The flagged connections whose programs nobody has searched for.
    fn nameless(&self) -> impl Iterator<Item = &TrackedConnection> {
        let holders = self.tracker.holders();
        self.flagged_connections().filter(|tracked| tracked.inode != 0 && !holders.is_sought(tracked.inode))
    }

    /// The connections that the last sweep has flagged.
    fn flagged_connections(&self) -> impl Iterator<Item = &TrackedConnection> {
        let all = self.tracker.namespaces().flat_map(|(_, memory)| memory.entries());
        all.filter(|tracked| tracked.is_flagged())
    }
}

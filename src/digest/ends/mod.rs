//! Finds the flagged connections that ended, and their outcome by the records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::judge::assess::direction_before;
use crate::judge::ends::{EndCounters, EndEvent, Outcome, Window};
use crate::judge::groups::OwnerOf;
use crate::judge::memory::{LastSample, Millis, Moment, NamespaceMemory, Tracker};
use crate::judge::policy::Policy;
use crate::judge::report::{Direction, EndedTotals};
use crate::owner::{NsId, Owner};
use crate::record::Counters;
use crate::socket::{Cookie, SocketName};
use crate::wire::inet_diag::{Message, Messages};

mod totals;

use totals::count;
pub(super) use totals::expire;

/// How long the kernel's last word on a connection is waited for: a program may hold a socket that has ended.
const WAIT: Millis = Millis::from_secs(10 * 60);
/// The most connections whose last word is waited for.
const MAX_WAITING: usize = 4096;

/// What is known of ends before the sweep is over.
#[derive(Default)]
pub(super) struct Ends {
    /// The counters of each namespace at its last whole read.
    before: BTreeMap<NsId, Before>,
    /// The reads of this sweep.
    reads: BTreeMap<NsId, ReadEnds>,
    /// Destroy events of connections that no read has missed yet.
    events: HashMap<(NsId, Cookie), EndEvent>,
    /// Connections that ended in an unknown way, while their events are awaited.
    waiting: Vec<(NsId, Ended)>,
    /// What the last sweep found to have been reset: one connection, or all that a read missed.
    resets: Vec<(NsId, Option<Cookie>)>,
}

/// The counters around the last whole read of a namespace.
#[derive(Clone, Copy)]
struct Before {
    /// Before it.
    at_read: EndCounters,
    /// After it, where they were read.
    after: Option<EndCounters>,
    /// Whether it showed that a connection had ended.
    had_ends: bool,
}

#[derive(Default)]
struct ReadEnds {
    at_read: Option<EndCounters>,
    after: Option<EndCounters>,
    is_whole: bool,
    flagged: Vec<Ended>,
    /// Connections that ended and were not flagged.
    others: u64,
    /// Connections that it was the first to show.
    appeared: u64,
    /// Those that are still closing.
    closing: BTreeSet<Cookie>,
    /// Destroy events are received.
    is_watched: bool,
}

/// A flagged connection that has ended.
struct Ended {
    name: SocketName,
    owner: Arc<Owner>,
    direction: Direction,
    last: LastSample,
    window: Option<Window>,
    /// When it was missed.
    since: Moment,
}

impl Ends {
    /// A read of a namespace begins; these are its counters.
    pub fn begin_read(&mut self, id: NsId, counters: &Counters) {
        self.reads.insert(id, ReadEnds { at_read: end_counters(counters), ..ReadEnds::default() });
    }

    /// A whole read is about to end: the connections that it did not show have ended. In a namespace that `is_gone`,
    /// all have.
    pub fn collect(
        &mut self,
        (id, memory): (NsId, &NamespaceMemory),
        is_gone: bool,
        policy: &Policy,
        owners: &dyn OwnerOf,
        now: Moment,
    ) {
        let read = self.reads.entry(id).or_default();
        read.is_whole = true;
        read.appeared = if is_gone { 0 } else { memory.appeared() };
        for tracked in memory.entries().iter().filter(|tracked| is_gone || !tracked.seen()) {
            if !tracked.is_flagged() {
                read.others += 1;
                continue;
            }
            let owner = owners.owner(id, memory.origin(tracked).cgroup, tracked.inode);
            if policy.ignores(&owner) {
                read.others += 1;
                continue;
            }
            read.flagged.push(Ended {
                name: SocketName { local: memory.local(tracked), remote: tracked.remote(), cookie: tracked.cookie() },
                owner,
                direction: direction_before(memory, tracked),
                last: tracked.last_sample(now),
                window: None,
                since: now,
            });
        }
    }

    /// The flagged connections that the last read of this namespace missed.
    pub fn names(&self, id: NsId) -> Vec<SocketName> {
        self.reads.get(&id).map(|read| read.flagged.iter().map(|ended| ended.name).collect()).unwrap_or_default()
    }

    /// The connections of this namespace whose events are awaited.
    pub fn pending(&self, id: NsId) -> impl Iterator<Item = Cookie> {
        self.waiting.iter().filter(move |(of, _)| *of == id).map(|(_, ended)| ended.name.cookie)
    }

    /// What the last sweep found to have been reset: one connection, or all that its read of a namespace missed.
    pub fn resets(&self) -> &[(NsId, Option<Cookie>)] {
        &self.resets
    }

    /// What the kernel says of these connections after the read.
    pub fn explain(&mut self, id: NsId, counters: &Counters, watched: bool, answers: &[u8]) {
        let Some(read) = self.reads.get_mut(&id) else { return };
        read.after = end_counters(counters);
        read.is_watched = watched;
        for message in Messages::new(answers).map_while(Result::ok) {
            if let Message::Socket(reply) = message
                && reply.is_closing()
            {
                read.closing.extend(reply.cookie());
            }
        }
    }

    /// One destroy event. The host passes on only those of connections that it was asked to watch.
    pub fn add_event(&mut self, id: NsId, at: Moment, bytes: &[u8]) {
        let Some(Ok(Message::Socket(reply))) = Messages::new(bytes).next() else { return };
        if let Some(socket) = reply.ended() {
            self.events.insert((id, socket.cookie), EndEvent { at, socket });
        }
    }

    /// The sweep is over: counts what ended. `is_there` says which namespaces still are.
    pub fn finish(
        &mut self,
        tracker: &Tracker,
        now: Moment,
        is_there: impl Fn(NsId) -> bool,
        totals: &mut EndedTotals,
    ) {
        self.resets.clear();
        for (id, ended) in std::mem::take(&mut self.waiting) {
            let event = self.events.remove(&(id, ended.name.cookie));
            let outcome = event.and_then(|event| event.outcome(&ended.last, ended.window.as_ref()));
            self.resets.extend((outcome == Some(Outcome::Reset)).then_some((id, Some(ended.name.cookie))));
            if outcome.is_none() && event.is_none() && is_there(id) && now.since(ended.since) < WAIT {
                self.waiting.push((id, ended));
            } else {
                count(totals, id, (ended.owner, ended.direction), outcome.unwrap_or(Outcome::Unknown), now);
            }
        }
        for (id, mut read) in std::mem::take(&mut self.reads) {
            let window = self.window(id, &read);
            let closing = |ended: &Ended| read.closing.contains(&ended.name.cookie);
            let open = read.flagged.iter().filter(|ended| !closing(ended));
            let unanswered = open.clone().all(|ended| ended.last.has_unanswered);
            let together = window.and_then(|window| window.outcome(open.count() as u64, unanswered));
            self.resets.extend((together == Some(Outcome::Reset)).then_some((id, None)));
            let is_orderly = window.is_some_and(|window| window.most.direct == 0);
            for mut ended in std::mem::take(&mut read.flagged) {
                let event = self.events.remove(&(id, ended.name.cookie));
                let outcome = if read.closing.contains(&ended.name.cookie) || is_orderly {
                    Some(Outcome::Closed)
                } else {
                    event.and_then(|event| event.outcome(&ended.last, window.as_ref())).or(together)
                };
                self.resets.extend((outcome == Some(Outcome::Reset)).then_some((id, Some(ended.name.cookie))));
                let waits = outcome.is_none() && event.is_none() && read.is_watched;
                if waits && self.waiting.len() < MAX_WAITING {
                    ended.window = window;
                    self.waiting.push((id, ended));
                } else {
                    count(totals, id, (ended.owner, ended.direction), outcome.unwrap_or(Outcome::Unknown), now);
                }
            }
        }
        self.before.retain(|id, _| is_there(*id));
        self.events.retain(|(id, cookie), _| {
            tracker.namespace(*id).is_some_and(|memory| memory.connection(*cookie).is_some())
        });
    }

    /// What the counters say of the time between the last whole read and this one; stores them for the next one.
    fn window(&mut self, id: NsId, read: &ReadEnds) -> Option<Window> {
        if !read.is_whole {
            return None;
        }
        let before = self.before.remove(&id);
        let at_read = read.at_read?;
        let had_ends = read.others > 0 || !read.flagged.is_empty();
        self.before.insert(id, Before { at_read, after: read.after, had_ends });
        let (before, after) = (before?, read.after?);
        let least_direct = match before {
            Before { after: Some(after), .. } => at_read.since(after).direct,
            Before { had_ends: false, .. } => at_read.since(before.at_read).direct,
            Before { .. } => 0,
        };
        let mut most = after.since(before.at_read);
        // what the read showed has opened and not ended
        most.opens = most.opens.saturating_sub(read.appeared);
        Some(Window { most, least_direct, others: read.others })
    }
}

/// What the counters say of ends; `None` where one of them is missing.
fn end_counters(counters: &Counters) -> Option<EndCounters> {
    Some(EndCounters {
        direct: counters.estab_resets?,
        timeouts: counters.abort_on_timeout?,
        aborts: counters.abort_on_close?.wrapping_add(counters.abort_on_data?),
        opens: counters.active_opens?.wrapping_add(counters.passive_opens?),
    })
}

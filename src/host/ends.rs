//! Watches how flagged connections end (`--watch-ends`): the kernel's destroy events.
//!
//! A socket that receives them keeps its network namespace alive. It is the one handle that outlives its sweep. A
//! thread of its own checks that the namespace still has its bind mount or one of its processes, and closes the socket
//! as soon as it has neither. A sweep closes it too, once it does not find the namespace or nothing in it is flagged.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::netns::{self, Found};
use crate::owner::NsId;
use crate::socket::Cookie;
use crate::wire::inet_diag::{Message, Messages};

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`.
const GROUPS: [u32; 2] = [1, 3];
/// The most namespaces that are watched at a time: each costs a descriptor.
const MAX_WATCHES: usize = 256;
/// The most connections of one namespace whose events are kept.
const MAX_COOKIES: usize = 4096;
/// How long a namespace that has ended is kept alive at most.
const CHECK: Duration = Duration::from_millis(100);
/// Room for the events of a burst; the kernel may allow less.
const RECEIVE_BUFFER: u32 = 1 << 20;
/// More than the kernel sends about one socket.
const EVENT: usize = 4096;
const MSG_DONTWAIT: i32 = 0x40;

/// Destroy events as received, each with its monotonic time in milliseconds.
pub type Events = Vec<(u64, Vec<u8>)>;

/// The watched namespaces. See the module's text.
#[derive(Debug)]
pub struct EndsWatch {
    enabled: bool,
    started: bool,
    /// The log says that a namespace could not be watched.
    failed: bool,
    procfs: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    watches: BTreeMap<NsId, Watch>,
    /// What was received and not taken yet, also from watches that are closed.
    events: BTreeMap<NsId, Events>,
}

#[derive(Debug)]
struct Watch {
    socket: Arc<Socket>,
    found: Found,
    /// The connections whose events are kept.
    cookies: HashSet<u64>,
    /// The receive buffer has overflowed since events were last taken.
    overflowed: bool,
}

impl EndsWatch {
    /// Nothing is opened yet.
    pub fn new(enabled: bool, procfs: &Path) -> Self {
        Self { enabled, started: false, failed: false, procfs: procfs.to_owned(), shared: Arc::default() }
    }

    /// Whether ends are watched at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Starts the thread, where there is none. The caller has not entered any namespace: the thread would stay in it.
    pub fn begin_sweep(&mut self) {
        if !self.enabled || self.started {
            return;
        }
        let (shared, procfs) = (Arc::clone(&self.shared), self.procfs.clone());
        // without it only sweeps close watches, and none is opened
        self.started = Builder::new().name("ends".to_owned()).spawn(move || run(&shared, &procfs)).is_ok();
    }

    /// Watches these connections of the namespace that the thread is in; without any, stops watching it.
    ///
    /// If that fails, the log says so once, and the counters of the namespace decide.
    pub fn watch(&mut self, id: NsId, found: &Found, flagged: &[Cookie]) {
        if !self.started {
            return;
        }
        if let Err(error) = self.try_to_watch(id, found, flagged)
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!(%error, "cannot watch how connections end; their outcomes may be unknown");
        }
    }

    fn try_to_watch(&self, id: NsId, found: &Found, flagged: &[Cookie]) -> io::Result<()> {
        let mut state = self.shared.lock();
        if flagged.is_empty() {
            state.watches.remove(&id);
            return Ok(());
        }
        let cookies = flagged.iter().take(MAX_COOKIES).map(|cookie| cookie.0).collect();
        let State { watches, events, .. } = &mut *state;
        if let Some(watch) = watches.get_mut(&id) {
            events.entry(id).or_default().extend(watch.drain());
            watch.cookies = cookies;
            watch.found = found.clone();
        } else if state.watches.len() < MAX_WATCHES {
            let socket = Arc::new(open()?);
            state.watches.insert(id, Watch { socket, found: found.clone(), cookies, overflowed: false });
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Stops watching the namespaces for which `keep` is false.
    pub fn retain(&self, keep: impl Fn(NsId) -> bool) {
        self.shared.lock().watches.retain(|id, _| keep(*id));
    }

    /// The events of a namespace since the last call, and whether they are all there were.
    pub fn take(&self, id: NsId) -> (Events, bool) {
        let mut state = self.shared.lock();
        let (late, complete) = match state.watches.get_mut(&id) {
            Some(watch) => (watch.drain(), !std::mem::take(&mut watch.overflowed)),
            None => (Vec::new(), false),
        };
        let mut events = state.events.remove(&id).unwrap_or_default();
        events.extend(late);
        (events, complete)
    }

    /// The events of the namespaces whose events nobody has taken: they have ended.
    pub fn take_rest(&self) -> BTreeMap<NsId, Events> {
        let mut state = self.shared.lock();
        let State { watches, events, .. } = &mut *state;
        let (open, ended) = std::mem::take(events).into_iter().partition(|(id, _)| watches.contains_key(id));
        *events = open;
        ended
    }
}

impl Drop for EndsWatch {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        state.watches.clear();
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// What has arrived, as far as it concerns these connections.
    fn drain(&mut self) -> Events {
        let mut events = Vec::new();
        loop {
            let mut bytes = Vec::with_capacity(EVENT);
            match self.socket.recv(&mut bytes, MSG_DONTWAIT) {
                Ok(_) => {
                    let cookie = match Messages::new(&bytes).next() {
                        Some(Ok(Message::Socket(reply))) => reply.cookie(),
                        _ => None,
                    };
                    if cookie.is_some_and(|cookie| self.cookies.remove(&cookie.0)) {
                        bytes.shrink_to_fit();
                        events.push((super::clock(), bytes));
                    }
                }
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => self.overflowed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return events,
            }
        }
    }
}

/// A socket that receives the destroy events of the namespace that the thread is in.
fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// Whether the namespace has its bind mount or one of its processes.
fn is_alive(id: NsId, found: &Found, procfs: &Path) -> bool {
    let is_mounted = |mount: &PathBuf| netns::handle_of(mount).is_ok_and(|found| found == Some(id));
    let has_process = |pid: &u32| {
        let link = std::fs::read_link(procfs.join(pid.to_string()).join("ns/net"));
        link.ok().and_then(|link| netns::parse_link(&link)) == Some(id)
    };
    found.mount.as_ref().is_some_and(is_mounted) || found.pids.iter().any(has_process)
}

/// Receives events and closes watches of namespaces that have ended, until the watch is dropped.
fn run(shared: &Shared, procfs: &Path) {
    loop {
        let watched: Vec<(NsId, Arc<Socket>, Found)> = {
            let state = shared.lock();
            let wait = |state: &mut State| state.watches.is_empty() && !state.stopped;
            let state = shared.changed.wait_while(state, wait).unwrap_or_else(PoisonError::into_inner);
            if state.stopped {
                return;
            }
            state.watches.iter().map(|(id, watch)| (*id, watch.socket.clone(), watch.found.clone())).collect()
        };
        wait_for_events(watched.iter().map(|(_, socket, _)| &**socket));
        let ended: Vec<NsId> =
            watched.iter().filter(|(id, _, found)| !is_alive(*id, found, procfs)).map(|(id, ..)| *id).collect();
        drop(watched);
        let mut state = shared.lock();
        let State { watches, events, .. } = &mut *state;
        for (id, watch) in watches.iter_mut() {
            let received = watch.drain();
            if !received.is_empty() {
                events.entry(*id).or_default().extend(received);
            }
        }
        watches.retain(|id, _| !ended.contains(id));
    }
}

/// Waits until one of the sockets has an event, but not for long.
fn wait_for_events<'a>(sockets: impl Iterator<Item = &'a Socket>) {
    let mut waiting: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(CHECK.subsec_nanos()) };
    // an error is as good as an event: the sockets are read next
    let _ = poll(&mut waiting, Some(&timeout));
}

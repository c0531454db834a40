//! HANDS: the only folder that touches Linux. A sweep turns network namespaces into a stream of records, partial failures included.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub mod counters;
pub mod diag;
pub mod exact;
pub mod fds;
pub mod holders;
pub mod lookup;
pub mod netns;
pub mod own_process;
pub mod owners;

use crate::owner::NsId;
use crate::record::{Consumer, Loss, LossReason, Namespace, ReadMode, Record, WhatToRead};
use diag::Dialect;
use netns::Found;
use owners::{Owners, Roots};

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPaths {
    /// Where the host's trees are.
    pub roots: Roots,
    /// Directories of namespaces' bind mounts.
    pub netns_dirs: Vec<PathBuf>,
    /// Namespaces that the user named: they are read even if nothing else leads to them.
    pub named: BTreeMap<NsId, Found>,
}

/// The host as sweeps see it: what is found out once, and names that last.
pub struct Host {
    places: HostPaths,
    owners: Owners,
    counters: counters::Reader,
    dialect: Dialect,
    buffer: Vec<u8>,
}

impl Host {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(places: HostPaths) -> Self {
        let owners = Owners::new(&places.roots);
        Self { places, owners, counters: counters::Reader::default(), dialect: Dialect::default(), buffer: Vec::new() }
    }

    /// One whole sweep. Owners that the consumer does not know are looked up before the end. An error of the consumer ends the sweep.
    ///
    /// **The calling thread is left in some other network namespace**: it must do nothing else afterwards. See [`on_own_thread`].
    pub fn sweep_into<C: Consumer>(&mut self, to: &mut C) -> Result<(), C::Error> {
        self.read_namespaces(to)?;
        self.read_owners(to)?;
        self.read_holders(to)?;
        to.consume(&Record::SweepEnd { clock: clock() })
    }

    /// One pass over every network namespace.
    fn read_namespaces<C: Consumer>(&mut self, to: &mut C) -> Result<(), C::Error> {
        to.consume(&Record::Sweep { started_at: wall_clock(), clock: clock() })?;
        self.owners.begin_sweep();
        self.counters.begin_sweep();
        let own = netns::own().ok();
        let (namespaces, host) = self.find(own, to)?;
        let mut denied = Denied::default();
        for (id, found) in namespaces {
            self.namespace(id, &found, Some(id) == host, Some(id) == own, &mut denied, to)?;
        }
        denied.report(to)
    }

    /// Reports the owners that the consumer does not know.
    fn read_owners<C: Consumer>(&mut self, to: &mut C) -> Result<(), C::Error> {
        let wanted = to.unknown_cgroups();
        if !wanted.is_empty() {
            let cgroups = self.owners.of_cgroups(&wanted);
            to.consume(&Record::Owners { cgroups, inodes: BTreeMap::new(), issues: BTreeMap::new() })?;
        }
        let wanted = to.unknown_inodes(!self.owners.has_cgroup2());
        let inodes = if wanted.is_empty() { BTreeMap::new() } else { self.owners.of_inodes(&wanted) };
        let issues: BTreeMap<String, u64> =
            self.owners.issues().into_iter().map(|(kind, count)| (kind.name().to_owned(), count)).collect();
        if inodes.is_empty() && issues.is_empty() {
            return Ok(());
        }
        to.consume(&Record::Owners { cgroups: BTreeMap::new(), inodes, issues })
    }

    /// Reports the processes that hold sockets and the options of sockets, where the consumer wants them.
    fn read_holders<C: Consumer>(&self, to: &mut C) -> Result<(), C::Error> {
        let wanted = to.sockets_to_read();
        if wanted.is_empty() {
            return Ok(());
        }
        let holders::FoundHolders { holders, options, loss, missing } =
            holders::find(&self.places.roots.procfs, &wanted);
        if !holders.is_empty() {
            to.consume(&Record::Holders(holders))?;
        }
        if !wanted.options.is_empty() {
            to.consume(&Record::Options { options, missing })?;
        }
        loss.map_or(Ok(()), |loss| to.consume(&Record::Loss(loss)))
    }

    /// The namespaces to enter, our own first: the thread is in it already, and may not be allowed to enter any other.
    #[expect(clippy::type_complexity, reason = "the namespaces, and which of them is the host's")]
    fn find<C: Consumer>(&self, own: Option<NsId>, to: &mut C) -> Result<(Vec<(NsId, Found)>, Option<NsId>), C::Error> {
        let procfs = &self.places.roots.procfs;
        let host = std::fs::read_link(procfs.join("1/ns/net")).ok().and_then(|link| netns::parse_link(&link)).or(own);
        let (mut found, unseen) = netns::find(procfs, &self.places.netns_dirs);
        if let Some(own) = own {
            found.entry(own).or_default();
        }
        for (id, named) in &self.places.named {
            let known = found.entry(*id).or_default();
            if known.mount.is_none() {
                (known.name, known.mount) = (named.name.clone(), named.mount.clone());
            }
            known.pids.extend(&named.pids);
        }
        if unseen.processes > 0 {
            let detail = format!(
                "cannot read the network namespace of {} process{} in {}: it is not audited unless it is mounted in {} or shared \
                 with a process that can be read. Run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE",
                unseen.processes,
                if unseen.processes == 1 { "" } else { "es" },
                procfs.display(),
                self.places.netns_dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" or "),
            );
            to.consume(&Record::Loss(Loss { namespace: None, reason: LossReason::Permission, detail }))?;
        }
        let mut namespaces: Vec<_> = found.into_iter().collect();
        namespaces.sort_by_key(|&(id, _)| (Some(id) != own, id));
        Ok((namespaces, host))
    }

    fn namespace<C: Consumer>(
        &mut self,
        id: NsId,
        found: &Found,
        is_host: bool,
        is_own: bool,
        denied: &mut Denied,
        to: &mut C,
    ) -> Result<(), C::Error> {
        let name = found.name.clone().unwrap_or_else(|| id.to_string());
        let mut lose =
            |namespace, reason, detail: String| to.consume(&Record::Loss(Loss { namespace, reason, detail }));
        // a thread that has not left its namespace yet needs no capability to be in it
        let inside = is_own && netns::own().ok() == Some(id);
        match if inside { Ok(true) } else { netns::enter(id, found, &self.places.roots.procfs) } {
            Ok(true) => {}
            Ok(false) if is_own => {
                return lose(
                    Some(id),
                    LossReason::Other,
                    format!("cannot go back to our own network namespace {name}"),
                );
            }
            Ok(false) => return lose(Some(id), LossReason::Vanished, format!("network namespace {name} is gone")),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::PermissionDenied) => {
                denied.namespaces.insert(id, name);
                return Ok(());
            }
            Err(error) => {
                return lose(Some(id), LossReason::Other, format!("cannot enter network namespace {name}: {error}"));
            }
        }
        let counters = self.counters.read(id);
        let mut namespace = Namespace {
            id,
            name: found.name.clone(),
            clock: clock(),
            owner: self.owners.of_namespace(id, found.name.as_deref(), &found.pids, is_host),
            counters: Some(counters),
            read: ReadMode::Dump,
        };
        if counters.curr_estab == Some(0) {
            namespace.read = ReadMode::Empty;
            return to.consume(&Record::Namespace(namespace));
        }
        let begun = cpu_time();
        let cost = || cpu_time().saturating_sub(begun);
        match to.what_to_read(&namespace) {
            WhatToRead::Nothing => {
                namespace.read = ReadMode::Skip;
                return to.consume(&Record::Namespace(namespace));
            }
            // where that fails, a dump says why
            WhatToRead::Sockets(names) => {
                if let Ok(Some(answers)) = lookup::look_up(&names) {
                    namespace.read = ReadMode::LookUp;
                    to.consume(&Record::Namespace(namespace))?;
                    for (clock, bytes) in answers {
                        to.consume(&Record::Datagram { clock, bytes: bytes.into() })?;
                    }
                    return to.consume(&Record::ReadEnd { interrupted: false, cost: cost() });
                }
            }
            WhatToRead::Everything => {}
        }
        to.consume(&Record::Namespace(namespace))?;
        let ended = diag::dump(&mut self.dialect, &mut self.buffer, |bytes| {
            to.consume(&Record::Datagram { clock: clock(), bytes: bytes.into() })
        })?;
        if let Some(error) = ended.error {
            let detail = format!("network namespace {name}: {error}");
            to.consume(&Record::Loss(Loss { namespace: Some(id), reason: error.reason, detail }))?;
        }
        to.consume(&Record::ReadEnd { interrupted: ended.interrupted, cost: cost() })
    }
}

/// Namespaces that may not be entered. They are reported together, because they have one reason.
#[derive(Default)]
struct Denied {
    namespaces: BTreeMap<NsId, String>,
}

impl Denied {
    fn report<C: Consumer>(self, to: &mut C) -> Result<(), C::Error> {
        let count = self.namespaces.len();
        for (at, (id, name)) in self.namespaces.into_iter().enumerate() {
            let detail = match at {
                0 => format!(
                    "cannot enter network namespace {name}{}: permission denied. CAP_SYS_ADMIN is missing (and CAP_SYS_PTRACE, for namespaces \
                     that are found through another user's process): run as root",
                    if count > 1 { format!(" and {} others", count - 1) } else { String::new() },
                ),
                _ => String::new(),
            };
            to.consume(&Record::Loss(Loss { namespace: Some(id), reason: LossReason::Permission, detail }))?;
        }
        Ok(())
    }
}

/// Runs `work` on an operating system thread of its own, which ends with it: a thread that has entered a namespace never comes back.
///
/// A panic of `work` becomes an error.
pub fn on_own_thread<T: Send, E: Send + From<std::io::Error>>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sweep".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the sweep thread panicked").into()))
    })
}

/// The monotonic clock, milliseconds.
#[must_use]
pub fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The CPU time of this thread, microseconds.
fn cpu_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

/// The wall clock, milliseconds since the Unix epoch.
#[must_use]
pub fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The node's name: `NODE_NAME` where the deployment says it, else the host name.
#[must_use]
pub fn node_name() -> String {
    std::env::var("NODE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// The number of this process.
#[must_use]
pub fn own_pid() -> u32 {
    std::process::id()
}

/// The kernel's release, as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

//! HANDS: the only folder that touches Linux. A sweep turns network namespaces into a stream of records, partial failures included.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub mod counters;
pub mod diag;
pub mod exact;
pub mod lookup;
pub mod netns;
pub mod owners;
pub mod programs;

use crate::owner::NsId;
use crate::record::{Audience, Loss, LossReason, Namespace, Need, Record, RecordError};
use diag::Dialect;
use netns::Found;
use owners::{Owners, Roots};

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where the host's trees are.
    pub roots: Roots,
    /// Directories of namespaces' bind mounts.
    pub netns_dirs: Vec<PathBuf>,
    /// Only these namespaces; `None`: every one.
    pub only: Option<BTreeMap<NsId, Found>>,
}

/// The host as sweeps see it: what is found out once, and names that last.
pub struct Host {
    places: Places,
    owners: Owners,
    counters: counters::Reader,
    dialect: Dialect,
    buffer: Vec<u8>,
}

impl Host {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(places: Places) -> Self {
        let owners = Owners::new(&places.roots);
        Self { places, owners, counters: counters::Reader::default(), dialect: Dialect::default(), buffer: Vec::new() }
    }

    /// One whole sweep into a digest: what it does not know of owners is answered before the end. `also` sees every record, too, and its
    /// error ends the sweep.
    ///
    /// **The calling thread is left in some other network namespace**: it must do nothing else afterwards. See [`on_own_thread`].
    pub fn sweep_into(
        &mut self,
        digest: &mut impl Audience,
        also: &mut dyn FnMut(&Record<'_>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let mut to = Listeners { digest, also };
        self.sweep(&mut to)?;
        let (cgroups, inodes) = to.digest.unknown_owners(!self.owners.has_cgroup2());
        self.end_sweep(&cgroups, &inodes, &mut to)
    }

    /// One pass over every network namespace.
    fn sweep(&mut self, to: &mut Listeners<'_, impl Audience>) -> Result<(), RecordError> {
        to.tell(&Record::Sweep { started_at: wall_clock(), clock: clock() })?;
        self.owners.begin_sweep();
        self.counters.begin_sweep();
        let own = netns::own().ok();
        let (namespaces, host) = self.find(own, to)?;
        let mut denied = Denied::default();
        for (id, found) in namespaces {
            self.namespace(id, &found, Some(id) == host, Some(id) == own, &mut denied, to)?;
        }
        denied.tell(to)
    }

    /// Answers what the listener does not know, and ends the sweep.
    fn end_sweep(
        &mut self,
        cgroups: &BTreeSet<u64>,
        inodes: &BTreeSet<u32>,
        to: &mut Listeners<'_, impl Audience>,
    ) -> Result<(), RecordError> {
        let cgroups = if cgroups.is_empty() { BTreeMap::new() } else { self.owners.of_cgroups(cgroups) };
        let inodes = if inodes.is_empty() { BTreeMap::new() } else { self.owners.of_inodes(inodes) };
        let troubles: BTreeMap<String, u64> =
            self.owners.troubles().into_iter().map(|(kind, count)| (kind.name().to_owned(), count)).collect();
        if !(cgroups.is_empty() && inodes.is_empty() && troubles.is_empty()) {
            to.tell(&Record::Owners { cgroups, inodes, troubles })?;
        }
        to.tell(&Record::SweepEnd { clock: clock() })
    }

    /// The namespaces to enter, our own first: the thread is in it already, and may not be allowed to enter any other.
    #[expect(clippy::type_complexity, reason = "the namespaces, and which of them is the host's")]
    fn find(
        &self,
        own: Option<NsId>,
        to: &mut Listeners<'_, impl Audience>,
    ) -> Result<(Vec<(NsId, Found)>, Option<NsId>), RecordError> {
        let procfs = &self.places.roots.procfs;
        let host = std::fs::read_link(procfs.join("1/ns/net")).ok().and_then(|link| netns::parse_link(&link)).or(own);
        if let Some(only) = &self.places.only {
            return Ok((only.clone().into_iter().collect(), host));
        }
        let (mut found, unseen) = netns::find(procfs, &self.places.netns_dirs);
        if let Some(own) = own {
            found.entry(own).or_default();
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
            to.tell(&Record::Loss(Loss { namespace: None, reason: LossReason::Permission, detail }))?;
        }
        let mut namespaces: Vec<_> = found.into_iter().collect();
        namespaces.sort_by_key(|&(id, _)| (Some(id) != own, id));
        Ok((namespaces, host))
    }

    fn namespace(
        &mut self,
        id: NsId,
        found: &Found,
        is_host: bool,
        is_own: bool,
        denied: &mut Denied,
        to: &mut Listeners<'_, impl Audience>,
    ) -> Result<(), RecordError> {
        let name = found.name.clone().unwrap_or_else(|| id.to_string());
        let mut lose = |namespace, reason, detail: String| to.tell(&Record::Loss(Loss { namespace, reason, detail }));
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
            empty: counters.curr_estab == Some(0),
            skipped: false,
            looked_up: false,
        };
        if namespace.empty {
            return to.tell(&Record::Namespace(namespace));
        }
        let begun = cpu_time();
        let cost = || cpu_time().saturating_sub(begun);
        match to.digest.need(&namespace) {
            Need::Nothing => {
                namespace.skipped = true;
                return to.tell(&Record::Namespace(namespace));
            }
            // where that fails, a dump says why
            Need::Sockets(names) => {
                if let Ok(Some(answers)) = lookup::look_up(&names) {
                    namespace.looked_up = true;
                    to.tell(&Record::Namespace(namespace))?;
                    for (clock, bytes) in answers {
                        to.tell(&Record::Datagram { clock, bytes: bytes.into() })?;
                    }
                    return to.tell(&Record::DumpEnd { interrupted: false, cost: cost() });
                }
            }
            Need::Dump => {}
        }
        to.tell(&Record::Namespace(namespace))?;
        let dumped = diag::dump(&mut self.dialect, &mut self.buffer, |bytes| {
            to.tell(&Record::Datagram { clock: clock(), bytes: bytes.into() })
        })?;
        let interrupted = match dumped {
            Ok(ended) => ended.interrupted,
            Err(error) => {
                let detail = format!("network namespace {name}: {error}");
                to.tell(&Record::Loss(Loss { namespace: Some(id), reason: error.reason, detail }))?;
                true
            }
        };
        to.tell(&Record::DumpEnd { interrupted, cost: cost() })
    }
}

/// The two that hear of a sweep.
struct Listeners<'a, A> {
    digest: &'a mut A,
    also: &'a mut dyn FnMut(&Record<'_>) -> Result<(), RecordError>,
}

impl<A: Audience> Listeners<'_, A> {
    /// Gives a record to both; an error of the second ends the sweep.
    fn tell(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        self.digest.hear(record);
        (self.also)(record)
    }
}

/// Namespaces that may not be entered: told together, because the reason is one.
#[derive(Default)]
struct Denied {
    namespaces: BTreeMap<NsId, String>,
}

impl Denied {
    fn tell(self, to: &mut Listeners<'_, impl Audience>) -> Result<(), RecordError> {
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
            to.tell(&Record::Loss(Loss { namespace: Some(id), reason: LossReason::Permission, detail }))?;
        }
        Ok(())
    }
}

/// Runs `work` on an operating system thread of its own, which ends with it: a thread that has entered a namespace never comes back.
///
/// A panic of `work` becomes an error.
pub fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("sweep".to_owned())
            .spawn_scoped(scope, work)?
            .join()
            .map_err(|_| std::io::Error::other("the sweep thread panicked"))
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

/// The kernel's release, as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

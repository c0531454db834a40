//! The only module that makes system calls. A sweep turns network namespaces into a stream of records, which includes
//! partial failures.

use std::collections::BTreeMap;
use std::path::PathBuf;

mod clock;
pub mod counters;
pub mod diag;
mod ends;
pub mod exact;
mod failure;
pub mod fds;
mod find;
pub mod holders;
mod limits;
pub mod lookup;
pub mod names;
pub mod netns;
mod node;
pub mod own_process;
pub mod owners;
pub mod privileges;
mod program;
mod read;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod seccomp;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "no_seccomp.rs"]
pub mod seccomp;
pub mod terminal;
mod thread;
mod worker;

use crate::owner::NsId;
use crate::record::{Consumer, HolderSearch, Loss, Record};
pub use clock::{clock, wall_clock};
use diag::Kernel;
use ends::EndsWatch;
use failure::Unread;
use fds::{Position, Span};
use find::Finder;
use netns::Found;
pub use node::{kernel_release, node_name, own_pid};
use owners::{Owners, Roots};
use program::Programs;
pub use thread::on_own_thread;

/// The most sockets of one holder in one record.
const MAX_SOCKETS: usize = 4096;

/// The paths that a sweep reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPaths {
    /// The host's trees.
    pub roots: Roots,
    /// Directories of namespaces' bind mounts.
    pub netns_dirs: Vec<PathBuf>,
    /// Whether the user named these directories. Then one that does not exist is a loss.
    pub netns_dirs_required: bool,
    /// Namespaces that the user named: they are read even if nothing else leads to them.
    pub named: BTreeMap<NsId, Found>,
    /// Whether to watch how flagged connections end.
    pub watch_ends: bool,
}

/// The state that sweeps of the host keep from one to the next.
pub struct Host {
    paths: HostPaths,
    finder: Finder,
    owners: Owners,
    counters: counters::Reader,
    kernel: Kernel,
    ends: EndsWatch,
    limits: limits::Limits,
    buffer: Vec<u8>,
    programs: Programs,
    /// Where the next search for the holders of sockets begins.
    next_holder: Position,
    /// Whether no sweep follows.
    is_single: bool,
}

impl Host {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(paths: HostPaths) -> Self {
        let programs = Programs::default();
        Self {
            finder: Finder::new(&paths),
            owners: Owners::new(&paths.roots).with_programs(programs.clone()),
            counters: counters::Reader::default(),
            kernel: Kernel::default(),
            limits: limits::Limits::default(),
            ends: EndsWatch::new(paths.watch_ends, &paths.roots.procfs),
            buffer: Vec::new(),
            programs,
            next_holder: Position::default(),
            is_single: false,
            paths,
        }
    }

    /// Reads only what one judgement needs, because no sweep follows.
    #[must_use]
    pub fn for_single_sweep(self) -> Self {
        Self { counters: counters::Reader::single(), is_single: true, ..self }
    }

    /// Runs one sweep on a new thread. If that thread cannot start, the sweep reads nothing and reports a loss.
    ///
    /// An error or a panic of the consumer ends the sweep with an error.
    pub fn sweep<C: Consumer<Error: Send> + Send>(&mut self, to: &mut C) -> Result<(), C::Error> {
        match thread::start(|| self.sweep_into(to)) {
            Ok(result) => result,
            Err(error) => self.fail_to_sweep(&error, to),
        }
    }

    /// Runs one sweep. **It leaves the calling thread in another network namespace**: see [`Host::sweep`].
    pub fn sweep_into<C: Consumer>(&mut self, to: &mut C) -> Result<(), C::Error> {
        to.consume(&Record::Sweep { started_at: wall_clock(), clock: clock() })?;
        if let Err(error) = self.programs.start() {
            tracing::warn!(%error, "programs are named without their command lines: no thread can be started");
        }
        self.owners.begin_sweep();
        self.counters.begin_sweep();
        self.kernel.begin_sweep();
        self.ends.begin_sweep();
        let search = self.finder.find();
        consume_losses(search.losses, to)?;
        let mut unread = Unread::default();
        let mut at_home = search.own;
        for (id, found) in &search.namespaces {
            let is_host = Some(*id) == search.host;
            self.read_namespace(*id, found, is_host, &mut at_home, &mut unread, to)?;
        }
        self.consume_last_ends(|id| search.namespaces.iter().any(|(found, _)| *found == id), to)?;
        unread.report(to)?;
        self.read_owners(to)?;
        self.read_holders(to)?;
        to.consume(&Record::SweepEnd { clock: clock() })
    }

    /// Reports the ends in namespaces that are gone, and stops watching them.
    fn consume_last_ends<C: Consumer>(&self, is_found: impl Fn(NsId) -> bool, to: &mut C) -> Result<(), C::Error> {
        self.ends.retain(is_found);
        for (namespace, events) in self.ends.take_rest() {
            read::consume_events(namespace, events, to)?;
        }
        Ok(())
    }

    /// Reports the owners that the consumer does not know yet, and the failures to name owners.
    fn read_owners<C: Consumer>(&mut self, to: &mut C) -> Result<(), C::Error> {
        let wanted = to.unknown_cgroups();
        if !wanted.is_empty() {
            let cgroups = self.owners.of_cgroups(&wanted);
            to.consume(&Record::Owners { cgroups, inodes: BTreeMap::new(), issues: BTreeMap::new() })?;
        }
        let wanted = to.unknown_inodes(self.owners.needs_inodes());
        let descriptors = to.descriptors_to_read(HolderSearch::Owners);
        let holders = if wanted.is_empty() { Vec::new() } else { self.owners.of_inodes(&wanted, descriptors) };
        drop(wanted);
        // in parts, so that the owners of many sockets are not in memory once for each of them
        for (holder, sockets) in &holders {
            for sockets in sockets.chunks(MAX_SOCKETS) {
                let inodes = sockets.iter().map(|inode| (*inode, holder.clone())).collect();
                to.consume(&Record::Owners { cgroups: BTreeMap::new(), inodes, issues: BTreeMap::new() })?;
            }
        }
        consume_losses(self.owners.losses(), to)?;
        let issues: BTreeMap<String, u64> =
            self.owners.issues().into_iter().map(|(kind, count)| (kind.name().to_owned(), count)).collect();
        if issues.is_empty() {
            return Ok(());
        }
        to.consume(&Record::Owners { cgroups: BTreeMap::new(), inodes: BTreeMap::new(), issues })
    }

    /// Reports the processes that hold sockets and the options of sockets, as far as the consumer wants them.
    fn read_holders<C: Consumer>(&mut self, to: &mut C) -> Result<(), C::Error> {
        let wanted = to.sockets_to_read();
        if wanted.is_empty() {
            return Ok(());
        }
        let span = Span { from: self.next_holder, descriptors: to.descriptors_to_read(HolderSearch::Programs) };
        let holders::FoundHolders { holders, unheld, options, loss, missing, next, unsearched } =
            holders::find(&self.paths.roots.procfs, &wanted, span, &self.programs);
        self.next_holder = next;
        if unsearched > 0 && self.is_single {
            tracing::warn!(
                "the processes of {unsearched} connections are not shown: a search reads at most {} file descriptors, \
                 unless one owner (--owner, --pod) or every connection (--all) is asked for",
                span.descriptors
            );
        }
        if !holders.is_empty() {
            to.consume(&Record::Holders(holders))?;
        }
        if !unheld.is_empty() {
            to.consume(&Record::Unheld(unheld))?;
        }
        if !wanted.options.is_empty() {
            to.consume(&Record::Options { options, missing })?;
        }
        consume_losses(loss, to)
    }

    /// Reports a sweep whose thread could not start: every namespace of the last sweep is lost.
    fn fail_to_sweep<C: Consumer>(&self, error: &std::io::Error, to: &mut C) -> Result<(), C::Error> {
        let loss = failure::no_thread(error);
        let reason = loss.reason;
        let behind = self.finder.known().map(|id| Loss::new(Some(id), reason, String::new()));
        to.consume(&Record::Sweep { started_at: wall_clock(), clock: clock() })?;
        consume_losses(std::iter::once(loss).chain(behind), to)?;
        to.consume(&Record::SweepEnd { clock: clock() })
    }
}

fn consume_losses<C: Consumer>(losses: impl IntoIterator<Item = Loss>, to: &mut C) -> Result<(), C::Error> {
    losses.into_iter().try_for_each(|loss| to.consume(&Record::Loss(loss)))
}

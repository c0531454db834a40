//! Finds the holder of a socket by its inode: for hosts without cgroup v2, and for sockets without another owner.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::cgroup::CgroupOwner;
use super::process::Process;
use crate::host::fds::{self, Missing, Position, Span, Unread};
use crate::host::program::Programs;

/// The holders of socket inodes. An inode is stored while every sweep asks for it: as long as the connection exists.
#[derive(Debug)]
pub(super) struct Inodes {
    procfs: PathBuf,
    programs: Programs,
    /// The sockets of one process share its entry.
    known: HashMap<u32, Arc<InodeOwner>>,
    /// Where the next pass begins.
    next: Position,
    /// Whether the passes together have read every process once.
    has_read_all: bool,
}

/// The holder of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InodeOwner {
    /// By the cgroup of the process.
    pub cgroup: CgroupOwner,
    /// The program, if the cgroup names no owner.
    pub program: Option<String>,
}

impl Inodes {
    pub fn new(procfs: PathBuf) -> Self {
        Self {
            procfs,
            programs: Programs::default(),
            known: HashMap::new(),
            next: Position::default(),
            has_read_all: false,
        }
    }

    /// Sets what reads the names of programs.
    pub fn set_programs(&mut self, programs: Programs) {
        self.programs = programs;
    }

    /// Searches for the holders of `wanted` in one pass over at most this number of descriptors. The next pass begins
    /// where this one ends.
    pub fn learn(&mut self, wanted: &BTreeSet<u32>, descriptors: usize) -> Unread {
        self.known.retain(|inode, _| wanted.contains(inode));
        let mut missing: Missing =
            wanted.iter().copied().filter(|inode| *inode != 0 && !self.known.contains_key(inode)).collect();
        let known = &mut self.known;
        let span = Span { from: self.next, descriptors };
        let end = fds::walk(&self.procfs, &mut missing, span, |holder, missing| {
            let process = Process::at(holder.folder);
            let Ok(cgroup) = process.owner() else { return };
            let program =
                (cgroup == CgroupOwner::default()).then(|| self.programs.read_names(holder.pid, process.folder()));
            let program = program.map(|holder| holder.program().to_owned()).filter(|name| !name.is_empty());
            let owner = Arc::new(InodeOwner { cgroup, program });
            for socket in holder.sockets.iter().filter(|socket| missing.remove(&socket.inode)) {
                known.insert(socket.inode, Arc::clone(&owner));
            }
        });
        self.has_read_all |= !end.is_cut || end.next < self.next;
        self.next = end.next;
        end.unread
    }

    /// Whether the passes together have read every process once.
    pub fn has_read_all(&self) -> bool {
        self.has_read_all
    }

    /// The holder of the inode, if it was found.
    pub fn get(&self, inode: u32) -> Option<&Arc<InodeOwner>> {
        self.known.get(&inode)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// On the real `/proc`, with a socket of our own: no privilege is needed for that.
    #[test]
    fn the_holder_of_a_socket_is_found_and_dropped_when_nobody_asks_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener));
        let inode = u32::try_from(std::fs::metadata(link).expect("our own socket").ino()).expect("32 bits");
        let ours = Process::open("/proc".as_ref(), std::process::id())
            .and_then(|process| process.owner())
            .expect("our own cgroup");

        let mut inodes = Inodes::new("/proc".into());
        inodes.learn(&[inode].into(), usize::MAX);
        assert_eq!(inodes.get(inode).map(|owner| &owner.cgroup), Some(&ours));
        inodes.learn(&[].into(), usize::MAX);
        assert_eq!(inodes.get(inode), None);
    }

    #[test]
    fn passes_with_a_limit_find_the_holder_one_after_the_other() {
        let held: Vec<_> = (0..30).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback")).collect();
        let link = |listener| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(listener));
        let inode = |listener| std::fs::metadata(link(listener)).expect("our own socket").ino();
        let wanted: BTreeSet<u32> = held.iter().map(|one| u32::try_from(inode(one)).expect("32 bits")).collect();
        // a procfs with this process alone, so that the number of passes is known
        let procfs = tempfile::tempdir().expect("a folder");
        let own = format!("/proc/{}", std::process::id());
        std::os::unix::fs::symlink(own, procfs.path().join("4711")).expect("a link");

        let mut inodes = Inodes::new(procfs.path().to_owned());
        let mut passes = 0;
        while wanted.iter().any(|inode| inodes.get(*inode).is_none()) {
            assert!(!inodes.has_read_all() && passes < 10_000, "{passes} passes");
            inodes.learn(&wanted, 5);
            passes += 1;
        }
        assert!(passes >= 6, "30 sockets at 5 descriptors each: {passes} passes");
        // nothing else is there: a socket that nobody holds ends the first whole pass
        let nobody = BTreeSet::from([u32::MAX]);
        for _ in 0..10_000 {
            inodes.learn(&nobody, 5);
            if inodes.has_read_all() {
                return;
            }
        }
        panic!("the passes do not come to an end");
    }
}

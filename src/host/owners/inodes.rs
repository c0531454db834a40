//! Who holds a socket, by its inode: the way of hosts that have no cgroup v2, through `/proc/PID/fd`.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use super::cgroup::CgroupOwner;
use super::dir;
use super::process::Process;

/// How many file descriptors a sweep looks at once the first pass is done, 2 µs each; the next sweep goes on from there.
const DESCRIPTORS_PER_SWEEP: usize = 20_000;

/// Holders of socket inodes. An inode is remembered only while every sweep asks for it, which is the life of a connection.
#[derive(Debug)]
pub(super) struct Inodes {
    procfs: PathBuf,
    known: HashMap<u32, CgroupOwner>,
    /// The pid to go on from, once a whole pass was made.
    resume: Option<u32>,
}

impl Inodes {
    pub fn new(procfs: PathBuf) -> Self {
        Self { procfs, known: HashMap::new(), resume: None }
    }

    /// Looks for the holders of `wanted`, all in one pass. Says whether some processes could not be looked into.
    ///
    /// The first call makes a whole pass, so that a single sweep is complete; later ones have new connections to find only and
    /// a bounded share of the descriptors each.
    pub fn learn(&mut self, wanted: &BTreeSet<u32>) -> bool {
        self.known.retain(|inode, _| wanted.contains(inode));
        let mut missing: BTreeSet<u32> =
            wanted.iter().copied().filter(|inode| *inode != 0 && !self.known.contains_key(inode)).collect();
        let mut budget = self.resume.map_or(usize::MAX, |_| DESCRIPTORS_PER_SWEEP);
        let mut pids = self.pids();
        pids.sort_unstable();
        let from = pids.partition_point(|pid| *pid < self.resume.unwrap_or(0));
        pids.rotate_left(from);
        let mut denied = false;
        for pid in pids {
            if missing.is_empty() || budget == 0 {
                self.resume = Some(pid);
                return denied;
            }
            denied |= self.look_into(pid, &mut missing, &mut budget);
        }
        self.resume.get_or_insert(0);
        denied
    }

    /// Who holds the inode, if it was learned.
    pub fn get(&self, inode: u32) -> Option<&CgroupOwner> {
        self.known.get(&inode)
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(procfs) = openat(CWD, &self.procfs, flags, Mode::empty()) {
            let _unlisted = dir::entries(&procfs, ".", |entry| pids.extend(entry.name.parse::<u32>()));
        }
        pids
    }

    /// Takes what process `pid` holds of `missing`; true when its descriptors may not be read.
    fn look_into(&mut self, pid: u32, missing: &mut BTreeSet<u32>, budget: &mut usize) -> bool {
        let Ok(process) = Process::open(&self.procfs, pid) else { return false };
        let folder = match dir::open(process.folder(), "fd") {
            Ok(folder) => folder,
            Err(error) => return error.kind() == ErrorKind::PermissionDenied,
        };
        let mut held = Vec::new();
        let mut link = Vec::new();
        let _gone = dir::entries(&folder, ".", |entry| {
            *budget = budget.saturating_sub(1);
            let Ok(target) = readlinkat(folder.as_fd(), entry.name, std::mem::take(&mut link)) else { return };
            held.extend(target.to_str().ok().and_then(socket_inode).filter(|inode| missing.remove(inode)));
            link = target.into_bytes();
        });
        if !held.is_empty()
            && let Ok(place) = process.place()
        {
            self.known.extend(held.into_iter().map(|inode| (inode, place.clone())));
        }
        false
    }
}

/// `socket:[INODE]`
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// On the real `/proc`, with a socket of our own: no privilege is needed for that.
    #[test]
    fn the_holder_of_a_socket_is_found_and_forgotten_when_not_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener));
        let inode = u32::try_from(std::fs::metadata(link).expect("our own socket").ino()).expect("32 bits");
        let ours = Process::open("/proc".as_ref(), std::process::id())
            .and_then(|process| process.place())
            .expect("our own cgroup");

        let mut inodes = Inodes::new("/proc".into());
        inodes.learn(&[inode].into());
        assert_eq!(inodes.get(inode), Some(&ours));
        inodes.learn(&[].into());
        assert_eq!(inodes.get(inode), None);
    }

    #[test]
    fn a_link_that_is_no_socket_has_no_inode() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        for other in ["socket:[]", "socket:[x]", "pipe:[4711]", "/socket:[4711]", "socket:[4711] (deleted)"] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }
}

//! Walks `/proc/PID/fd` to find the process that holds each socket.
//!
//! It counts what it cannot read, because a socket that was not found may still have a holder.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

/// The highest number of processes, and of descriptors of one process, that are read.
const MAX_ENTRIES: usize = 4_000_000;

/// A process that holds some of the sockets.
pub struct SocketHolder {
    /// Its process id in this procfs.
    pub pid: u32,
    /// Its folder in procfs. Reads from it fail once the process is gone, even if a successor has its pid.
    pub folder: OwnedFd,
    /// The sockets that were asked for.
    pub sockets: Vec<HeldSocket>,
}

/// A socket in the descriptor table of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSocket {
    /// The number of the descriptor.
    pub fd: i32,
    /// The inode of the socket.
    pub inode: u32,
}

/// The number of failures of a walk.
#[derive(Debug, Default)]
pub struct Unread {
    /// Processes whose descriptors may not be read.
    pub refused: u64,
    /// Processes whose descriptors could not be read for another reason. 1 if procfs itself could not be listed.
    pub failed: u64,
    /// The first failure, or the first refusal if nothing failed.
    pub error: Option<io::Error>,
}

impl Unread {
    /// Whether the walk read everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refused + self.failed == 0
    }

    fn count(&mut self, error: io::Error) {
        match error.kind() {
            ErrorKind::PermissionDenied => self.refused += 1,
            // the process is gone
            ErrorKind::NotFound => return,
            _ if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return,
            _ => {
                self.failed += 1;
                if self.failed == 1 {
                    self.error = Some(error);
                }
                return;
            }
        }
        self.error.get_or_insert(error);
    }
}

/// The part of procfs that a walk reads.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The process id to start from; the walk continues with the lowest one after the highest.
    pub from: u32,
    /// The number of descriptors after which the walk ends.
    pub descriptors: usize,
}

impl Span {
    /// Every descriptor of every process.
    pub const WHOLE: Self = Self { from: 0, descriptors: usize::MAX };
}

/// How a walk ended.
#[derive(Debug, Default)]
pub struct WalkEnd {
    /// The process id to start the next walk from.
    pub next: u32,
    /// What could not be read.
    pub unread: Unread,
}

/// Passes each process that holds sockets of `missing` to `each`, which removes the sockets that it has handled. The
/// walk ends when `missing` is empty or the span is used up.
pub fn walk(
    procfs: &Path,
    missing: &mut BTreeSet<u32>,
    span: Span,
    mut each: impl FnMut(SocketHolder, &mut BTreeSet<u32>),
) -> WalkEnd {
    let mut end = WalkEnd { next: span.from, ..WalkEnd::default() };
    let mut left = span.descriptors;
    missing.remove(&0);
    if missing.is_empty() {
        return end;
    }
    let mut pids = match pids(procfs) {
        Ok(pids) => pids,
        Err(error) => {
            end.unread.failed = 1;
            end.unread.error = Some(error);
            return end;
        }
    };
    pids.sort_unstable();
    let from = pids.partition_point(|pid| *pid < span.from);
    pids.rotate_left(from);
    for pid in pids {
        if missing.is_empty() || left == 0 {
            end.next = pid;
            return end;
        }
        match read_process(procfs, pid, missing, &mut left) {
            Ok(holder) if holder.sockets.is_empty() => {}
            Ok(holder) => each(holder, missing),
            Err(error) => end.unread.count(error),
        }
    }
    end
}

/// The processes of a procfs.
fn pids(procfs: &Path) -> io::Result<Vec<u32>> {
    let folder = openat(CWD, procfs, FOLDER, Mode::empty())?;
    let mut pids = Vec::new();
    for entry in Dir::new(folder)?.take(MAX_ENTRIES) {
        pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The sockets of `missing` that one process holds. It is an error if a link may not be read.
fn read_process(procfs: &Path, pid: u32, missing: &BTreeSet<u32>, left: &mut usize) -> io::Result<SocketHolder> {
    let folder = openat(CWD, procfs.join(pid.to_string()), OFlags::PATH | FOLDER, Mode::empty())?;
    let table = openat(&folder, "fd", FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
    let mut sockets = Vec::new();
    let mut refused = None;
    let mut link = Vec::new();
    for entry in Dir::read_from(&table)?.take(MAX_ENTRIES) {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
        *left = left.saturating_sub(1);
        let target = match readlinkat(&table, entry.file_name(), std::mem::take(&mut link)) {
            Ok(target) => target,
            // closed meanwhile
            Err(Errno::NOENT) => continue,
            // the kernel decides for the whole process
            Err(error) => {
                refused = Some(error);
                break;
            }
        };
        let inode = target.to_str().ok().and_then(socket_inode).filter(|inode| missing.contains(inode));
        sockets.extend(inode.map(|inode| HeldSocket { fd, inode }));
        link = target.into_bytes();
    }
    refused.map_or(Ok(SocketHolder { pid, folder, sockets }), |error| Err(error.into()))
}

/// `socket:[INODE]`
pub(super) fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn inode_of(socket: &TcpListener) -> u32 {
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        u32::try_from(std::fs::metadata(link).expect("is open").ino()).expect("sockfs inodes have 32 bits")
    }

    #[test]
    fn a_socket_is_found_in_the_process_that_holds_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let inode = inode_of(&listener);
        let mut missing = BTreeSet::from([0, inode]);
        let mut found = Vec::new();
        walk("/proc".as_ref(), &mut missing, Span::WHOLE, |holder, missing| {
            missing.retain(|inode| !holder.sockets.iter().any(|socket| socket.inode == *inode));
            found.push((holder.pid, holder.sockets));
        });
        assert_eq!(found, [(std::process::id(), vec![HeldSocket { fd: listener.as_raw_fd(), inode }])]);
        assert_eq!(missing, BTreeSet::new(), "0 is no socket");
    }

    #[test]
    fn a_used_up_span_says_where_to_continue() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let inode = inode_of(&listener);
        let own = std::process::id();
        // a walk that starts at this process and may read one descriptor reads this process only
        let span = Span { from: own, descriptors: 1 };
        let mut seen = 0;
        let mut missing = BTreeSet::from([inode]);
        let end = walk("/proc".as_ref(), &mut missing, span, |_, _| seen += 1);
        assert_eq!(seen, 1, "a process is read whole");
        assert_ne!(end.next, own, "the next walk starts after it");
    }

    #[test]
    fn a_folder_that_cannot_be_listed_is_counted_as_a_failure() {
        let end = walk("/nowhere".as_ref(), &mut BTreeSet::from([1]), Span::WHOLE, |_, _| {});
        assert_eq!((end.unread.refused, end.unread.failed), (0, 1));
        assert!(end.unread.error.is_some() && !end.unread.is_empty());
        // a tree in which the descriptors of one process are not a directory, and another process is already gone
        let tree = tempfile::tempdir().expect("a folder");
        for pid in ["17", "18"] {
            std::fs::create_dir(tree.path().join(pid)).expect("a folder");
        }
        std::fs::write(tree.path().join("17/fd"), "").expect("a file");
        let end = walk(tree.path(), &mut BTreeSet::from([1]), Span::WHOLE, |_, _| {});
        assert_eq!((end.unread.refused, end.unread.failed), (0, 1), "{:?}", end.unread);
    }

    #[test]
    fn a_process_that_may_not_be_read_is_counted_as_refused() {
        let mut unread = Unread::default();
        for errno in [Errno::ACCESS, Errno::PERM, Errno::NOENT, Errno::SRCH, Errno::MFILE] {
            unread.count(errno.into());
        }
        assert_eq!((unread.refused, unread.failed), (2, 1));
        let reported = unread.error.and_then(|error| error.raw_os_error());
        assert_eq!(reported, Some(Errno::MFILE.raw_os_error()), "a refusal is not the reason of a failure");
    }

    #[test]
    fn only_links_to_sockets_have_a_socket_inode() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        for other in ["socket:[]", "socket:[x]", "pipe:[4711]", "/socket:[4711]", "socket:[4711] (deleted)"] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }
}

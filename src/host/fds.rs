//! Walks `/proc/PID/fd` to find the process that holds each socket.
//!
//! It counts what it cannot read, because a socket that was not found may still have a holder.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use hashbrown::HashSet;
use rustix::fs::{CWD, Dir, Mode, OFlags, RawDir, SeekFrom, openat, readlinkat_raw, seek};
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

/// Where a walk begins: a process, and a descriptor of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The process. The walk continues with the lowest one after the highest.
    pub pid: u32,
    /// The descriptors below this one are skipped.
    pub fd: i32,
}

/// The part of procfs that a walk reads.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Where it begins.
    pub from: Position,
    /// The number of descriptors after which the walk ends.
    pub descriptors: usize,
}

impl Span {
    /// Every descriptor of every process.
    pub const WHOLE: Self = Self { from: Position { pid: 0, fd: 0 }, descriptors: usize::MAX };
}

/// How a walk ended.
#[derive(Debug, Default)]
pub struct WalkEnd {
    /// Where to begin the next walk.
    pub next: Position,
    /// Whether the span was used up before everything was found.
    pub is_cut: bool,
    /// What could not be read.
    pub unread: Unread,
}

/// The inodes of sockets that are still to be found.
pub type Missing = HashSet<u32>;

/// Passes each process that holds sockets of `missing` to `each`, which removes the sockets that it has handled. The
/// walk ends when `missing` is empty or the span is used up.
pub fn walk(
    procfs: &Path,
    missing: &mut Missing,
    span: Span,
    mut each: impl FnMut(SocketHolder, &mut Missing),
) -> WalkEnd {
    let mut end = WalkEnd { next: span.from, ..WalkEnd::default() };
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
    let from = pids.partition_point(|pid| *pid < span.from.pid);
    pids.rotate_left(from);
    let mut walk = Walk { left: span.descriptors, entries: Vec::with_capacity(LISTING) };
    for pid in pids {
        let from = if pid == span.from.pid { span.from.fd } else { 0 };
        if missing.is_empty() || walk.left == 0 {
            end.next = Position { pid, fd: from };
            break;
        }
        match walk.process(procfs, pid, from, missing) {
            Ok((holder, next)) => {
                if !holder.sockets.is_empty() {
                    each(holder, missing);
                }
                if let Some(fd) = next {
                    end.next = Position { pid, fd };
                    break;
                }
            }
            Err(error) => end.unread.count(error),
        }
    }
    end.is_cut = walk.left == 0 && !missing.is_empty();
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
/// The bytes of a listing that are read at once.
const LISTING: usize = 32 << 10;
/// procfs lists `.` and `..` before the first descriptor.
const DOTS: u64 = 2;

/// A walk that is under way.
struct Walk {
    /// The number of descriptors that it may still read.
    left: usize,
    entries: Vec<u8>,
}

impl Walk {
    /// The sockets of `missing` that one process holds, and the descriptor at which the walk ended within it. It is an
    /// error if a link may not be read.
    fn process(
        &mut self,
        procfs: &Path,
        pid: u32,
        from: i32,
        missing: &Missing,
    ) -> io::Result<(SocketHolder, Option<i32>)> {
        let folder = openat(CWD, procfs.join(pid.to_string()), OFlags::PATH | FOLDER, Mode::empty())?;
        let table = openat(&folder, "fd", FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        let mut holder = SocketHolder { pid, folder, sockets: Vec::new() };
        if from > 0 {
            // a procfs that counts otherwise costs time only: descriptors below are skipped
            let _ = seek(&table, SeekFrom::Start(u64::try_from(from).unwrap_or(0) + DOTS));
        }
        // the link of a socket is short, and of other links only the beginning matters
        let mut link = [0; 64];
        self.entries.clear();
        let mut listing = RawDir::new(&table, self.entries.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            if fd < from {
                continue;
            }
            if self.left == 0 {
                return Ok((holder, Some(fd)));
            }
            self.left -= 1;
            let length = match readlinkat_raw(&table, entry.file_name(), &mut link[..]) {
                Ok(length) => length,
                // closed meanwhile
                Err(Errno::NOENT) => continue,
                // the kernel decides for the whole process
                Err(error) => return Err(error.into()),
            };
            let inode = str::from_utf8(&link[..length]).ok().and_then(socket_inode);
            if let Some(inode) = inode.filter(|inode| missing.contains(inode)) {
                holder.sockets.push(HeldSocket { fd, inode });
                if holder.sockets.len() == missing.len() && holder.holds_all(missing) {
                    break;
                }
            }
        }
        Ok((holder, None))
    }
}

impl SocketHolder {
    /// Whether its descriptors are different sockets, so that nothing is missing any more.
    fn holds_all(&self, missing: &Missing) -> bool {
        self.sockets.iter().map(|socket| socket.inode).collect::<Missing>().len() == missing.len()
    }
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
        let mut missing = Missing::from_iter([0, inode]);
        let mut found = Vec::new();
        walk("/proc".as_ref(), &mut missing, Span::WHOLE, |holder, missing| {
            missing.retain(|inode| !holder.sockets.iter().any(|socket| socket.inode == *inode));
            found.push((holder.pid, holder.sockets));
        });
        assert_eq!(found, [(std::process::id(), vec![HeldSocket { fd: listener.as_raw_fd(), inode }])]);
        assert!(missing.is_empty(), "0 is no socket");
    }

    /// Walks that each read `descriptors` descriptors, until one finds the socket or `most` were made.
    fn walks_to_find(inode: u32, descriptors: usize, most: usize) -> (usize, Vec<Position>) {
        let mut missing = Missing::from_iter([inode]);
        let mut span = Span { from: Position { pid: std::process::id(), fd: 0 }, descriptors };
        let mut positions = Vec::new();
        for number in 1..=most {
            let end = walk("/proc".as_ref(), &mut missing, span, |_, missing| missing.clear());
            if missing.is_empty() {
                assert!(!end.is_cut);
                return (number, positions);
            }
            assert!(end.is_cut);
            positions.push(end.next);
            span.from = end.next;
        }
        (most, positions)
    }

    #[test]
    fn a_used_up_span_says_where_to_continue_even_within_a_process() {
        let many: Vec<_> = (0..40).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback")).collect();
        let last = many.iter().max_by_key(|socket| socket.as_raw_fd()).expect("forty");
        let (walks, positions) = walks_to_find(inode_of(last), 4, 10_000);
        // other tests open and close descriptors meanwhile
        assert!(walks >= 10, "{walks} walks of 4 descriptors each pass more than 40");
        assert!(positions.iter().all(|at| at.pid == std::process::id()), "{positions:?}");
        assert!(
            positions.windows(2).all(|pair| pair[0].fd < pair[1].fd),
            "each continues after the last: {positions:?}"
        );
        assert_eq!(walks_to_find(inode_of(last), usize::MAX, 1).0, 1);
    }

    #[test]
    fn a_walk_ends_in_the_process_that_holds_everything_that_is_missing() {
        let first = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let again = first.try_clone().expect("a second descriptor");
        let second = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let wanted = [inode_of(&first), inode_of(&second)];
        let mut missing = Missing::from_iter(wanted);
        let mut found = Vec::new();
        walk("/proc".as_ref(), &mut missing, Span::WHOLE, |holder, missing| {
            found.extend(holder.sockets.iter().map(|socket| socket.inode));
            missing.clear();
        });
        assert!(wanted.iter().all(|inode| found.contains(inode)), "two descriptors of one socket are one: {again:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_listed_is_counted_as_a_failure() {
        let end = walk("/nowhere".as_ref(), &mut Missing::from_iter([1]), Span::WHOLE, |_, _| {});
        assert_eq!((end.unread.refused, end.unread.failed), (0, 1));
        assert!(end.unread.error.is_some() && !end.unread.is_empty());
        // a tree in which the descriptors of one process are not a directory, and another process is already gone
        let tree = tempfile::tempdir().expect("a folder");
        for pid in ["17", "18"] {
            std::fs::create_dir(tree.path().join(pid)).expect("a folder");
        }
        std::fs::write(tree.path().join("17/fd"), "").expect("a file");
        let end = walk(tree.path(), &mut Missing::from_iter([1]), Span::WHOLE, |_, _| {});
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

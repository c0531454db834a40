//! Finds the processes that hold sockets and reads the options of sockets for `--exact`, in one walk of `/proc/PID/fd`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat, readlinkat};

use super::exact::{Borrower, reason};
use super::fds::{self, SocketHolder, Span, Unread};
use super::names::printable;
use super::worker::Worker;
use crate::owner::Holder;
use crate::record::{HeldSockets, Loss, SocketsToRead};
use crate::socket::KeepaliveOptions;

/// The longest first argument of a command line that is read, in bytes.
const MAX_ARGV0: u64 = 4096;

/// The facts about sockets from the processes of this machine.
#[derive(Debug, Default)]
pub struct FoundHolders {
    /// Processes that hold the sockets, each with the inodes that it holds.
    pub holders: Vec<HeldSockets>,
    /// Sockets that none of the processes that could be read holds.
    pub unheld: Vec<u32>,
    /// Options by socket inode.
    pub options: BTreeMap<u32, KeepaliveOptions>,
    /// Options that could not be read because the kernel refused.
    pub loss: Option<Loss>,
    /// A sentence about sockets that no visible process holds, so that their options are unknown.
    pub missing: Option<String>,
}

/// Finds the holders of the requested sockets, and reads the requested options. `files`
/// reads command lines, which are memory of these processes: a process can make that hang.
#[must_use]
pub(super) fn find(procfs: &Path, wanted: &SocketsToRead, files: &mut Worker) -> FoundHolders {
    let mut found = FoundHolders::default();
    let mut refused: Option<io::Error> = None;
    let mut missing: BTreeSet<u32> = wanted.holders.union(&wanted.options).copied().collect();
    let end = fds::walk(procfs, &mut missing, Span::WHOLE, |process, missing| {
        let SocketHolder { pid, folder, sockets } = process;
        let mut borrower = Borrower::new(pid);
        let mut held = Vec::new();
        for socket in sockets {
            if wanted.options.contains(&socket.inode) {
                // another process may hold the socket too, and may allow the access that this one refused
                match borrower.options(socket) {
                    Ok(Some(options)) => drop(found.options.insert(socket.inode, options)),
                    Ok(None) => continue,
                    Err(error) => {
                        refused.get_or_insert(error);
                        held.push(socket.inode);
                        continue;
                    }
                }
            }
            missing.remove(&socket.inode);
            held.push(socket.inode);
        }
        held.sort_unstable();
        held.dedup();
        held.retain(|inode| wanted.holders.contains(inode));
        if !held.is_empty() {
            let holder = Holder { argv0: argv0(&folder, files), ..holder(pid, folder.as_fd()) };
            found.holders.push(HeldSockets { holder, inodes: held });
        }
    });
    if end.unread.failed == 0 {
        // a socket of which only the options could not be read has a holder
        let held: BTreeSet<u32> = found.holders.iter().flat_map(|held| &held.inodes).copied().collect();
        found.unheld = missing.iter().filter(|inode| wanted.holders.contains(inode)).copied().collect();
        found.unheld.retain(|inode| !held.contains(inode));
    }
    let unread = missing.iter().filter(|inode| wanted.options.contains(inode)).count();
    if unread > 0 {
        (found.loss, found.missing) = explain(procfs, unread, wanted.options.len(), refused, end.unread);
    }
    found
}

/// The reason why options are missing. A refusal is a loss. A socket without a holder may just have been closed.
fn explain(
    procfs: &Path,
    unread: usize,
    wanted: usize,
    refused: Option<io::Error>,
    walk: Unread,
) -> (Option<Loss>, Option<String>) {
    let what = format!("--exact: the options of {unread} of {wanted} sockets could not be read");
    match refused.or(walk.error) {
        Some(error) => {
            let label = super::failure::reason(&error);
            let detail = format!("{what}: {}", reason(&error, procfs));
            (Some(Loss::new(None, label, detail)), None)
        }
        None => (
            None,
            Some(format!("{what}: no process that is visible here holds them (host PID namespace?), or they closed")),
        ),
    }
}

/// The first word of a command line; empty where it cannot be read.
fn argv0(folder: &OwnedFd, files: &mut Worker) -> String {
    // the thread would be in the namespace that this one has entered
    if !files.is_started() {
        return String::new();
    }
    let read = folder.try_clone().and_then(|folder| files.run(move || read(folder.as_fd(), "cmdline")).flatten());
    printable(read.unwrap_or_default().split('\0').next().unwrap_or_default())
}

/// The names of a process, as far as they may be read. The command line is not: see [`argv0`].
pub(super) fn holder(pid: u32, folder: BorrowedFd<'_>) -> Holder {
    let exe = readlinkat(folder, "exe", Vec::new()).ok();
    let exe = exe.as_ref().and_then(|exe| Path::new(exe.to_str().ok()?).file_name()?.to_str());
    Holder {
        pid,
        comm: printable(read(folder, "comm").unwrap_or_default().trim_end_matches('\n')),
        // an executable that was replaced while it runs
        exe: exe.map(|exe| printable(exe.strip_suffix(" (deleted)").unwrap_or(exe))).unwrap_or_default(),
        ..Holder::default()
    }
}

fn read(folder: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(MAX_ARGV0).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn started() -> Worker {
        let mut files = Worker::default();
        files.start().expect("a thread");
        files
    }

    #[test]
    fn our_own_socket_is_held_by_this_test() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let inode = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).expect("is open").ino();
        let inode = u32::try_from(inode).expect("sockfs inodes have 32 bits");
        let own = std::env::current_exe().expect("has one");
        let wanted = SocketsToRead { options: BTreeSet::new(), holders: [inode, 0].into() };
        let found = find("/proc".as_ref(), &wanted, &mut started());
        let [HeldSockets { holder, inodes }] = &found.holders[..] else { panic!("{found:?}") };
        assert_eq!((holder.pid, &inodes[..]), (std::process::id(), &[inode][..]));
        assert_eq!(Some(holder.program()), own.file_name().and_then(|name| name.to_str()));
        assert_eq!(Some(&*holder.argv0), std::env::args().next().as_deref());
        assert!(!holder.comm.is_empty() && found.options.is_empty());
    }

    #[test]
    fn a_refusal_is_a_loss_and_a_socket_without_a_holder_is_reported() {
        let wanted = SocketsToRead { options: [1].into(), holders: BTreeSet::new() };
        let nowhere = find("/nowhere".as_ref(), &wanted, &mut Worker::default());
        assert!(nowhere.loss.is_some_and(|loss| loss.detail.contains("1 of 1 sockets")));
        // no process of this machine holds a socket with this inode
        let tree = tempfile::tempdir().expect("a folder");
        let nobody = find(tree.path(), &wanted, &mut Worker::default());
        assert!(nobody.loss.is_none() && nobody.missing.is_some_and(|missing| missing.contains("no process")));
    }
}

//! Finds the processes that hold sockets and reads the options of sockets for `--exact`, in one walk of `/proc/PID/fd`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::exact::{Borrower, reason};
use super::fds::{self, Missing, Position, SocketHolder, Span, Unread};
use super::node::own_pid;
use super::program::Programs;
use crate::record::{HeldSockets, Loss, SocketsToRead};
use crate::socket::KeepaliveOptions;

/// The kernel's own PID namespace always has this number.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

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
    /// Where the next search begins.
    pub next: Position,
    /// The number of sockets that were not found because the search may not read more.
    pub unsearched: usize,
}

/// Finds the holders of the requested sockets in this part of procfs, and reads the requested options.
#[must_use]
pub(super) fn find(procfs: &Path, wanted: &SocketsToRead, span: Span, programs: &Programs) -> FoundHolders {
    let mut found = FoundHolders::default();
    let mut refused: Option<io::Error> = None;
    let mut missing: Missing = wanted.holders.union(&wanted.options).copied().collect();
    let end = fds::walk(procfs, &mut missing, span, |process, missing| {
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
            found.holders.push(HeldSockets { holder: programs.read(pid, folder.as_fd()), inodes: held });
        }
    });
    found.next = end.next;
    found.unsearched = if end.is_cut { missing.len() } else { 0 };
    let is_whole = !end.is_cut && span.from.fd == 0;
    if is_whole && end.unread.failed == 0 && sees_other_processes(procfs, &found) {
        // a socket has a holder even if its options could not be read
        let held: BTreeSet<u32> = found.holders.iter().flat_map(|held| &held.inodes).copied().collect();
        found.unheld = missing.iter().filter(|inode| wanted.holders.contains(inode)).copied().collect();
        found.unheld.retain(|inode| !held.contains(inode));
        found.unheld.sort_unstable();
    }
    let unread = missing.iter().filter(|inode| wanted.options.contains(inode)).count();
    if unread > 0 {
        (found.loss, found.missing) = explain(procfs, unread, wanted.options.len(), refused, end.unread);
    }
    found
}

/// Whether the processes that may hold sockets of other network namespaces are visible here. In the PID namespace of a
/// container they are not, and a socket without a holder may have one.
fn sees_other_processes(procfs: &Path, found: &FoundHolders) -> bool {
    let is_first = |process: &str| {
        let link = std::fs::read_link(procfs.join(process).join("ns/pid"));
        link.is_ok_and(|link| link == Path::new(FIRST_PID_NAMESPACE))
    };
    let own = own_pid();
    found.holders.iter().any(|held| held.holder.pid != own) || ["self", "1"].into_iter().any(is_first)
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn started() -> Programs {
        let programs = Programs::default();
        programs.start().expect("a thread");
        programs
    }

    #[test]
    fn our_own_socket_is_held_by_this_test() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let inode = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).expect("is open").ino();
        let inode = u32::try_from(inode).expect("sockfs inodes have 32 bits");
        let own = std::env::current_exe().expect("has one");
        let wanted = SocketsToRead { options: BTreeSet::new(), holders: [inode, 0].into() };
        let found = find("/proc".as_ref(), &wanted, Span::WHOLE, &started());
        let [HeldSockets { holder, inodes }] = &found.holders[..] else { panic!("{found:?}") };
        assert_eq!((holder.pid, &inodes[..]), (std::process::id(), &[inode][..]));
        assert_eq!(Some(holder.program()), own.file_name().and_then(|name| name.to_str()));
        assert_eq!(Some(&*holder.argv0), std::env::args().next().as_deref());
        assert!(!holder.comm.is_empty() && found.options.is_empty() && found.unheld.is_empty());
    }

    #[test]
    fn a_refusal_is_a_loss_and_a_socket_without_a_holder_is_reported() {
        let wanted = SocketsToRead { options: [1].into(), holders: BTreeSet::new() };
        let nowhere = find("/nowhere".as_ref(), &wanted, Span::WHOLE, &Programs::default());
        assert!(nowhere.loss.is_some_and(|loss| loss.detail.contains("1 of 1 sockets")));
        // no process of this machine holds a socket with this inode
        let tree = tempfile::tempdir().expect("a folder");
        let nobody = find(tree.path(), &wanted, Span::WHOLE, &Programs::default());
        let sought = SocketsToRead { options: BTreeSet::new(), holders: [1].into() };
        let found = || find(tree.path(), &sought, Span::WHOLE, &Programs::default());
        assert_eq!(found().unheld, Vec::<u32>::new(), "the holder may be outside of this PID namespace");
        std::fs::create_dir_all(tree.path().join("self/ns")).expect("a folder");
        std::os::unix::fs::symlink(FIRST_PID_NAMESPACE, tree.path().join("self/ns/pid")).expect("a link");
        assert_eq!(found().unheld, [1]);
        assert_eq!(find("/nowhere".as_ref(), &sought, Span::WHOLE, &Programs::default()).unheld, Vec::<u32>::new());
        assert!(nobody.loss.is_none() && nobody.missing.is_some_and(|missing| missing.contains("no process")));
    }
}

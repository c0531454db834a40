//! Which executable holds a socket: for `--explain`, which names a remedy by it. One pass over `/proc/PID/fd`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The executable's file name (its command name where that may not be read) of each socket inode that some process holds.
///
/// What cannot be read is left out: an explanation without a program is still true.
#[must_use]
pub fn of_inodes(procfs: &Path, wanted: &BTreeSet<u32>) -> BTreeMap<u32, String> {
    let mut missing = wanted.clone();
    missing.remove(&0);
    let mut found = BTreeMap::new();
    for process in fs::read_dir(procfs).into_iter().flatten().flatten() {
        if missing.is_empty() {
            break;
        }
        let held: Vec<u32> = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|fd| socket_inode(fs::read_link(fd.path()).ok()?.to_str()?))
            .filter(|inode| missing.remove(inode))
            .collect();
        if !held.is_empty()
            && let Some(name) = name(&process.path())
        {
            found.extend(held.into_iter().map(|inode| (inode, name.clone())));
        }
    }
    found
}

/// `socket:[INODE]`
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn name(process: &Path) -> Option<String> {
    let exe = fs::read_link(process.join("exe")).ok();
    let file = exe.as_ref().and_then(|exe| exe.file_name()?.to_str());
    // An executable that was replaced while it runs.
    let file = file.map(|file| file.strip_suffix(" (deleted)").unwrap_or(file).to_owned());
    file.or_else(|| Some(fs::read_to_string(process.join("comm")).ok()?.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn our_own_socket_is_held_by_this_test() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let inode = fs::metadata(format!("/proc/self/fd/{fd}")).expect("is open").ino();
        let inode = u32::try_from(inode).expect("sockfs inodes are 32 bit");
        let own = std::env::current_exe().expect("has one");
        let own = own.file_name().and_then(|name| name.to_str()).expect("is text").to_owned();
        let found = of_inodes(Path::new("/proc"), &BTreeSet::from([inode, 0]));
        assert_eq!(found, BTreeMap::from([(inode, own)]));
    }

    #[test]
    fn only_sockets_have_socket_inodes() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        for link in ["pipe:[4711]", "socket:[]", "/tmp/socket:[1]", "anon_inode:[eventfd]"] {
            assert_eq!(socket_inode(link), None, "{link}");
        }
    }
}

//! One network namespace: identifies it and enters it.
//!
//! No handle is kept: an open descriptor of a namespace keeps a dead pod's interfaces alive.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, fstat, fstatfs, openat, statx};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::failure::is_gone;
use crate::owner::NsId;

/// `NSFS_MAGIC` of linux/magic.h: a bind mount of a namespace lies on nsfs, a leftover file in `/run/netns` does not.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
/// The only namespace of a kernel without `CONFIG_NET_NS`, which has no number.
pub(super) const ONLY: NsId = NsId(0);

/// A namespace that was found, and the paths by which a thread can enter it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The name of its bind mount.
    pub name: Option<String>,
    /// Its bind mount.
    pub mount: Option<PathBuf>,
    /// Some processes in it.
    pub pids: Vec<u32>,
    /// No process and no bind mount of the last sweep leads to it any more. The kernel gives the number of a namespace
    /// that has ended to the next new one, so it may be another.
    pub is_replaced: bool,
}

impl Found {
    /// Whether a process or a bind mount leads to both.
    pub(super) fn shares_a_way_with(&self, before: &Self) -> bool {
        let same_mount = self.mount.is_some() && self.mount == before.mount;
        same_mount || self.pids.iter().any(|pid| before.pids.contains(pid))
    }
}

/// The namespace of this thread.
pub fn own() -> io::Result<NsId> {
    match std::fs::read_link("/proc/thread-self/ns/net") {
        Ok(link) => parse_link(&link).ok_or_else(|| io::Error::other("/proc/thread-self/ns/net is not a namespace")),
        Err(error) if is_gone(&error) && Path::new("/proc/thread-self/stat").exists() => Ok(ONLY),
        Err(error) => Err(error),
    }
}

/// The namespace behind a path: a bind mount or a `/proc/PID/ns/net`. The path may be any file: a FIFO does not block
/// this.
pub fn id_of(path: &Path) -> io::Result<NsId> {
    let not_one = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a network namespace");
    handle_of(path)?.ok_or_else(not_one)
}

/// Like [`id_of`], but `None` if the path is not a namespace.
pub(super) fn handle_of(path: &Path) -> io::Result<Option<NsId>> {
    handle_on(path, nsfs())
}

/// Like [`handle_of`]. `nsfs` is the device of namespaces, if it is known: then one system call is enough.
pub(super) fn handle_on(path: &Path, nsfs: Option<Device>) -> io::Result<Option<NsId>> {
    if let Some(nsfs) = nsfs {
        let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        // nothing but the device is asked for, which the kernel knows: a file system that hangs or that belongs to
        // another user is not asked. nsfs gives the inode as well.
        let found = statx(CWD, path, flags, StatxFlags::empty())?;
        return Ok((device(&found) == nsfs).then_some(NsId(found.stx_ino)));
    }
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(if is_on_nsfs(&file)? { Some(NsId(fstat(&file)?.st_ino)) } else { None })
}

/// A device, by its major and minor number.
pub(super) type Device = (u32, u32);

/// The device of all namespaces, which is that of our own. `None` on a kernel or in a sandbox without `statx`.
pub(super) fn nsfs() -> Option<Device> {
    let own = statx(CWD, "/proc/thread-self/ns/net", AtFlags::empty(), StatxFlags::INO).ok()?;
    Some(device(&own))
}

fn device(found: &Statx) -> Device {
    (found.stx_dev_major, found.stx_dev_minor)
}

/// Moves the calling thread into a namespace, by the first path that still leads there. The thread must not do other
/// work afterwards.
///
/// `Ok(false)`: the namespace has ended.
pub fn enter(id: NsId, found: &Found, procfs: &Path) -> io::Result<bool> {
    let by_process = found.pids.iter().map(|pid| procfs.join(pid.to_string()).join("ns/net"));
    let mut failed = None;
    for path in found.mount.iter().cloned().chain(by_process) {
        match open(&path).and_then(|file| Ok((fstat(&file)?.st_ino, file))) {
            Ok((inode, file)) if inode == id.0 => {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                return Ok(true);
            }
            // the pid or the name now belongs to another namespace
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => failed = Some(failed.unwrap_or(error)),
        }
    }
    failed.map_or(Ok(false), Err)
}

/// Opens a handle for `setns`. The path may have become a FIFO since it was found.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

fn is_on_nsfs(file: &OwnedFd) -> io::Result<bool> {
    Ok(fstatfs(file)?.f_type == NSFS_MAGIC)
}

/// `net:[4026531840]`
pub(super) fn parse_link(link: &Path) -> Option<NsId> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok().map(NsId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, mknodat};

    #[test]
    fn a_file_that_is_not_a_bind_mount_is_not_a_namespace() {
        let directory = tempfile::tempdir().unwrap();
        let left_over = directory.path().join("left-over");
        std::fs::File::create(&left_over).unwrap();
        assert_eq!(id_of(&left_over).unwrap_err().to_string(), "it is not a network namespace");
        assert_eq!(id_of(Path::new("/proc/self/ns/net")).unwrap(), own().unwrap());
    }

    #[test]
    fn a_fifo_instead_of_a_namespace_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(id_of(&fifo).unwrap_err().to_string(), "it is not a network namespace");
        let found = Found { mount: Some(fifo), ..Found::default() };
        assert!(!enter(NsId(1), &found, Path::new("/proc")).unwrap(), "it leads to no namespace");
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error_and_one_that_is_gone_is_not() {
        let found = |pid| Found { pids: vec![pid], ..Found::default() };
        assert!(!enter(NsId(1), &found(u32::MAX), Path::new("/proc")).unwrap());
        let directory = tempfile::tempdir().unwrap();
        // a path through a file: ENOTDIR
        std::fs::write(directory.path().join("7"), "").unwrap();
        assert!(enter(NsId(1), &found(7), directory.path()).is_err());
    }
}

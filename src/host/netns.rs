//! Finds network namespaces, and enters one.
//!
//! A namespace is found through a process in it (`/proc/PID/ns/net`), through a bind mount (`/run/netns`, `/run/docker/netns`), or both.
//! No handle is kept: an open descriptor of a namespace keeps a dead pod's interfaces alive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::owner::NsId;

/// `NSFS_MAGIC` of linux/magic.h: a bind mount of a namespace lies on nsfs, a leftover file in `/run/netns` does not.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
/// Enough processes to name an owner and to enter by, whatever goes away meanwhile.
const MAX_PIDS: usize = 4;

/// A namespace that was found, and the ways into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The name of its bind mount.
    pub name: Option<String>,
    /// Its bind mount.
    pub mount: Option<PathBuf>,
    /// Some processes in it.
    pub pids: Vec<u32>,
}

/// What could not be looked at while finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Processes whose namespace may not be read.
    pub processes: u64,
}

/// The namespace that this thread is in.
pub fn own() -> io::Result<NsId> {
    fs::metadata("/proc/thread-self/ns/net").map(|metadata| NsId(metadata.ino()))
}

/// Every namespace, by inode.
#[must_use]
pub fn find(procfs: &Path, mounts: &[PathBuf]) -> (BTreeMap<NsId, Found>, Unseen) {
    let mut found: BTreeMap<NsId, Found> = BTreeMap::new();
    let mut unseen = Unseen::default();
    for pid in pids(procfs) {
        match fs::read_link(procfs.join(pid.to_string()).join("ns/net")) {
            Ok(link) => {
                if let Some(id) = parse_link(&link) {
                    let pids = &mut found.entry(id).or_default().pids;
                    if pids.len() < MAX_PIDS {
                        pids.push(pid);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unseen.processes += 1,
            // gone meanwhile
            Err(_) => {}
        }
    }
    for directory in mounts {
        for (path, id) in bind_mounts(directory) {
            let namespace = found.entry(id).or_default();
            if namespace.mount.is_none() {
                namespace.name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                namespace.mount = Some(path);
            }
        }
    }
    (found, unseen)
}

/// The namespace that a path is a handle of: a bind mount or a `/proc/PID/ns/net`.
pub fn id_of(path: &Path) -> io::Result<NsId> {
    let file = File::open(path)?;
    if !on_nsfs(&file) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a network namespace"));
    }
    Ok(NsId(file.metadata()?.ino()))
}

/// Moves the calling thread into a namespace, by whichever way still leads there. The thread must not do other work afterwards.
///
/// `Ok(false)`: it is gone.
pub fn enter(id: NsId, found: &Found, procfs: &Path) -> io::Result<bool> {
    let by_process = found.pids.iter().map(|pid| procfs.join(pid.to_string()).join("ns/net"));
    let mut denied = None;
    for path in found.mount.iter().cloned().chain(by_process) {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied) => {
                denied = Some(error);
                continue;
            }
            // gone meanwhile: another way may be left
            Err(_) => continue,
        };
        // the pid or the name may belong to another namespace by now
        if file.metadata().is_ok_and(|metadata| metadata.ino() == id.0) {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            return Ok(true);
        }
    }
    denied.map_or(Ok(false), Err)
}

pub(super) fn pids(procfs: &Path) -> impl Iterator<Item = u32> {
    fs::read_dir(procfs).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn bind_mounts(directory: &Path) -> impl Iterator<Item = (PathBuf, NsId)> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        let id = id_of(&path).ok()?;
        Some((path, id))
    })
}

fn on_nsfs(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == NSFS_MAGIC)
}

/// `net:[4026531840]`
pub(super) fn parse_link(link: &Path) -> Option<NsId> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok().map(NsId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_found_through_our_own_process() {
        let (found, _) = find(Path::new("/proc"), &[]);
        assert!(found.contains_key(&own().unwrap()));
    }

    #[test]
    fn a_file_that_is_no_bind_mount_is_no_namespace() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("left-over"), "").unwrap();
        let (found, _) = find(Path::new("/nowhere"), &[directory.path().to_owned()]);
        assert_eq!(found, BTreeMap::new());
        let error = id_of(&directory.path().join("left-over")).unwrap_err();
        assert_eq!(error.to_string(), "it is not a network namespace");
    }
}

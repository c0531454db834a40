//! Finds the owner of a process by its cgroup.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use super::cgroup::{CgroupOwner, owner_of_process};
use super::dir;
use crate::owner::NsId;

/// `/proc/PID/cgroup` has one line per hierarchy. There are at most 16 hierarchies, and a path may have 4096 bytes.
const MAX_CGROUP_FILE: u64 = 64 << 10;

/// A process, by its folder in procfs. Once the process is gone every read fails, even if its pid is used again. The
/// descriptor keeps neither the process nor its namespaces alive.
pub(super) struct Process(OwnedFd);

impl Process {
    pub fn open(procfs: &Path, pid: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, procfs.join(pid.to_string()), flags, Mode::empty())?))
    }

    /// The process with this folder in procfs.
    pub fn at(folder: OwnedFd) -> Self {
        Self(folder)
    }

    /// Whether the process is in this network namespace.
    pub fn is_in(&self, id: NsId) -> io::Result<bool> {
        let link = readlinkat(&self.0, "ns/net", Vec::new())?;
        Ok(link.to_str() == Ok(&format!("net:[{id}]")))
    }

    /// The owner of its cgroup.
    pub fn owner(&self) -> io::Result<CgroupOwner> {
        Ok(owner_of_process(&dir::text(&self.0, "cgroup", MAX_CGROUP_FILE)?))
    }

    pub fn folder(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

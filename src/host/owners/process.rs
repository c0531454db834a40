//! Who a process belongs to, by its cgroup.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use super::cgroup::{Place, place_of_process};
use super::dir;
use crate::owner::NsId;

/// `/proc/PID/cgroup` has a line a hierarchy, of which there are at most 16; a path may have 4096 bytes.
const MAX_CGROUP_FILE: u64 = 64 << 10;

/// The place of process `pid`, if it is alive, readable, and (where `within` is given) in that network namespace.
///
/// All reads go through one descriptor of `/proc/PID`, which stands for this process alone: were the pid given to a
/// successor in between, they would fail.
pub(super) fn place_of(procfs: &Path, pid: u32, within: Option<NsId>) -> Option<Place> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(CWD, procfs.join(pid.to_string()), flags, Mode::empty()).ok()?;
    if let Some(id) = within {
        let link = readlinkat(&process, "ns/net", Vec::new()).ok()?;
        if link.to_str() != Ok(&format!("net:[{id}]")) {
            return None;
        }
    }
    Some(place_of_process(&dir::text(&process, "cgroup", MAX_CGROUP_FILE).ok()?))
}

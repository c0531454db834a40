//! The issues in the search for owners: a closed set, because they become a metric label.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The reason why an owner has an incomplete name. `Display` writes its meaning and advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnerIssue {
    /// Pods run here, but the directory of pod logs cannot be listed.
    PodLogs,
    /// A pod whose uid no source gives a name.
    PodName,
    /// A container of a pod whose id no source gives a name.
    ContainerName,
    /// Two sources have different names for the same pod or container.
    Disagree,
    /// The cgroup tree cannot be walked, or is larger than is read.
    CgroupTree,
    /// The host has no cgroup v2: the owners of socket inodes distinguish containers, where those can be read.
    NoCgroup2,
    /// The kernel is a 32-bit one, whose cgroup ids are not inodes.
    CgroupIds,
    /// `/proc/PID/fd` of some processes cannot be read.
    FdTables,
    /// There are more file descriptors than a sweep may read to find the holders of sockets.
    Unsearched,
    /// The container runtime did not answer on its CRI endpoint.
    Cri,
}

impl OwnerIssue {
    /// The label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PodLogs => "pod_logs",
            Self::PodName => "pod_name",
            Self::ContainerName => "container_name",
            Self::Disagree => "disagree",
            Self::CgroupTree => "cgroup_tree",
            Self::NoCgroup2 => "no_cgroup2",
            Self::CgroupIds => "cgroup_ids",
            Self::FdTables => "fd_tables",
            Self::Unsearched => "unsearched",
            Self::Cri => "cri",
        }
    }
}

impl fmt::Display for OwnerIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodLogs => {
                "pods run here but their log directories cannot be listed, so pods have uids and no names: mount the \
                 host's /var/log read-only and point --pod-logs at it, or give --cri-endpoint"
            }
            Self::PodName => "a pod's uid is in no log directory and not known to the runtime: it is shown by its uid",
            Self::ContainerName => {
                "a container's id is in no log link and not known to the runtime: it is shown without its name"
            }
            Self::Disagree => {
                "two sources name the same pod or container differently: the container runtime's name is used"
            }
            Self::CgroupTree => {
                "the cgroup v2 tree cannot be walked to its end, so some sockets are named by their network namespace \
                 alone: mount the host's /sys/fs/cgroup read-only and point --cgroup-root at it"
            }
            Self::NoCgroup2 => {
                "this host has no cgroup v2: containers of one pod can be distinguished only where /proc/PID/fd of \
                 their processes can be read (host PID namespace, CAP_SYS_PTRACE)"
            }
            Self::CgroupIds => {
                "this kernel is a 32-bit one, whose cgroup ids do not name directories: containers of one pod can be \
                 distinguished only where /proc/PID/fd of their processes can be read"
            }
            Self::FdTables => {
                "the file descriptors of some processes cannot be read, so their sockets are named by their network \
                 namespace alone: reading them takes CAP_SYS_PTRACE, and CAP_DAC_READ_SEARCH where processes have \
                 other users"
            }
            Self::Unsearched => {
                "the processes here have more file descriptors than a sweep may read, so some sockets are named by \
                 their network namespace alone: the agent continues in the next sweep, and an audit of one owner \
                 (--owner, --pod) or of every connection (--all) reads them all"
            }
            Self::Cri => {
                "the container runtime does not answer on --cri-endpoint: names come from the log directories alone"
            }
        })
    }
}

/// The issues since they were last taken. Each kind is also logged once.
#[derive(Debug, Default)]
pub(super) struct Issues {
    counts: BTreeMap<OwnerIssue, u64>,
    logged: BTreeSet<OwnerIssue>,
}

impl Issues {
    pub(super) fn note(&mut self, issue: OwnerIssue) {
        *self.counts.entry(issue).or_default() += 1;
        if self.logged.insert(issue) {
            match issue {
                // ordinary for a moment while a pod starts
                OwnerIssue::PodName | OwnerIssue::ContainerName => tracing::info!("{issue}"),
                _ => tracing::warn!("{issue}"),
            }
        }
    }

    pub(super) fn note_if(&mut self, condition: bool, issue: OwnerIssue) {
        if condition {
            self.note(issue);
        }
    }

    pub(super) fn take(&mut self) -> BTreeMap<OwnerIssue, u64> {
        std::mem::take(&mut self.counts)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_issue_is_counted_every_time_and_logged_once() {
        let written = Log::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let mut issues = Issues::default();
            for _ in 0..3 {
                issues.note(OwnerIssue::NoCgroup2);
                issues.note_if(true, OwnerIssue::PodName);
                issues.note_if(false, OwnerIssue::Cri);
            }
            assert_eq!(issues.take(), [(OwnerIssue::NoCgroup2, 3), (OwnerIssue::PodName, 3)].into());
            assert_eq!(issues.take(), [].into());
            issues.note(OwnerIssue::NoCgroup2);
            assert_eq!(issues.take(), [(OwnerIssue::NoCgroup2, 1)].into());
        });
        let text = String::from_utf8(written.0.lock().expect("one thread").clone()).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("WARN") && lines[0].contains("this host has no cgroup v2"), "{text}");
        assert!(lines[1].contains("INFO") && lines[1].contains("a pod's uid is in no log directory"), "{text}");
    }
}

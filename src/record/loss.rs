//! What could not be read, and why.

use serde::{Deserialize, Serialize};

use crate::owner::NsId;

/// Something that a sweep could not read. If it names a namespace, that existed, so its connections may not have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The namespace, if one was found.
    #[serde(default)]
    pub namespace: Option<NsId>,
    /// The reason, as a label.
    pub reason: LossReason,
    /// A sentence: the action, its object, why it failed and what to do.
    pub detail: String,
    /// Processes or bind mounts could not be listed: there may be namespaces that the sweep did not find.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unlisted: bool,
}

impl Loss {
    /// A loss that hides no namespace.
    #[must_use]
    pub fn new(namespace: Option<NsId>, reason: LossReason, detail: String) -> Self {
        Self { namespace, reason, detail, unlisted: false }
    }
}

/// Why something could not be read. A closed set: it becomes a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The namespace ended after it was found and before it was entered. Nothing was missed.
    Vanished,
    /// A capability is missing, or a security module refuses.
    Permission,
    /// The kernel has no `tcp_diag`.
    NoTcpDiag,
    /// The kernel, or a file system, did not answer in time.
    Timeout,
    /// The dump ended with an error.
    Dump,
    /// No file descriptor was left (`EMFILE`, `ENFILE`).
    TooManyFiles,
    /// The kernel had no memory left (`ENOMEM`, `ENOBUFS`).
    NoMemory,
    /// A device or a file system failed (`EIO` and the like).
    Io,
    /// Something that was configured, or that Linux always has, does not exist.
    Missing,
    /// procfs hides the processes of other users (`hidepid`).
    Hidden,
    /// No thread could be started.
    Thread,
    /// Anything else.
    Other,
}

impl LossReason {
    /// The label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vanished => "vanished",
            Self::Permission => "permission",
            Self::NoTcpDiag => "no_tcp_diag",
            Self::Timeout => "timeout",
            Self::Dump => "dump",
            Self::TooManyFiles => "too_many_files",
            Self::NoMemory => "no_memory",
            Self::Io => "io",
            Self::Missing => "missing",
            Self::Hidden => "hidden",
            Self::Thread => "thread",
            Self::Other => "other",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

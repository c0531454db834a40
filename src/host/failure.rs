//! Explains why something could not be read: turns an error of the system into a reason and into a sentence.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use rustix::io::Errno;

use crate::owner::NsId;
use crate::record::{Consumer, Loss, LossReason, Record};
use crate::words;

/// The reason behind an error.
pub(super) fn reason(error: &io::Error) -> LossReason {
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => LossReason::Permission,
        Some(Errno::MFILE | Errno::NFILE) => LossReason::TooManyFiles,
        Some(Errno::NOMEM | Errno::NOBUFS) => LossReason::NoMemory,
        Some(Errno::IO | Errno::STALE | Errno::NXIO | Errno::HOSTDOWN | Errno::NOTCONN | Errno::CONNABORTED) => {
            LossReason::Io
        }
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => LossReason::Missing,
        Some(Errno::TIMEDOUT) => LossReason::Timeout,
        Some(_) => LossReason::Other,
        None => match error.kind() {
            io::ErrorKind::TimedOut => LossReason::Timeout,
            io::ErrorKind::PermissionDenied => LossReason::Permission,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LossReason::Missing,
            _ => LossReason::Other,
        },
    }
}

/// Whether what was opened or read has ended meanwhile: a process, a bind mount, a directory.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH | Errno::NODEV))
}

/// The advice for a reason, as the end of a sentence.
fn advice(reason: LossReason) -> &'static str {
    match reason {
        LossReason::TooManyFiles => ". Raise the limit of open files (ulimit -n, LimitNOFILE=, fs.file-max)",
        LossReason::NoMemory => ". The node or this control group is out of memory",
        LossReason::Thread => ". Raise the limit of threads (ulimit -u, TasksMax=, pids.max)",
        _ => "",
    }
}

/// `cannot ACTION WHAT: ERROR. ADVICE`
pub(super) fn sentence(action: &str, what: impl Display, error: &io::Error) -> String {
    format!("cannot {action} {what}: {}{}", words::reason(error), advice(reason(error)))
}

/// A loss without a known namespace.
pub(super) fn loss(action: &str, what: impl Display, error: &io::Error) -> Loss {
    Loss::new(None, reason(error), sentence(action, what, error))
}

/// A sweep that could not start.
pub(super) fn no_thread(error: &io::Error) -> Loss {
    let reason = LossReason::Thread;
    let detail = format!("cannot start the sweep's thread: {}{}", words::reason(error), advice(reason));
    Loss { unlisted: true, ..Loss::new(None, reason, detail) }
}

/// The namespaces that a sweep could not read. All with the same reason are reported in one sentence.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<(LossReason, &'static str), Vec<(NsId, String)>>);

impl Unread {
    /// Adds a namespace. `action` is the action that failed, and `detail` the rest of the sentence.
    pub fn add(&mut self, id: NsId, reason: LossReason, action: &'static str, detail: String) {
        self.0.entry((reason, action)).or_default().push((id, detail));
    }

    /// Reports every namespace. The first one of each reason has the sentence.
    pub fn report<C: Consumer>(self, to: &mut C) -> Result<(), C::Error> {
        for ((reason, action), namespaces) in self.0 {
            let others = match namespaces.len() - 1 {
                0 => String::new(),
                1 => " (and 1 other)".to_owned(),
                others => format!(" (and {others} others)"),
            };
            for (at, (id, detail)) in namespaces.into_iter().enumerate() {
                let detail = if at == 0 {
                    format!("cannot {action} network namespace {detail}{}{others}", advice(reason))
                } else {
                    String::new()
                };
                to.consume(&Record::Loss(Loss::new(Some(id), reason, detail)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_reason_that_is_true() {
        for (errno, expected) in [
            (Errno::MFILE, LossReason::TooManyFiles),
            (Errno::NFILE, LossReason::TooManyFiles),
            (Errno::NOMEM, LossReason::NoMemory),
            (Errno::IO, LossReason::Io),
            (Errno::STALE, LossReason::Io),
            (Errno::ACCESS, LossReason::Permission),
            (Errno::PERM, LossReason::Permission),
            (Errno::NOENT, LossReason::Missing),
            (Errno::INVAL, LossReason::Other),
        ] {
            assert_eq!(reason(&errno.into()), expected, "{errno}");
        }
        assert_eq!(reason(&io::Error::new(io::ErrorKind::TimedOut, "late")), LossReason::Timeout);
    }
}

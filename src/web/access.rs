//! The rules of `--web.config.file` that are in force: who may ask, and by which certificate they are answered.
//!
//! A thread of its own checks the files when a connection or request comes, and reads them again after a change:
//! certificates are renewed while the program runs. A file system that hangs, or a change that makes no sense, leaves
//! the rules as they are.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use super::web_config::Rules;
use crate::small_file::{self, Stamp};
use crate::words;

/// How long a request waits for the check.
const WAIT: Duration = Duration::from_millis(100);

/// The file, and what it said when it last made sense.
pub struct Access {
    path: PathBuf,
    rules: Arc<Mutex<Arc<Rules>>>,
    is_current: Arc<AtomicBool>,
    /// Their file system does not answer.
    hangs: Arc<AtomicBool>,
    checks: Option<Checks>,
}

/// Whether the files say what is in force.
#[derive(Clone, Debug)]
pub struct Currency {
    is_current: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
}

impl Currency {
    /// False while a change is refused, and while the file system does not answer.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed) && !self.hangs.load(Ordering::Relaxed)
    }
}

/// The conversation with the thread that checks the files.
struct Checks {
    wanted: mpsc::SyncSender<()>,
    /// The number of the next check.
    next: Arc<AtomicU64>,
    /// The number of the last check that ended.
    done: watch::Receiver<u64>,
    hangs: Arc<AtomicBool>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({})", self.path.display())
    }
}

impl Access {
    /// Reads the file, certificates and key. The error names file, line and key.
    pub fn load(path: &Path) -> Result<Self, String> {
        let file = path.to_owned();
        let rules = small_file::aside(move || Rules::read(&file)).unwrap_or_else(|error| {
            Err(format!("cannot read the web configuration file {}: {}", path.display(), words::reason(&error)))
        })?;
        let rules = Arc::new(Mutex::new(Arc::new(rules)));
        let is_current = Arc::new(AtomicBool::new(true));
        Ok(Self { path: path.to_owned(), rules, is_current, hangs: Arc::default(), checks: None })
    }

    /// Starts the thread that reads the files again. It has the capabilities of the caller.
    pub fn follow_changes(&mut self) -> io::Result<()> {
        let (wanted, requests) = mpsc::sync_channel(1);
        let (ended, done) = watch::channel(0);
        let next = Arc::new(AtomicU64::new(1));
        let mut reader = Reader {
            path: self.path.clone(),
            rules: self.rules.clone(),
            is_current: self.is_current.clone(),
            refused: None,
        };
        let number = next.clone();
        std::thread::Builder::new().name("web-config".to_owned()).spawn(move || {
            for () in requests {
                // requests that come from now on want the next check
                let check = number.fetch_add(1, Ordering::SeqCst);
                reader.check();
                ended.send_replace(check);
            }
        })?;
        self.checks = Some(Checks { wanted, next, done, hangs: self.hangs.clone() });
        Ok(())
    }

    /// Whether the file says what is in force.
    #[must_use]
    pub fn currency(&self) -> Currency {
        Currency { is_current: self.is_current.clone(), hangs: self.hangs.clone() }
    }

    /// The rules in force. After a change that makes no sense they are those before it.
    pub(super) async fn current(&self) -> Arc<Rules> {
        if let Some(checks) = &self.checks {
            checks.wait().await;
        }
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Checks {
    /// Waits for a check that begins after this call, but not for a file system that hangs.
    async fn wait(&self) {
        let mut done = self.done.clone();
        let number = self.next.load(Ordering::SeqCst);
        // full: the check that it asks for has not begun
        let _ = self.wanted.try_send(());
        if self.hangs.load(Ordering::Relaxed) && *done.borrow() + 1 < number {
            return;
        }
        let in_time = tokio::time::timeout(WAIT, done.wait_for(|&done| done >= number)).await.is_ok();
        if self.hangs.swap(!in_time, Ordering::Relaxed) == in_time {
            if in_time {
                tracing::info!("the file system of the web configuration answers again");
            } else {
                tracing::warn!("the file system of the web configuration does not answer; the rules stay as they are");
            }
        }
    }
}

/// Reads the files again when they have changed.
struct Reader {
    path: PathBuf,
    rules: Arc<Mutex<Arc<Rules>>>,
    is_current: Arc<AtomicBool>,
    /// A change that made no sense, reported once.
    refused: Option<Vec<(PathBuf, Option<Stamp>)>>,
}

impl Reader {
    fn check(&mut self) {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now: Vec<_> = rules.files.iter().map(|(path, _)| (path.clone(), small_file::stamp(path))).collect();
        if now == rules.files {
            // the file is as it was before a change that made no sense
            if self.refused.take().is_some() {
                self.is_current.store(true, Ordering::Relaxed);
            }
            return;
        }
        if self.refused.as_ref() == Some(&now) {
            return;
        }
        let read = Rules::read(&self.path).and_then(|new| match new.opens(&rules) {
            Some(key) => Err(format!(
                "{}: the key {key} is gone: that would open the port. Restart the agent if it is meant so",
                self.path.display()
            )),
            None => Ok(new),
        });
        self.is_current.store(read.is_ok(), Ordering::Relaxed);
        match read {
            Ok(new) => {
                tracing::info!(file = %self.path.display(), "read the web configuration again");
                *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                self.refused = None;
            }
            Err(error) => {
                tracing::error!("{error}; the rules before the change stay in force");
                self.refused = Some(now);
            }
        }
    }
}

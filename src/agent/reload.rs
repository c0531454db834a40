//! Reads the configuration again on SIGHUP and when its file has changed. It has its own thread, so a file that blocks
//! does not stop anything else.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::published::Published;
use super::sweeps::Order;
use crate::config::{AgentConfig, AgentSource};
use crate::small_file::{Stamp, stamp};

/// The interval at which the file is checked.
const CHECK: Duration = Duration::from_secs(5);

/// A file system that does not answer for longer hangs.
const DEADLINE: Duration = Duration::from_secs(15);

/// The thread that reads the configuration.
pub(super) struct Reload {
    ask: SyncSender<()>,
    check: Arc<Mutex<Check>>,
    published: Arc<Published>,
}

/// The check of the file that is under way.
#[derive(Default)]
struct Check {
    begun: Option<Instant>,
    /// It hangs, and that is reported.
    hangs: bool,
}

impl Reload {
    /// Starts the thread. It sends each valid configuration to `orders`.
    pub fn start(
        source: AgentSource,
        config: &AgentConfig,
        orders: Arc<Sender<Order>>,
        published: Arc<Published>,
    ) -> Result<Self> {
        let (ask, asked) = sync_channel(1);
        let path = source.path().map(PathBuf::from);
        let check = Arc::<Mutex<Check>>::default();
        let mut reader = Reader {
            read: path.as_deref().and_then(stamp),
            path,
            fixed: Fixed::of(config),
            source,
            orders,
            published: published.clone(),
            is_current: true,
            check: check.clone(),
        };
        thread::Builder::new()
            .name("config".to_owned())
            .spawn(move || reader.run(&asked))
            .context("cannot start the thread that reads the configuration")?;
        Ok(Self { ask, check, published })
    }

    /// Reports a file system that does not answer, once.
    pub fn warn_of_hang(&self) {
        let mut check = lock(&self.check);
        if check.begun.is_some_and(|begun| begun.elapsed() > DEADLINE) && !check.hangs {
            check.hangs = true;
            self.published.set_config_is_current(false);
            tracing::warn!("the file system of the configuration does not answer; the configuration stays as it is");
        }
    }

    /// Reads it now.
    pub fn now(&self) {
        // full: an earlier request has not begun, or the thread waits for a file system and will read the current file
        if self.ask.try_send(()).is_err() {
            tracing::warn!("SIGHUP: the configuration is still being read");
        }
    }
}

struct Reader {
    source: AgentSource,
    path: Option<PathBuf>,
    /// The file when it was last read.
    read: Option<Stamp>,
    fixed: Fixed,
    orders: Arc<Sender<Order>>,
    published: Arc<Published>,
    /// Whether the configuration in force is that of the file when it was last read.
    is_current: bool,
    check: Arc<Mutex<Check>>,
}

fn lock(check: &Mutex<Check>) -> MutexGuard<'_, Check> {
    check.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    fn run(&mut self, asked: &Receiver<()>) {
        loop {
            let asked = match asked.recv_timeout(CHECK) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            lock(&self.check).begun = Some(Instant::now());
            let now = self.path.as_deref().and_then(stamp);
            if asked || now != self.read {
                self.read = now;
                self.reload(if asked { "SIGHUP" } else { "the file has changed" });
            }
            let hung = std::mem::take(&mut *lock(&self.check)).hangs;
            if hung {
                tracing::info!("the file system of the configuration answers again");
            }
            self.published.set_config_is_current(self.is_current);
        }
    }

    fn reload(&mut self, reason: &str) {
        let config = self.source.load_again();
        self.is_current = config.is_ok();
        match config {
            Ok(config) => {
                for flag in self.fixed.changed(&config) {
                    tracing::warn!("the configuration changes {flag}: that takes effect with a restart");
                }
                tracing::info!("{reason}: read the configuration again");
                // the sweeps have ended with the program
                let _ = self.orders.send(Order::Configure(Box::new(config)));
            }
            Err(error) => tracing::error!("{reason}: {error}; the configuration before the change stays in force"),
        }
    }
}

/// Settings that are fixed while the agent runs.
struct Fixed([(&'static str, String); 4]);

impl Fixed {
    fn of(config: &AgentConfig) -> Self {
        Self([
            ("--web.listen-address", config.listen_address.to_string()),
            ("--web.config.file", format!("{:?}", config.web_config)),
            ("--log.level", format!("{:?}", config.config.log_level)),
            ("--log.format", format!("{:?}", config.config.log_format)),
        ])
    }

    /// Those that `config` would change.
    fn changed(&self, config: &AgentConfig) -> Vec<&'static str> {
        let new = Self::of(config);
        self.0.iter().zip(&new.0).filter(|(old, new)| old != new).map(|(old, _)| old.0).collect()
    }
}

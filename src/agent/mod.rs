//! `agent`: sweeps at an interval, serves the last result, and reacts to signals and changed files.
//!
//! Three threads do the work: one sweeps, one answers requests and holds no capabilities, and one reads the changed
//! configuration. The first thread only waits for signals, so the agent can always end, even if another thread blocks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc as channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::{AgentConfig, AgentSource, UsageError};
use crate::host::own_process::{self, ServiceManager};
use crate::host::{privileges, seccomp};
use crate::web::{self, Access};

mod answers;
mod changes;
mod published;
mod reload;
mod sweeps;
mod wanted;

use published::Published;
use reload::Reload;
use sweeps::Sweeps;

/// The time that requests and the current sweep may still take after a signal. The agent ends within 2 s.
const GRACE: Duration = Duration::from_secs(1);
/// The limit of connections of the port. It is lower if there are few descriptors, because half of them are for sweeps.
/// One connection takes about 15 KB.
const MAX_CONNECTIONS: u64 = 4096;
/// Threads that make pages and check passwords.
const MAX_BLOCKING: usize = 6;
/// They stay: while one is there, work waits for it where no other can be started.
const KEEP_THREADS: Duration = Duration::from_secs(u32::MAX as u64);
/// The interval at which the current sweep is checked.
const CHECK: Duration = Duration::from_secs(5);

/// Runs until SIGTERM, SIGINT or SIGQUIT.
pub fn run(source: AgentSource, config: AgentConfig) -> Result<()> {
    let mut access = config.web_config.as_deref().map(Access::load).transpose().map_err(UsageError::new)?;
    let descriptors = own_process::raise_descriptor_limit();
    let listener = own_process::listen(config.listen_address)
        .with_context(|| format!("cannot listen on {} (--web.listen-address)", config.listen_address))?;
    let held = privileges::reduce().context("cannot drop capabilities")?;
    let names: Vec<_> = held.iter().flatten().copied().collect();
    if let Err(error) = seccomp::refuse_calls() {
        tracing::warn!(%error, "this kernel cannot refuse system calls that the agent does not need (seccomp)");
    }
    tracing::info!("holds {}", if names.is_empty() { "no capability".to_owned() } else { names.join(", ") });
    if let Some(access) = &mut access {
        access.follow_changes().context("cannot start the thread that reads the web configuration")?;
    }
    tracing::info!(address = %listener.local_addr()?, interval = ?config.interval, "serving");
    let limits = web::Limits::new(usize::try_from((descriptors / 2).min(MAX_CONNECTIONS)).unwrap_or(1));
    let published = Arc::new(Published::new(&config, limits.clone(), access.as_ref().map(Access::currency), held));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let _context = runtime.enter();
    let signals = Signals::new().context("cannot wait for signals")?;

    let (ended, endings) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let (orders, received) = channel::channel();
    let orders = Arc::new(orders);
    published.order_by(&orders);
    let site = published.clone();
    start("web", &ended, move || serve(listener, site, access, limits, stopped))?;
    let reload = Reload::start(source, &config, orders, published.clone())?;
    let mut sweeps = Sweeps::new(config, published.clone());
    start("sweeps", &ended, move || {
        sweeps.run(&received);
        Err(anyhow!("nobody gives orders any more"))
    })?;

    let agent = Agent { published, reload, manager: ServiceManager::from_environment() };
    let ending = runtime.block_on(agent.supervise(signals, endings, stop));
    // the process ends without the threads that block
    runtime.shutdown_background();
    ending
}

/// The end of a thread, with its name.
type Ending = (&'static str, Result<()>);

/// Starts a thread and reports its end, also one by a panic.
fn start(
    name: &'static str,
    ended: &mpsc::UnboundedSender<Ending>,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let ended = ended.clone();
    let guarded = move || {
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!("it panicked")));
        // there is no receiver when the program ends
        let _ = ended.send((name, result));
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .with_context(|| format!("cannot start the thread `{name}`"))?;
    Ok(())
}

/// Answers requests until `stop`.
fn serve(
    listener: std::net::TcpListener,
    site: Arc<Published>,
    access: Option<Access>,
    limits: web::Limits,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    privileges::drop_for_this_thread().context("cannot drop capabilities")?;
    // one thread waits for all clients; other threads make pages and inherit its lack of capabilities
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING)
        .thread_keep_alive(KEEP_THREADS)
        .thread_name("pages")
        .build()
        .context("cannot start the web server's runtime")?;
    drop(runtime.spawn_blocking(|| {}));
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot serve")?;
        let stop = async move {
            // the sender is gone: the agent has ended
            let _ = stop.wait_for(|stop| *stop).await;
        };
        web::serve(listener, site, access, limits, stop).await;
        Ok(())
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    /// Signals that the agent does not use. Without a handler they would end the process.
    others: [(&'static str, Signal); 3],
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let others = [
            ("SIGUSR1", SignalKind::user_defined1()),
            ("SIGUSR2", SignalKind::user_defined2()),
            ("SIGALRM", SignalKind::alarm()),
        ];
        let [first, second, third] = others.map(|(name, kind)| signal(kind).map(|signal| (name, signal)));
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            others: [first?, second?, third?],
        })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        let [first, second, third] = &mut self.others;
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
            _ = self.hangup.recv() => "SIGHUP",
            _ = first.1.recv() => first.0,
            _ = second.1.recv() => second.0,
            _ = third.1.recv() => third.0,
        }
    }
}

/// The running agent, seen by its first thread.
struct Agent {
    published: Arc<Published>,
    reload: Reload,
    manager: Option<ServiceManager>,
}

impl Agent {
    /// Waits for signals and for the end of a thread.
    async fn supervise(
        &self,
        mut signals: Signals,
        mut endings: mpsc::UnboundedReceiver<Ending>,
        stop: watch::Sender<bool>,
    ) -> Result<()> {
        self.notify("READY=1");
        let watchdog = self.manager.as_ref().and_then(|manager| manager.watchdog);
        // systemd recommends two messages in each watchdog interval
        let mut checks = interval(watchdog.map_or(CHECK, |every| (every / 3).clamp(Duration::from_millis(10), CHECK)));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopped_by = loop {
            tokio::select! {
                name = signals.next() => match name {
                    "SIGTERM" | "SIGINT" | "SIGQUIT" => break name,
                    "SIGHUP" => self.reload.now(),
                    other => tracing::info!("{other} has no meaning here; it is ignored"),
                },
                _ = checks.tick() => {
                    self.published.warn_of_long_sweep();
                    self.reload.warn_of_hang();
                    if self.published.is_healthy() {
                        self.notify("WATCHDOG=1");
                    }
                }
                Some((name, result)) = endings.recv() => {
                    let error = result.err().unwrap_or_else(|| anyhow!("it ended"));
                    return Err(error.context(format!("the thread `{name}` failed")));
                }
            }
        };
        tracing::info!("{stopped_by}: stopping");
        self.notify("STOPPING=1");
        stop.send_replace(true);
        // running answers may finish, but the agent does not wait for an answer that nobody reads
        let _ = timeout(GRACE, async { while endings.recv().await.is_some_and(|(name, _)| name != "web") {} }).await;
        tracing::info!("stopped");
        Ok(())
    }

    fn notify(&self, message: &str) {
        if let Some(manager) = &self.manager {
            manager.notify(message);
        }
    }
}

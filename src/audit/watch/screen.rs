//! The screen of `--watch`: keys, signals and sweeps come in, the model is drawn.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::super::{Sweeper, finish, print};
use super::terminal::{self, Screen};
use super::worker::{self, News};
use crate::cli;
use crate::digest::Digest;
use crate::logging::print_error;
use crate::show::watch::{Clock, Model, Next, Settings};

/// The seconds on the screen go on between sweeps.
const TICK: Duration = Duration::from_secs(1);

/// The time to restore the terminal after a signal.
const GRACE: Duration = Duration::from_secs(2);

/// What happens.
pub enum Message {
    /// The user typed, or the size has changed.
    Input(io::Result<Event>),
    /// A signal came.
    Signal(i32),
    /// The worker says something.
    News(News),
}

/// Watches until the user, a signal, `--fail-on` or an error ends it.
pub fn run(sweeper: Sweeper, digest: Digest, pause: Duration) -> Result<bool> {
    let args = sweeper.args.clone();
    let (sender, messages) = channel();
    let (stop, stopped) = channel();
    let mut signals =
        Signals::new([SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP]).context("cannot wait for signals")?;
    let color = print::has_color();
    let settings = Settings { interval: pause, color, all: args.all, sort: print::sort(&args), parse: cli::filter };
    let screen = Screen::open(color).context("cannot use the terminal")?;
    let to = sender.clone();
    start("signals", move || pass_on_signals(&mut signals, &to))?;
    let to = sender.clone();
    start("keys", move || read_keys(&to))?;
    start("sweeps", move || worker::sweep(sweeper, digest, pause, &sender, &stopped))?;
    let mut watch = Watch { screen, model: Model::new(settings), swept: None, begun: None };
    let end = watch.until_end(&messages);
    let is_sweeping = watch.begun.is_some();
    // the terminal is restored before anything else is written
    drop(watch);
    match end? {
        End::Quit => {
            drop(stop);
            if args.record.is_some() && is_sweeping {
                finish_recording(&messages)?;
            }
            Ok(false)
        }
        End::Signal(signal) => die_of(signal),
        End::News(Ok(result)) => finish(&args, *result, None),
        End::News(Err(error)) => Err(error),
    }
}

/// How the watch ends.
enum End {
    Quit,
    Signal(i32),
    News(Result<Box<super::super::AuditResult>>),
}

struct Watch {
    screen: Screen,
    model: Model,
    /// When the last sweep ended.
    swept: Option<Instant>,
    /// When the sweep under way began.
    begun: Option<Instant>,
}

impl Watch {
    fn until_end(&mut self, messages: &Receiver<Message>) -> Result<End> {
        loop {
            let clock = Clock {
                since_sweep: self.swept.map(|at| at.elapsed()).unwrap_or_default(),
                sweeping: self.begun.map(|at| at.elapsed()),
            };
            let Self { screen, model, .. } = self;
            screen.draw(|frame| model.draw(frame, clock)).context("cannot draw")?;
            let mut next = match messages.recv_timeout(TICK) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => bail!("the threads of the watch have ended"),
            };
            // many keys are drawn once
            while let Some(message) = next {
                if let Some(end) = self.take(message)? {
                    return Ok(end);
                }
                next = messages.try_recv().ok();
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<End>> {
        match message {
            Message::News(News::Begun) => self.begun = Some(Instant::now()),
            Message::News(News::Swept(sweep)) => {
                (self.swept, self.begun) = (Some(Instant::now()), None);
                self.model.update(*sweep);
            }
            Message::News(News::Ended(result)) => return Ok(Some(End::News(result))),
            Message::Signal(SIGTSTP) => self.suspend()?,
            Message::Signal(SIGCONT) => self.screen.reopen().context("cannot use the terminal")?,
            Message::Signal(signal) => return Ok(Some(End::Signal(signal))),
            Message::Input(event) => match event.context("cannot read keys")? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match self.model.key(key) {
                    Next::Continue => {}
                    Next::Quit => return Ok(Some(End::Quit)),
                    Next::Suspend => self.suspend()?,
                },
                _ => {}
            },
        }
        Ok(None)
    }

    /// Stops until the shell continues the program.
    fn suspend(&mut self) -> Result<()> {
        self.screen.give_back();
        emulate_default_handler(SIGTSTP).context("cannot stop")?;
        self.screen.reopen().context("cannot use the terminal")
    }
}

/// Runs `work` on a thread that ends with the program.
fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).context("cannot start a thread")?;
    Ok(())
}

fn pass_on_signals(signals: &mut Signals, to: &Sender<Message>) {
    for signal in signals.forever() {
        if to.send(Message::Signal(signal)).is_err() {
            return;
        }
        if !matches!(signal, SIGCONT | SIGTSTP) {
            // a terminal that takes no output must not keep the program alive
            thread::sleep(GRACE);
            terminal::abandon();
            let _ = emulate_default_handler(signal);
        }
    }
}

fn read_keys(to: &Sender<Message>) {
    loop {
        let event = event::read();
        let is_last = event.is_err();
        if to.send(Message::Input(event)).is_err() || is_last {
            return;
        }
    }
}

/// A recording ends with a whole sweep.
fn finish_recording(messages: &Receiver<Message>) -> Result<()> {
    print_error("the recording is complete when the sweep that is under way ends");
    for message in messages {
        match message {
            Message::News(News::Ended(Err(error))) => return Err(error),
            Message::News(News::Swept(_) | News::Ended(Ok(_))) => break,
            Message::Signal(signal) if signal != SIGCONT => return die_of(signal).map(drop),
            _ => {}
        }
    }
    Ok(())
}

/// Ends as the signal ends any program, so that the caller sees it.
fn die_of(signal: i32) -> Result<bool> {
    emulate_default_handler(signal).context("cannot end")?;
    Ok(false)
}

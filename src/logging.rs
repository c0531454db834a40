//! Logs to stderr. The agent never waits for the reader of its logs, and no command fails if there is no reader.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::words;

/// The number of lines that may wait to be written. Further lines are dropped and counted.
const QUEUE: usize = 1024;
/// The time for which the program waits for them when it ends.
const FLUSH: Duration = Duration::from_millis(200);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUED: OnceLock<SyncSender<Message>> = OnceLock::new();

/// Lines that could not be written so far.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The reader of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A person who ran a command: lines without a date, and the command waits for its terminal.
    Person,
    /// A log collector: lines with a date, written by a separate thread.
    Collector,
}

/// The format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. The error names the flag. The thread that writes for a collector begins with `before_writing`.
pub fn start(
    level: &str,
    style: Style,
    reader: Reader,
    before_writing: impl FnOnce() + Send + 'static,
) -> Result<(), String> {
    // EnvFilter treats a bare word that is not a level as a module's name, and would log nothing
    let bare = !level.contains('=');
    let known = !bare || level.parse::<LevelFilter>().is_ok();
    let filter = EnvFilter::try_new(level).ok().filter(|_| known).ok_or_else(|| {
        let suggestion = words::suggest(level, ["error", "warn", "info", "debug", "trace", "off"]);
        format!("--log.level: `{level}` is neither a level nor a tracing filter{suggestion}")
    })?;
    let writer = match reader {
        Reader::Person => BoxMakeWriter::new(|| Stderr),
        Reader::Collector => {
            let queue = queue(before_writing).map_err(|error| format!("cannot start logging: {error}"))?;
            BoxMakeWriter::new(queue)
        }
    };
    // its own report of a failed write goes to stderr too, and panics when that fails
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let logs = logs.with_target(false).with_ansi(AutoStream::choice(&io::stderr()) != ColorChoice::Never);
    match (style, reader) {
        (Style::Json, _) => logs.json().init(),
        (Style::Text, Reader::Collector) => logs.init(),
        (Style::Text, Reader::Person) => logs.without_time().init(),
    }
    Ok(())
}

/// Writes the queued lines, within a time limit.
pub fn finish() {
    let Some(queue) = QUEUED.get() else { return };
    let (done, written) = sync_channel(1);
    if queue.try_send(Message::Flush(done)).is_ok() {
        // do not wait for a reader that has stopped reading
        let _ = written.recv_timeout(FLUSH);
    }
}

/// Writes one line to stderr as logs are written. A failure cannot be reported to anybody.
pub fn print_error(line: &str) {
    let line = format!("{line}\n");
    let _ = match QUEUED.get() {
        Some(queue) => Queue(queue.clone()).write_all(line.as_bytes()),
        None => Stderr.write_all(line.as_bytes()),
    };
}

/// The lines that wait while a screen covers the terminal; `None`: they are written at once.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);
/// At most so many bytes wait.
const MAX_HELD: usize = 64 * 1024;

/// While this value lives, lines for a terminal wait. Then they are written.
pub struct Held(());

/// Holds lines back that would be written across a screen.
#[must_use]
pub fn hold() -> Held {
    if io::stderr().is_terminal() {
        *held() = Some(Vec::new());
    }
    Held(())
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(lines) = held().take() {
            // there is nowhere to report this error
            let _ = io::stderr().write_all(&lines);
        }
    }
}

fn held() -> MutexGuard<'static, Option<Vec<u8>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// stderr, unless a screen covers it.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *held() {
            Some(lines) if lines.len() + line.len() > MAX_HELD => drop(DROPPED.fetch_add(1, Ordering::Relaxed)),
            Some(lines) => lines.extend_from_slice(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts the thread that writes.
fn queue(before_writing: impl FnOnce() + Send + 'static) -> io::Result<Queue> {
    let (sender, lines) = sync_channel(QUEUE);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        before_writing();
        write_to(&mut io::stderr(), &lines);
    })?;
    Ok(Queue(QUEUED.get_or_init(|| sender).clone()))
}

fn write_to(out: &mut impl Write, messages: &Receiver<Message>) {
    for message in messages {
        match message {
            Message::Line(line) => {
                if out.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => {
                // nobody waits any more
                let _ = done.try_send(());
            }
        }
    }
}

/// Takes lines without waiting.
#[derive(Clone)]
struct Queue(SyncSender<Message>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_owned())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_block_nothing() {
        let (sender, lines) = sync_channel(QUEUE);
        let mut queue = Queue(sender);
        let before = dropped_lines();
        for number in 0..2 * QUEUE {
            queue.write_all(number.to_string().as_bytes()).unwrap();
        }
        assert_eq!(dropped_lines() - before, QUEUE as u64, "the queue is full");
        drop(queue);
        write_to(&mut Full, &lines);
        assert_eq!(dropped_lines() - before, 2 * QUEUE as u64, "and the disk");
    }
}

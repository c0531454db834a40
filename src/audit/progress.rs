//! How far `--for` has come, on stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::logging;
use crate::show::units::Human;

/// A log gets a line at most this often.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Says how long a watch has lasted: in one line that changes on a terminal, else in a line now and then.
pub struct Progress {
    span: Duration,
    is_terminal: bool,
    next: Duration,
    /// Logs wait, so that none is written across the line.
    held: Option<logging::Held>,
}

impl Progress {
    /// Of a watch of this length; zero: there is none.
    pub fn new(span: Duration) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let held = (is_terminal && !span.is_zero()).then(logging::hold);
        Self { span, is_terminal, next: Duration::ZERO, held }
    }

    /// Says how long it has lasted.
    pub fn show(&mut self, elapsed: Duration) {
        let line = line(elapsed, self.span);
        if self.is_terminal {
            write(&format!("\r{line}\x1b[K"));
        } else if elapsed >= self.next {
            write(&format!("{line}\n"));
            self.next = elapsed + BETWEEN_LINES.max(self.span / 10);
        }
    }

    /// Leaves nothing on a terminal but the logs that waited.
    pub fn finish(&mut self) {
        if let Some(held) = self.held.take() {
            write("\r\x1b[K");
            drop(held);
        }
    }
}

/// `watching: 12s of 1m`
fn line(elapsed: Duration, span: Duration) -> String {
    let whole = Duration::from_secs(elapsed.as_secs());
    format!("watching: {} of {}", Human::from(whole), Human::from(span))
}

fn write(text: &str) {
    // without a reader there is nobody to show it to
    let _ = io::stderr().write_all(text.as_bytes());
}

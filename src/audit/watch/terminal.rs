//! The terminal while the watch has it: another screen, keys one by one. Whatever ends the watch, it gets its own state
//! back: every path here ends in `restore`.

use std::io::{self, Stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

use crate::logging::{self, Held};

/// Whether the terminal is ours.
static IS_OURS: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal, until this value is dropped.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    _guards: Guards,
}

/// Dropped in this order: the log must not be written to the screen that goes away.
struct Guards {
    _restored: Restored,
    _log: Held,
}

struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        restore();
    }
}

impl Screen {
    /// Takes the terminal.
    pub fn open(color: bool) -> io::Result<Self> {
        force_color_output(color);
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // a panic of any thread must be readable
                restore();
                before(info);
            }));
        });
        let guards = Guards { _restored: Restored, _log: logging::hold() };
        take()?;
        Ok(Self { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?, _guards: guards })
    }

    /// Takes the terminal again after the program was stopped.
    pub fn reopen(&mut self) -> io::Result<()> {
        take()?;
        // what is on the screen now is not known: everything is drawn again
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
    }

    /// Gives the terminal back for a while.
    pub fn give_back(&self) {
        restore();
    }

    /// Draws, if the terminal is still ours.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if !IS_OURS.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.terminal.draw(draw).map(drop)
    }
}

fn take() -> io::Result<()> {
    // first, so that what fails halfway is undone
    IS_OURS.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))
}

/// Undoes [`take`], once. A terminal that is gone needs nothing.
fn restore() {
    if IS_OURS.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// The part of `restore` that needs no output.
pub fn abandon() {
    let _ = disable_raw_mode();
}

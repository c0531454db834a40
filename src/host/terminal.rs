//! The terminal at stdout: its size, and whether a program can draw on it.

use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;

/// Columns and rows; `None` where stdout is not a terminal, or does not know its size.
#[must_use]
pub fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// Whether stdout is a terminal that moves its cursor where a program says.
#[must_use]
pub fn can_draw() -> bool {
    let kind = std::env::var_os("TERM").unwrap_or_default();
    io::stdout().is_terminal() && !kind.is_empty() && kind != "dumb"
}

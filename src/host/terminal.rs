//! The terminal at stdout: its size.

use std::io;

use rustix::termios::tcgetwinsize;

/// Columns and rows; `None` where stdout is not a terminal, or does not know its size.
#[must_use]
pub fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

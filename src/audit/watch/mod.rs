//! `--watch`: a screen for a person at a terminal, else a block of text for each sweep.

mod screen;
pub mod terminal;
mod worker;

use std::io::{self, BufWriter, Write as _};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::{Sweeper, ends, finish, is_read, print, warn};
use crate::cli::Format;
use crate::digest::Digest;
use crate::host::terminal::can_draw;

/// Watches until the user, `--fail-on`, an error or the reader of stdout ends it.
pub(super) fn run(sweeper: Sweeper, digest: Digest, pause: Duration) -> Result<bool> {
    if print::format(&sweeper.args) == Format::Groups && can_draw() {
        screen::run(sweeper, digest, pause)
    } else {
        blocks(sweeper, digest, pause)
    }
}

/// One block for each sweep.
fn blocks(mut sweeper: Sweeper, mut digest: Digest, pause: Duration) -> Result<bool> {
    let is_text = !matches!(print::format(&sweeper.args), Format::Json | Format::Jsonl);
    loop {
        let mut result = sweeper.sweep(digest)?;
        warn(&result.report);
        let args = &sweeper.args;
        if ends(args, &result.report) {
            return finish(args, result, None);
        }
        let mut out = BufWriter::new(io::stdout().lock());
        let mut written = print::print(&mut out, args, &mut result);
        if is_text {
            written = written.and_then(|()| writeln!(out));
        }
        if !is_read(written.and_then(|()| out.flush()))? {
            return Ok(false);
        }
        drop(out);
        digest = result.digest;
        sleep(pause);
    }
}

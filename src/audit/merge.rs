//! `merge`: reports that audits wrote on several nodes, printed as one table.

use std::fs::File;
use std::io::{BufReader, Write, stdin, stdout};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cli::MergeArgs;
use crate::show::merge::Merged;

/// Runs the command.
pub fn run(args: &MergeArgs) -> Result<()> {
    let mut merged = Merged::default();
    for path in &args.files {
        let failed = || format!("cannot merge {}", path.display());
        let reports = if path == Path::new("-") {
            merged.read(stdin().lock())
        } else {
            merged.read(BufReader::new(File::open(path).with_context(failed)?))
        };
        if reports.with_context(failed)? == 0 {
            bail!("{}: the file has no report; write one with `audit --format json`", failed());
        }
    }
    match stdout().write_all(merged.table(args.explain).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

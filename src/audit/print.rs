//! What `audit` writes to stdout, in the form that was asked for.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, Result};

use super::{AuditResult, recording};
use crate::cli::{AuditArgs, Format, SortArg};
use crate::host::terminal;
use crate::judge::report::Report;
use crate::show::compare::{compare, took_effect};
use crate::show::explain::explain;
use crate::show::json::{self, Document, Remedies, connection};
use crate::show::overview::{Overview, Screen};
use crate::show::sort::Sort;
use crate::show::table;

/// The width of groups that go to a file or a pipe.
const PIPE_WIDTH: usize = 160;

/// The form of the output: groups for a person at a terminal, rows for a pipe.
pub fn format(args: &AuditArgs) -> Format {
    let default = if io::stdout().is_terminal() { Format::Groups } else { Format::Table };
    args.format.unwrap_or(default)
}

/// Whether what is written names the programs that hold sockets.
pub fn names_programs(args: &AuditArgs) -> bool {
    let named = matches!(format(args), Format::Json | Format::Jsonl | Format::Groups | Format::Wide);
    named || args.explain || args.compare.is_some() || args.record.is_some()
}

/// Writes everything. False if `--compare` shows a change that did not take effect.
pub fn all(out: &mut impl Write, args: &AuditArgs, mut result: AuditResult, before: Option<&Report>) -> Result<bool> {
    if args.record.as_deref().is_some_and(recording::is_standard) {
        return Ok(true);
    }
    let is_json = matches!(format(args), Format::Json | Format::Jsonl);
    if let Some(before) = before {
        let report = result.into_report();
        let text = if is_json { pretty(&json::comparison(before, &report))? } else { compare(before, &report) };
        write(out, &text)?;
        return Ok(took_effect(before, &report) != Some(false));
    }
    if args.explain && is_json {
        write(out, &pretty(&json::explanation(&result.into_report())?)?)?;
        return Ok(true);
    }
    if super::is_read(print(out, args, &mut result))? && args.explain {
        write(out, &format!("\n{}", explain(&result.into_report())?))?;
    }
    Ok(true)
}

fn pretty(value: &serde_json::Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n")
}

fn write(out: &mut impl Write, text: &str) -> Result<()> {
    super::is_read(out.write_all(text.as_bytes())).map(drop)
}

/// Whether stdout takes colour, by `--color`, `NO_COLOR` and the terminal.
pub fn has_color() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// What the overview is fitted to.
fn screen(args: &AuditArgs) -> Screen {
    let size = terminal::size();
    Screen {
        width: size.map_or(PIPE_WIDTH, |(columns, _)| columns),
        height: size.map(|(_, rows)| rows).filter(|_| !args.all_groups),
        color: has_color(),
    }
}

/// The order of groups and rows.
pub fn sort(args: &AuditArgs) -> Sort {
    match args.sort {
        None | Some(SortArg::Worst) => Sort::Worst,
        Some(SortArg::Connections) => Sort::Connections,
        Some(SortArg::Idle) => Sort::Idle,
        Some(SortArg::Owner) => Sort::Owner,
    }
}

/// Writes the report and its connections.
pub fn print(out: &mut impl Write, args: &AuditArgs, result: &mut AuditResult) -> io::Result<()> {
    let (report, found) = result.found();
    let findings = || found.iter().filter(|finding| args.all || finding.verdict.flagged());
    let format = format(args);
    if args.watch.is_some() && matches!(format, Format::Groups | Format::Table | Format::Wide) {
        writeln!(out, "{}", json::time(report.started_at))?;
    }
    match format {
        Format::Groups => {
            let overview = Overview::new(Cow::Borrowed(report), found.iter(), args.all);
            overview.sorted(sort(args)).write(out, screen(args))
        }
        format @ (Format::Table | Format::Wide) => {
            let terminal = io::stdout().is_terminal();
            let options = table::Options { wide: format == Format::Wide, color: has_color(), terminal };
            match sort(args) {
                // as they come, without holding them in memory
                Sort::Worst => table::write(out, report, findings, options),
                sort => {
                    let mut rows: Vec<_> = findings().collect();
                    sort.sort_rows(&mut rows);
                    table::write(out, report, || rows.iter(), options)
                }
            }
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &Document { report, findings })?;
            writeln!(out)
        }
        Format::Jsonl => {
            let remedies = Remedies::all();
            for finding in findings() {
                serde_json::to_writer(&mut *out, &connection(&finding, &remedies))?;
                writeln!(out)?;
            }
            Ok(())
        }
    }
}

//! Exit codes, logging, dispatch.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use keepalive_auditor::cli::remedy::RemedyArgs;
use keepalive_auditor::cli::{Cli, Command, Common, ListFormat, LogFormat};
use keepalive_auditor::config::{AgentConfig, AuditConfig, Config, ConfigFile, UsageError};
use keepalive_auditor::remedy;
use keepalive_auditor::show::profiles;
use keepalive_auditor::{agent, audit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Something failed; the reason is on stderr.
const FAILED: u8 = 1;
/// Wrong usage or configuration, as clap has it.
const USAGE: u8 = 2;
/// `--fail-on` found something.
const FOUND: u8 = 3;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let code = if error.is::<UsageError>() { USAGE } else { FAILED };
            eprintln!("keepalive-auditor: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = ConfigFile::load(cli.common.config.as_deref())?;
    match cli.command {
        Command::Audit(args) => {
            let config = AuditConfig::new(&cli.common, *args, &file)?;
            log_to_stderr(config.config.log_level.as_deref().unwrap_or("warn"), config.config.log_format, false)?;
            Ok(ExitCode::from(if audit::run(config)? { FOUND } else { 0 }))
        }
        Command::Agent(args) => {
            let config = AgentConfig::new(&cli.common, &args, &file)?;
            log_to_stderr(config.config.log_level.as_deref().unwrap_or("info"), config.config.log_format, true)?;
            agent::run(config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Remedy(args) => {
            print_remedy(&cli.common, *args, &file)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Profiles(args) => {
            let text = match args.format {
                ListFormat::Table => profiles::table(),
                ListFormat::Json => profiles::json(),
            };
            print_out(&text)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Configuration on stdout, fit to be piped on; hints on stderr.
fn print_remedy(common: &Common, args: RemedyArgs, file: &ConfigFile) -> anyhow::Result<()> {
    if args.list {
        let texts: Vec<_> = remedy::list()?.iter().map(ToString::to_string).collect();
        return print_out(&texts.join("\n"));
    }
    let refused = |error: remedy::RemedyError| UsageError::new(error.to_string());
    remedy::helps_against(&common.profile).map_err(refused)?;
    let budget = Config::new(common, file)?.policy.default_path.idle_timeout;
    let rendered = remedy::render(&args.request(budget)).map_err(refused)?;
    print_out(&rendered.stdout)?;
    for hint in rendered.hints {
        eprintln!("{hint}");
    }
    Ok(())
}

/// Writes to stdout; a reader that has seen enough, as in `| head`, is no error.
fn print_out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

fn log_to_stderr(level: &str, format: LogFormat, dated: bool) -> Result<(), UsageError> {
    // a bare word that is no level would be taken for a module's name, and nothing would be logged
    let bare = !level.contains('=');
    let known = !bare || level.parse::<LevelFilter>().is_ok();
    let filter = EnvFilter::try_new(level).ok().filter(|_| known).ok_or_else(|| {
        UsageError::new(format!(
            "--log.level: `{level}` is none of error, warn, info, debug, trace, off, or a tracing filter"
        ))
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let logs = logs.with_ansi(std::io::stderr().is_terminal());
    match (format, dated) {
        (LogFormat::Json, _) => logs.json().init(),
        (LogFormat::Text, true) => logs.init(),
        (LogFormat::Text, false) => logs.without_time().init(),
    }
    Ok(())
}

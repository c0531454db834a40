//! Exit codes, logging, dispatch.

use std::process::ExitCode;

use clap::Parser;
use keepalive_auditor::cli::{Cli, Command, ListFormat, LogFormat};
use keepalive_auditor::config::{AgentConfig, AuditConfig, ConfigFile, UsageError};
use keepalive_auditor::show::profiles;
use keepalive_auditor::{agent, audit};
use tracing_subscriber::EnvFilter;

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
            let config = AgentConfig::new(&cli.common, *args, &file)?;
            log_to_stderr(config.config.log_level.as_deref().unwrap_or("info"), config.config.log_format, true)?;
            agent::run(config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Profiles(args) => {
            let text = match args.format {
                ListFormat::Table => profiles::table(),
                ListFormat::Json => profiles::json(),
            };
            print!("{text}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn log_to_stderr(level: &str, format: LogFormat, dated: bool) -> Result<(), UsageError> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        UsageError::new(format!("--log.level: `{level}` is no level (error, warn, info, debug, trace): {error}"))
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match (format, dated) {
        (LogFormat::Json, _) => logs.json().init(),
        (LogFormat::Text, true) => logs.init(),
        (LogFormat::Text, false) => logs.without_time().init(),
    }
    Ok(())
}

//! Exit codes, logging, dispatch.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use keepalive_auditor::cli::remedy::RemedyArgs;
use keepalive_auditor::cli::{Cli, Command, Common, ListFormat, LogFormat};
use keepalive_auditor::config::{AgentSource, AuditConfig, Config, ConfigFile, UsageError};
use keepalive_auditor::logging::{self, Reader, Style, print_error};
use keepalive_auditor::remedy;
use keepalive_auditor::show::profiles;
use keepalive_auditor::{agent, audit};

/// Something failed; the reason is on stderr.
const FAILED: u8 = 1;
/// Wrong usage or configuration, as clap has it.
const USAGE: u8 = 2;
/// `--fail-on` found something.
const FOUND: u8 = 3;

fn main() -> ExitCode {
    let code = run(Cli::parse()).unwrap_or_else(|error| {
        print_error(&format!("keepalive-auditor: {error:#}"));
        ExitCode::from(if error.is::<UsageError>() { USAGE } else { FAILED })
    });
    logging::finish();
    code
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = ConfigFile::load(cli.common.config.as_deref())?;
    match cli.command {
        Command::Audit(args) => {
            let config = AuditConfig::new(&cli.common, *args, &file)?;
            start_logging(&config.config, "warn", Reader::Person)?;
            Ok(ExitCode::from(if audit::run(config)? { FOUND } else { 0 }))
        }
        Command::Agent(args) => {
            let source = AgentSource::new(cli.common, args);
            let config = source.with(&file)?;
            start_logging(&config.config, "info", Reader::Collector)?;
            agent::run(source, config)?;
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
        print_error(&hint);
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

fn start_logging(config: &Config, default_level: &str, reader: Reader) -> Result<(), UsageError> {
    let style = match config.log_format {
        LogFormat::Text => Style::Text,
        LogFormat::Json => Style::Json,
    };
    logging::start(config.log_level.as_deref().unwrap_or(default_level), style, reader).map_err(UsageError::new)
}

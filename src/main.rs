//! Exit codes, logging, dispatch.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::Context;
use keepalive_auditor::cli::remedy::RemedyArgs;
use keepalive_auditor::cli::{self, Cli, ColorWhen, Command, Common, FromEnvironment, ListFormat, LogFormat, Refused};
use keepalive_auditor::config::{AgentSource, AuditConfig, Config, ConfigFile, UsageError};
use keepalive_auditor::host::privileges;
use keepalive_auditor::logging::{self, Reader, print_error};
use keepalive_auditor::show::{escape, glossary, profiles};
use keepalive_auditor::{agent, audit, remedy, words};

/// Something failed, and stderr has the reason.
const FAILED: u8 = 1;
/// Wrong usage or configuration; clap uses the same number.
const USAGE: u8 = 2;
/// `--fail-on` found something.
const FOUND: u8 = 3;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const TIP: Style = AnsiColor::Green.on_default();

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (cli, from_environment) = match Cli::read(&arguments) {
        Ok(read) => read,
        Err(Refused::Shown(help)) => help.exit(),
        Err(Refused::Wrong { message, variable }) => {
            explain_error(&message, variable.as_slice());
            return ExitCode::from(USAGE);
        }
    };
    let code = run(cli).unwrap_or_else(|error| {
        let message = one_line(&error);
        let variables = FromEnvironment::at_fault(&from_environment, &message);
        explain_error(&message, &variables);
        ExitCode::from(if error.is::<UsageError>() { USAGE } else { FAILED })
    });
    logging::finish();
    code
}

/// Prints what is wrong, then what to do about it.
fn explain_error(message: &str, variables: &[String]) {
    let is_plain = AutoStream::choice(&io::stderr()) == ColorChoice::Never;
    let [error, tip] = [ERROR, TIP].map(|style| if is_plain { Style::new() } else { style });
    // lines that point at the word at fault belong to the problem
    let (message, pointer) = message.split_once("\n  ").map_or((message, ""), |(first, rest)| (first, rest));
    let (problem, advice) = words::split_advice(message);
    let mut text = format!("{error}error:{error:#} {}", escape::line(problem));
    for line in pointer.split("\n  ").filter(|line| !line.is_empty()) {
        let _ = write!(text, "\n  {}", escape::line(line));
    }
    let sources = variables.iter().map(|name| format!("the value is that of the environment variable {name}"));
    for advice in advice.map(str::to_owned).into_iter().chain(sources) {
        let _ = write!(text, "\n  {tip}tip:{tip:#} {}", escape::line(&advice));
    }
    print_error(&text);
}

/// The error and its causes on one line, without numbers of the system's errors. Below wrong usage, indented lines may
/// point at it.
fn one_line(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.downcast_ref::<io::Error>().map_or_else(|| cause.to_string(), words::reason);
        causes.push(text);
    }
    let text = causes.join(": ");
    if error.is::<UsageError>() { text } else { text.replace('\n', "\\n") }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = ConfigFile::load(cli.common.config.as_deref())?;
    match cli.common.color.or(file.color()).unwrap_or_default() {
        ColorWhen::Auto => ColorChoice::Auto,
        ColorWhen::Always => ColorChoice::Always,
        ColorWhen::Never => ColorChoice::Never,
    }
    .write_global();
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
        Command::Merge(args) => {
            audit::merge::run(&args)?;
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
        Command::Explain(args) => {
            let text = match &*args.words.join(" ") {
                "" => glossary::list(),
                word => glossary::explain(word).map_err(|error| UsageError::new(error.to_string()))?,
            };
            print_out(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions(args) => {
            print_out(&cli::completions(args.shell))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            print_out(&cli::man()?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The configuration goes to stdout, so that it can be piped; the hints go to stderr.
fn print_remedy(common: &Common, args: RemedyArgs, file: &ConfigFile) -> anyhow::Result<()> {
    if args.list {
        let texts: Vec<_> = remedy::list()?.iter().map(ToString::to_string).collect();
        return print_out(&texts.join("\n"));
    }
    if args.target.is_none() {
        let names: Vec<_> = remedy::list()?.into_iter().map(|target| target.name).collect();
        let names = names.join(", ");
        let message =
            format!("remedy needs a TARGET; valid are {names} (`keepalive-auditor remedy --list` describes them)");
        return Err(UsageError::new(message).into());
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

/// Writes to stdout. A reader that stops early, such as `| head`, is not an error.
fn print_out(text: &(impl AsRef<[u8]> + ?Sized)) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_ref()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

fn start_logging(config: &Config, default_level: &str, reader: Reader) -> Result<(), UsageError> {
    let style = match config.log_format {
        LogFormat::Text => logging::Style::Text,
        LogFormat::Json => logging::Style::Json,
    };
    let level = config.log_level.as_deref().unwrap_or(default_level);
    logging::start(level, style, reader, || {
        // what cannot be dropped is not held
        let _ = privileges::drop_for_this_thread();
    })
    .map_err(UsageError::new)?;
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, near) in cli::similar_variables(set) {
        tracing::warn!("the environment variable {} has no meaning{near}", escape::line(&name));
    }
    Ok(())
}

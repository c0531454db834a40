//! The command line, one argument per line: clap and the program refuse it with a sentence, or it becomes a
//! configuration.
#![no_main]

use clap::Parser as _;
use keepalive_auditor::cli::{Cli, Command};
use keepalive_auditor::config::{AgentConfig, AuditConfig, ConfigFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let arguments = std::iter::once("keepalive-auditor").chain(text.lines());
    let Ok(mut cli) = Cli::try_parse_from(arguments) else { return };
    // No file outside of this process is read.
    cli.common.config = None;
    let file = ConfigFile::default();
    let error = match cli.command {
        Command::Audit(args) => AuditConfig::new(&cli.common, *args, &file).err(),
        Command::Agent(mut args) => {
            args.web_config = None;
            AgentConfig::new(&cli.common, &args, &file).err()
        }
        _ => None,
    };
    assert!(error.is_none_or(|error| !error.to_string().is_empty()));
});

//! Reads the command line. If the wrong value comes from an environment variable, the error names it.

use std::ffi::{OsStr, OsString};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ColorChoice, Command, CommandFactory, FromArgMatches};

use super::Cli;

impl Cli {
    /// The command line of this process, its name first.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let long = arguments.iter().any(|argument| argument == "--help" || argument == "help");
        let command = definition(long).color(color(arguments));
        let matches = command.clone().try_get_matches_from(arguments);
        matches
            .and_then(|mut matches| Self::from_arg_matches_mut(&mut matches))
            .map_err(|error| with_source(error, &command, arguments))
    }
}

/// The command line. The short help has one line for each flag, so it lacks environment names and lists of values.
pub(super) fn definition(long: bool) -> Command {
    let shown = |arg: Arg| {
        let values = !long && arg.get_action().takes_values();
        arg.hide_env(!long).hide_env_values(true).hide_possible_values(values)
    };
    let command = Cli::command().mut_args(shown);
    command.mut_subcommands(|command| command.disable_help_flag(true).mut_args(shown))
}

/// `--color`, which clap needs before it has parsed anything.
fn color(arguments: &[OsString]) -> ColorChoice {
    let flag = OsStr::new("--color");
    let next = arguments.iter().skip_while(|argument| *argument != flag).nth(1).and_then(|value| value.to_str());
    let joined = arguments.iter().find_map(|argument| argument.to_str()?.strip_prefix("--color="));
    match joined.or(next) {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// Adds a note to an error about a flag's value if the value comes from the environment.
fn with_source(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return error };
    // as clap shows it: `--idle-timeout <DURATION>`
    let flag = shown.split([' ', '=']).next().unwrap_or_default().trim_start_matches('-').to_owned();
    let commands = || std::iter::once(command).chain(command.get_subcommands());
    let arg = commands().flat_map(Command::get_arguments).find(|arg| arg.get_long() == Some(&flag));
    if let Some((arg, variable)) = arg.and_then(|arg| Some((arg, arg.get_env()?)))
        && !is_given(arg, &flag, arguments)
    {
        let tip = format!("the value is that of the environment variable {}", variable.display());
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

/// Whether the command line holds the flag, with its long or its short name.
fn is_given(arg: &Arg, flag: &str, arguments: &[OsString]) -> bool {
    let long = format!("--{flag}");
    arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| {
        let short = arg.get_short().filter(|_| !argument.starts_with("--") && argument.starts_with('-'));
        argument.strip_prefix(&long).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            || short.is_some_and(|short| argument.contains(short))
    })
}

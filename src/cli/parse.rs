//! Reads the command line. If the wrong value comes from an environment variable, the error names it.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, ColorChoice, Command, CommandFactory, FromArgMatches};

use super::{Cli, errors};
use crate::words;

/// Why a command line is not run.
#[derive(Debug)]
pub enum Refused {
    /// It asks for help or the version.
    Shown(clap::Error),
    /// It is wrong: the problem and the advice, and the environment variable with the wrong value.
    Wrong {
        /// The problem and the advice.
        message: String,
        /// The environment variable.
        variable: Option<String>,
    },
}

/// A flag whose value is that of an environment variable.
#[derive(Clone, Debug)]
pub struct FromEnvironment {
    /// The flag, such as `--owner`.
    flag: String,
    /// Its variable.
    variable: String,
    /// The value.
    value: String,
}

impl FromEnvironment {
    /// The variables at fault for an error: it names their flag or their value.
    #[must_use]
    pub fn at_fault(all: &[Self], message: &str) -> Vec<String> {
        let names = |part: &str| {
            part.len() > 1
                && message.match_indices(part).any(|(at, _)| {
                    let end = at + part.len();
                    let is_apart = |near: Option<char>| near.is_none_or(|near| !near.is_alphanumeric() && near != '-');
                    is_apart(message[..at].chars().next_back()) && is_apart(message[end..].chars().next())
                })
        };
        let guilty = all.iter().filter(|from| names(&from.flag) || names(&from.value));
        guilty.map(|from| from.variable.clone()).collect()
    }
}

impl Cli {
    /// The command line of this process, its name first, and the flags that come from the environment.
    pub fn read(arguments: &[OsString]) -> Result<(Self, Vec<FromEnvironment>), Refused> {
        let long = arguments.iter().any(|argument| argument == "--help" || argument == "help");
        let command = definition(long).color(color(arguments));
        let parsed = command.clone().try_get_matches_from(arguments).and_then(|matches| {
            let from = from_environment(&command, &matches);
            Ok((Self::from_arg_matches(&matches)?, from))
        });
        parsed.map_err(|error| refused(error, &command, arguments))
    }
}

fn refused(error: clap::Error, command: &Command, arguments: &[OsString]) -> Refused {
    let shown =
        [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    if shown.contains(&error.kind()) {
        return Refused::Shown(error);
    }
    let mut words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    let subcommand = words.find_map(|word| command.find_subcommand(word));
    Refused::Wrong {
        message: errors::text(&error, command, subcommand),
        variable: variable(&error, command, arguments),
    }
}

/// The flags whose values come from the environment.
fn from_environment(command: &Command, matches: &ArgMatches) -> Vec<FromEnvironment> {
    let sub = matches.subcommand().and_then(|(name, matches)| Some((command.find_subcommand(name)?, matches)));
    let mut found = Vec::new();
    for (command, matches) in std::iter::once((command, matches)).chain(sub) {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let is_here = matches.try_contains_id(id).is_ok_and(|is_there| is_there)
                && matches.value_source(id) == Some(ValueSource::EnvVariable);
            let (Some(long), Some(variable), true) = (arg.get_long(), arg.get_env(), is_here) else { continue };
            let value = matches.get_raw(id).and_then(|mut values| values.next()).unwrap_or_default();
            found.push(FromEnvironment {
                flag: format!("--{long}"),
                variable: variable.to_string_lossy().into_owned(),
                value: value.to_string_lossy().into_owned(),
            });
        }
    }
    found
}

/// Variables of the environment that are named almost like one of a flag, with what was probably meant.
pub fn similar_variables(set: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let command = definition(true);
    let all = std::iter::once(&command).chain(command.get_subcommands()).flat_map(Command::get_arguments);
    let known: Vec<_> = all.filter_map(|arg| arg.get_env()?.to_str()).collect();
    let unknown = set.filter(|name| name.starts_with("KEEPALIVE_AUDITOR_") && !known.contains(&name.as_str()));
    unknown
        .filter_map(|name| {
            let suffix = |name: &'_ str| name.strip_prefix("KEEPALIVE_AUDITOR_").map(str::to_owned);
            let wanted = suffix(&name)?;
            let near = words::nearest(&wanted, known.iter().filter_map(|name| name.strip_prefix("KEEPALIVE_AUDITOR_")))
                .into_iter()
                .next()
                .map(|near| format!("; did you mean KEEPALIVE_AUDITOR_{near}?"))?;
            Some((name, near))
        })
        .collect()
}

/// The command line. The short help has one line for each flag, so it lacks environment names and lists of values.
pub(super) fn definition(long: bool) -> Command {
    let shown = |arg: Arg| {
        let takes_values = arg.get_action().takes_values();
        let arg = arg.hide_env(!long).hide_env_values(true).hide_possible_values(!long && takes_values);
        // `--pid -1` is a wrong number, not a flag `-1`
        let is_flag = arg.get_long().is_some() && takes_values && !arg.is_allow_hyphen_values_set();
        if is_flag { arg.allow_negative_numbers(true) } else { arg }
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

/// The environment variable of the flag that an error is about, if its value comes from there.
fn variable(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = errors::name(shown).trim_start_matches('-').to_owned();
    let commands = || std::iter::once(command).chain(command.get_subcommands());
    let arg = commands().flat_map(Command::get_arguments).find(|arg| arg.get_long() == Some(&flag))?;
    let variable = arg.get_env()?;
    (!is_given(arg, &flag, arguments)).then(|| variable.to_string_lossy().into_owned())
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

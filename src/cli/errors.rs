//! Wrong usage in the words of this program: `PROBLEM; ADVICE`, as all its errors are written.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::words;

/// What is wrong with the command line, and what to write instead.
pub(super) fn text(error: &clap::Error, command: &Command, subcommand: Option<&Command>) -> String {
    let context = Context { error, command, subcommand };
    let message = match error.kind() {
        ErrorKind::InvalidValue => context.value(),
        ErrorKind::ValueValidation => context.validation(),
        ErrorKind::UnknownArgument => context.unknown(),
        ErrorKind::InvalidSubcommand => {
            let name = context.first(ContextKind::InvalidSubcommand);
            format!("`{name}` is not a command{}", words::suggest(&name, context.commands()))
        }
        ErrorKind::MissingSubcommand => {
            format!("a command is missing; valid are {}", context.commands().join(", "))
        }
        ErrorKind::MissingRequiredArgument => context.missing(),
        ErrorKind::ArgumentConflict => context.conflict(),
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            let flag = context.flag();
            match context.first(ContextKind::InvalidValue) {
                value if value.is_empty() => format!("{flag} has the wrong number of values"),
                value => format!("{flag} takes no value `{value}`; write {flag} alone"),
            }
        }
        ErrorKind::InvalidUtf8 => "an argument is not text in UTF-8".to_owned(),
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    if words::split_advice(&message).1.is_some() {
        return message;
    }
    let name = subcommand.map(|subcommand| format!(" {}", subcommand.get_name())).unwrap_or_default();
    format!("{message}; see `keepalive-auditor{name} --help`")
}

/// The name of a flag, as it is written on the command line: `--idle-timeout` of `--idle-timeout <DURATION>`.
pub(super) fn name(shown: &str) -> &str {
    shown.split([' ', '=']).next().unwrap_or_default()
}

struct Context<'a> {
    error: &'a clap::Error,
    command: &'a Command,
    subcommand: Option<&'a Command>,
}

impl<'a> Context<'a> {
    fn all(&self, kind: ContextKind) -> Vec<String> {
        match self.error.get(kind) {
            Some(ContextValue::String(one)) => vec![one.clone()],
            Some(ContextValue::Strings(all)) => all.clone(),
            _ => Vec::new(),
        }
    }

    fn first(&self, kind: ContextKind) -> String {
        self.all(kind).into_iter().next().unwrap_or_default()
    }

    /// The flag at fault, or the name of the positional argument.
    fn flag(&self) -> String {
        name(&self.first(ContextKind::InvalidArg)).trim_matches(['<', '>', '.', '[', ']']).to_owned()
    }

    fn commands(&self) -> Vec<&'a str> {
        self.command.get_subcommands().map(Command::get_name).collect()
    }

    fn arguments(&self) -> impl Iterator<Item = &'a Arg> {
        let own = self.subcommand.into_iter().flat_map(Command::get_arguments);
        own.chain(self.command.get_arguments().filter(|arg| arg.is_global_set() || self.subcommand.is_none()))
    }

    /// The values that a flag or positional argument takes, where they are few.
    fn values(&self, shown: &str) -> Vec<String> {
        let wanted = shown.trim_matches(['<', '>', '.', '[', ']']);
        let arg = self.arguments().find(|arg| {
            arg.get_long() == wanted.strip_prefix("--")
                || arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == wanted))
        });
        let values = arg.map(Arg::get_possible_values).unwrap_or_default();
        values.iter().map(|value| value.get_name().to_owned()).collect()
    }

    fn value(&self) -> String {
        let (flag, value) = (self.flag(), self.first(ContextKind::InvalidValue));
        let valid = self.all(ContextKind::ValidValue);
        let known = valid.iter().map(String::as_str);
        match (value.is_empty(), valid.is_empty()) {
            (true, true) => format!("{flag} needs a value"),
            (true, false) => format!("{flag} needs a value; valid are {}", valid.join(", ")),
            (false, _) => format!("{flag} {value}: not a valid value{}", words::suggest(&value, known)),
        }
    }

    /// The parser of a value gives the reason.
    fn validation(&self) -> String {
        let (flag, value) = (self.flag(), self.first(ContextKind::InvalidValue));
        let reason = std::error::Error::source(self.error).map(ToString::to_string).unwrap_or_default();
        let value = if value.is_empty() { "''" } else { &value };
        format!("{flag} {value}: {}", number(&reason))
    }

    fn unknown(&self) -> String {
        let given = self.first(ContextKind::InvalidArg);
        let owner = self.subcommand.map_or("keepalive-auditor", Command::get_name);
        let Some(flag) = given.strip_prefix("--") else {
            let what = if given.starts_with('-') { "flag" } else { "argument" };
            return format!("{owner} has no {what} `{given}`");
        };
        let near = words::did_you_mean(flag, self.arguments().filter_map(Arg::get_long));
        format!("{owner} has no flag `{given}`{}", near.replace('`', "").replacen("mean ", "mean --", 1))
    }

    fn missing(&self) -> String {
        let owner = self.subcommand.map_or("keepalive-auditor", Command::get_name);
        let shown: Vec<_> = self.all(ContextKind::InvalidArg);
        let names: Vec<_> = shown.iter().map(|name| name.trim_matches(['<', '>', '.'])).collect();
        let values = shown.first().map(|first| self.values(first)).unwrap_or_default();
        let advice = if values.is_empty() { String::new() } else { format!("; valid are {}", values.join(", ")) };
        format!("{owner} needs {}{advice}", names.join(" "))
    }

    fn conflict(&self) -> String {
        let flag = self.flag();
        let others = self.all(ContextKind::PriorArg);
        let others: Vec<_> = others.iter().map(|other| name(other)).collect();
        match &others[..] {
            [] => format!("{flag} is given twice; write it once"),
            [other] if *other == flag => format!("{flag} is given twice; write it once"),
            others => format!("{flag} does not go with {}; write only one of them", others.join(", ")),
        }
    }
}

/// Why a number is refused. Parsers of the standard library and of clap say it in their own words.
fn number(reason: &str) -> String {
    if let Some((_, range)) = reason.split_once(" is not in ") {
        let (least, most) = range.split_once("..").unwrap_or((range, ""));
        return format!("out of range; write {least} to {}", most.trim_start_matches('='));
    }
    match reason {
        "invalid digit found in string" => "not a whole number; write digits only".to_owned(),
        "cannot parse integer from empty string" => "a number is missing; write digits".to_owned(),
        "number too large to fit in target type" => "the number is too large; write a smaller one".to_owned(),
        "number too small to fit in target type" => "the number is too small; write a larger one".to_owned(),
        reason => reason.to_owned(),
    }
}

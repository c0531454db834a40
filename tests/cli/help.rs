//! Help texts: each page beside its golden file, `-h` on one screen, and the environment name of every flag.
//!
//! `UPDATE_GOLDENS=1 cargo test --test cli help` writes the pages again; read every line of the difference.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use keepalive_auditor::cli::Cli;

use crate::support::binary::run;
use crate::support::checks::Checks;

const SCREEN: usize = 40;
const WIDTH: usize = 100;

/// Every command; the empty name is the program itself.
fn commands() -> Vec<String> {
    let command = Cli::command();
    let names: Vec<_> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    assert!(names.len() >= 7, "{names:?}");
    [String::new()].into_iter().chain(names).collect()
}

fn page(command: &str, flag: &str) -> String {
    let words: Vec<_> = [command, flag].into_iter().filter(|word| !word.is_empty()).collect();
    let outcome = run(&words);
    assert_eq!(outcome.code(), 0, "{words:?}: {outcome:?}");
    outcome.stdout
}

#[test]
fn each_page_is_its_golden_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden");
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    let mut wrong = Vec::new();
    for command in commands() {
        for (flag, kind) in [("-h", "short"), ("--help", "long")] {
            let name = if command.is_empty() { "keepalive-auditor" } else { &command };
            let golden = folder.join(format!("{name}.{kind}.txt"));
            // editors and git take trailing blanks away
            let page: String = page(&command, flag).lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
            if update {
                fs::create_dir_all(&folder).expect("the folder");
                fs::write(&golden, &page).expect("the golden file is written");
            }
            let expected = fs::read_to_string(&golden).unwrap_or_default();
            if page != expected {
                let differs = page.lines().zip(expected.lines()).find(|(page, expected)| page != expected);
                wrong.push(format!("{}: {differs:?}", golden.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n(UPDATE_GOLDENS=1 writes them again)", wrong.join("\n"));
}

#[test]
fn the_short_page_fits_on_a_screen() {
    let mut checks = Checks::default();
    for command in commands() {
        let page = page(&command, "-h");
        let lines = page.lines().count();
        checks.that(lines <= SCREEN, || {
            format!("{command} -h has {lines} lines; hide_short_help takes a rare flag off that page")
        });
        let longest = page.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        checks.that(longest <= WIDTH, || format!("{command} -h is {longest} columns wide"));
    }
    checks.finish();
}

#[test]
fn each_text_starts_with_a_verb_and_its_first_line_has_no_full_stop() {
    let mut checks = Checks::default();
    let command = Cli::command();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        let texts = command
            .get_arguments()
            .filter(|arg| arg.get_id() != "version")
            .map(|arg| (arg.get_id().to_string(), arg.get_help().map(ToString::to_string)))
            .chain([(command.get_name().to_owned(), command.get_about().map(ToString::to_string))]);
        for (name, text) in texts {
            let text = text.unwrap_or_default();
            checks.that(!text.ends_with('.'), || format!("{name}: {text:?} ends with a full stop"));
            let first = text.split(' ').next().unwrap_or_default();
            let verb = first.starts_with(char::is_uppercase) && !first.ends_with('s');
            checks.that(verb, || format!("{name}: {text:?} does not start with a verb"));
        }
    }
    checks.finish();
}

#[test]
fn each_variable_has_the_name_of_its_flag() {
    let mut checks = Checks::default();
    let command = Cli::command();
    let mut count = 0;
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        for arg in command.get_arguments() {
            if let (Some(long), Some(variable)) = (arg.get_long(), arg.get_env().and_then(|name| name.to_str())) {
                let expected = format!("KEEPALIVE_AUDITOR_{}", long.to_uppercase().replace(['-', '.'], "_"));
                checks.equal(long, variable, expected.as_str());
                count += 1;
            }
        }
    }
    checks.that(count > 30, || format!("only {count} flags have a variable"));
    checks.finish();
}

//! Shell completions and the manual page.

use std::io;

use clap_complete::Shell;

use super::parse::definition;

/// The completions of one shell.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut command = definition(true);
    let name = command.get_name().to_owned();
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut out);
    out
}

/// The manual page, in roff: the program, then each command.
pub fn man() -> io::Result<Vec<u8>> {
    let mut command = definition(true).mut_args(|arg| arg.hide_short_help(false));
    command.build();
    let mut out = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut out)?;
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let page = clap_mangen::Man::new(command.clone());
        page.render_synopsis_section(&mut out)?;
        page.render_description_section(&mut out)?;
        page.render_options_section(&mut out)?;
        page.render_extra_section(&mut out)?;
    }
    Ok(out)
}

//! `tap53 completions` and `tap53 man`, generated from the description of the command line.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::table::print_bytes;

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tap53 completions bash > /etc/bash_completion.d/tap53
  tap53 completions zsh > /usr/share/zsh/site-functions/_tap53
  tap53 completions fish > ~/.config/fish/completions/tap53.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  tap53 man | man -l -
  tap53 man --dir /usr/local/share/man/man1

With --dir, each command has a page: tap53.1, tap53-run.1, tap53-spool-ls.1.";

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Shell that will read the script
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManPages {
    /// Write the page of each command to this directory, which is created if missing
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), NAME, &mut script);
    print_bytes(&script)
}

/// Name of the program.
const NAME: &str = "tap53";

pub(crate) fn man(arguments: &ManPages) -> anyhow::Result<ExitCode> {
    // The built-in command `help` would have a page for each other command.
    let mut command = super::Arguments::command().disable_help_subcommand(true);
    command.build();
    let Some(directory) = &arguments.dir else {
        return print_bytes(&page(&command).context("cannot write the page")?);
    };
    let refused = || format!("cannot write to {}", directory.display());
    fs::create_dir_all(directory).with_context(refused)?;
    let mut plugin = super::kubectl::Arguments::command().disable_help_subcommand(true);
    plugin.build();
    for command in [&command, &plugin].into_iter().flat_map(with_subcommands) {
        let path = directory.join(format!("{}.1", page_name(command)));
        let page = page(command).with_context(refused)?;
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a command and all below it.
fn with_subcommands(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    [command].into_iter().chain(below.flat_map(with_subcommands)).collect()
}

/// Returns the name of a command's page, such as `tap53-spool-ls`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// Returns a page in the format of man(7).
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = Man::new(command.clone()).title(page_name(command));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(examples) = command.get_after_help() {
        page.extend_from_slice(preformatted("NOTES", &examples.to_string()).as_bytes());
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// Returns a section whose lines are shown as they are: clap_mangen would fill them.
fn preformatted(heading: &str, text: &str) -> String {
    let mut section = format!(".SH {heading}\n.nf\n");
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
        // A line that begins with a dot would be a request.
        if line.starts_with('.') {
            section.push_str("\\&");
        }
        section.push_str(&line);
        section.push('\n');
    }
    section.push_str(".fi\n");
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preformatted_lines_are_no_requests() {
        let section = preformatted("NOTES", "tap53 tail -n 1\n.hidden\n'quoted' \\");
        assert_eq!(
            section,
            ".SH NOTES\n.nf\ntap53 tail \\-n 1\n\\&.hidden\n\\(aqquoted\\(aq \\e\n.fi\n"
        );
    }

    #[test]
    fn the_description_of_the_command_line_is_consistent() {
        super::super::Arguments::command().debug_assert();
        super::super::kubectl::Arguments::command().debug_assert();
    }
}

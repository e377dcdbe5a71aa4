// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shells and `man` want to know of the command, out of its own description.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::Failure;

/// Prints completions for a shell.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak completions bash > ~/.local/share/bash-completion/completions/firebreak
  firebreak completions zsh > ~/.zfunc/_firebreak
  firebreak completions fish > ~/.config/fish/completions/firebreak.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the JSON Schema of partition files, for editors.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak schema > partition.schema.json
  #:schema ./partition.schema.json      (the first line of firebreak.toml, for Taplo)")]
pub(crate) struct SchemaArgs {}

/// Writes a man page for each command.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak man --dir ~/.local/share/man/man1
  man firebreak-check")]
pub(crate) struct ManArgs {
    /// Where the pages go; it is made if it is not there
    #[arg(long, value_name = "DIR", default_value = "man1")]
    dir: PathBuf,
}

/// Runs `completions`.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "firebreak", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Runs `man`.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<String, Failure> {
    let dir = &args.dir;
    let command = command.disable_help_subcommand(true);
    let names = pages("firebreak", &command);
    let written = fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .and_then(|()| names.iter().try_for_each(|name| tidy(&dir.join(name))));
    match written {
        Ok(()) => Ok(format!("the man pages are in {}\n", dir.display())),
        Err(error) => Err(Failure::text(format!(
            "{}: the man pages cannot be written: {error}; choose another --dir",
            dir.display()
        ))),
    }
}

/// The pages of a command, and of its own commands.
fn pages(name: &str, command: &Command) -> Vec<String> {
    let below = command.get_subcommands();
    let below = below.flat_map(|one| pages(&format!("{name}-{}", one.get_name()), one));
    std::iter::once(format!("{name}.1")).chain(below).collect()
}

/// Gives a page the sections that readers of man pages look for.
fn tidy(path: &Path) -> io::Result<()> {
    let page = fs::read_to_string(path)?;
    fs::write(path, with_examples(&page))
}

/// Makes sections EXAMPLES, whose lines stay as they are, and NOTES of what stands behind the help.
fn with_examples(page: &str) -> String {
    let Some((before, rest)) = page.split_once(".SH EXTRA\n") else {
        return page.to_owned();
    };
    let end = rest.find("\n.SH ").map_or(rest.len(), |at| at + 1);
    let (extra, after) = rest.split_at(end);
    let is_example = |line: &&str| line.starts_with("  ");
    let lines = || {
        extra
            .lines()
            .filter(|line| !line.is_empty() && *line != "Examples:")
    };
    let examples: Vec<&str> = lines().filter(is_example).map(str::trim_start).collect();
    let notes: Vec<&str> = lines().filter(|line| !is_example(line)).collect();
    let mut text = format!("{before}.SH EXAMPLES\n.nf\n{}\n.fi\n", examples.join("\n"));
    if !notes.is_empty() {
        text += &format!(".SH NOTES\n{}\n", notes.join("\n.br\n"));
    }
    text + after
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs {
            dir: dir.path().join("deep/man1"),
        };
        man(&args, crate::Cli::command()).unwrap();
        let names = pages("firebreak", &crate::Cli::command());
        for name in &names {
            let page = fs::read_to_string(args.dir.join(name)).unwrap();
            let (_, examples) = page.split_once(".SH EXAMPLES\n.nf\n").unwrap();
            assert!(examples.starts_with("firebreak"), "{name} has no examples");
            assert!(!page.contains("EXTRA"), "{name}");
        }
        assert_eq!(fs::read_dir(&args.dir).unwrap().count(), names.len());
    }

    #[test]
    fn each_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(&CompletionsArgs { shell }, crate::Cli::command());
            assert!(script.contains("decode"), "{shell}");
        }
    }
}

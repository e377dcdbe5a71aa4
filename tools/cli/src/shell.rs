// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shells and `man` want to know of the command, out of its own description.

use std::fs;
use std::path::PathBuf;

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
    let written = fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), dir));
    match written {
        Ok(()) => Ok(format!("the man pages are in {}\n", dir.display())),
        Err(error) => Err(Failure::text(format!(
            "{}: the man pages cannot be written: {error}; choose another --dir",
            dir.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// The pages of a command, and of its own commands.
    fn pages(name: &str, command: &Command, names: &mut Vec<String>) {
        names.push(format!("{name}.1"));
        for one in command.get_subcommands() {
            pages(&format!("{name}-{}", one.get_name()), one, names);
        }
    }

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs {
            dir: dir.path().join("deep/man1"),
        };
        man(&args, crate::Cli::command()).unwrap();
        let mut names = Vec::new();
        pages("firebreak", &crate::Cli::command(), &mut names);
        for name in &names {
            let page = fs::read_to_string(args.dir.join(name)).unwrap();
            assert!(page.contains("Examples"), "{name} has no examples");
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

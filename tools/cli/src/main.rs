// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `firebreak` command.
//!
//! Exit status: 0 for success, 1 when what was given cannot work (the reason is on standard
//! error, or in the JSON object on standard output), 2 when the command line itself is wrong.

mod campaign;
mod client;
mod decode;
#[cfg(test)]
mod documents;
mod dump;
mod new;
mod reload;
mod run;
mod shell;
mod trace;
mod tui;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use firebreak_image::{Diagnostics, Explanation, Options, Report};

/// Describes, checks, builds, runs and commands Firebreak systems, and decodes what they report.
#[derive(Parser)]
#[command(name = "firebreak", version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  firebreak check guest-images/demo/firebreak.toml --payloads target/firebreak
  firebreak build guest-images/demo/firebreak.toml --payloads target/firebreak -o demo.img
  firebreak run demo.img
  firebreak decode 0xbe000c11

Exit status: 0 success, 1 the input cannot work, 2 the command line is wrong.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(new::NewArgs),
    Check(CheckArgs),
    Build(BuildArgs),
    Run(run::RunArgs),
    Ps(client::PsArgs),
    Stop(client::StopArgs),
    Start(client::StartArgs),
    Restart(client::RestartArgs),
    Reload(client::ReloadArgs),
    Inject(client::InjectArgs),
    Raise(client::RaiseArgs),
    Log(client::LogArgs),
    Console(client::ConsoleArgs),
    Stats(client::StatsArgs),
    Trace(trace::TraceArgs),
    Campaign(campaign::CampaignArgs),
    Decode(decode::DecodeArgs),
    Schema(shell::SchemaArgs),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

#[derive(Args)]
struct Input {
    /// The partition file (TOML, or a devicetree as DTS or DTB; see docs/partitions.md)
    file: PathBuf,
    /// Directory that images and RAM disks are relative to [default: the partition file's]
    #[arg(long, value_name = "DIR")]
    payloads: Option<PathBuf>,
    /// The bare hypervisor, as `cargo xtask build` makes it [default: hypervisor.bin of --payloads]
    #[arg(long, value_name = "BIN", env = "FIREBREAK_HYPERVISOR")]
    hypervisor: Option<PathBuf>,
    /// Writes one JSON object to standard output
    #[arg(long)]
    json: bool,
}

/// Checks a partition file and everything that it names.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak check system.toml
  firebreak check system.toml --explain
  firebreak check system.toml --json | jq '.problems[] | .message'")]
struct CheckArgs {
    #[command(flatten)]
    input: Input,
    /// Also says who has which memory, PE and interrupt, and who dies of which error
    #[arg(long)]
    explain: bool,
}

/// Builds one bootable image.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak build guest-images/demo/firebreak.toml --payloads target/firebreak -o system.img
  firebreak build system.toml --hypervisor target/firebreak/hypervisor.bin -o system.img
  qemu-system-aarch64 -M virt,virtualization=on,gic-version=3 -cpu neoverse-n1 -smp 4 -m 1024 \\
      -nic none -nographic -kernel system.img")]
struct BuildArgs {
    #[command(flatten)]
    input: Input,
    /// Where the image goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::New(args) => new::run(&args),
        Command::Check(args) => check(&args),
        Command::Build(args) => build(&args),
        Command::Run(args) => run::run(&args),
        Command::Ps(args) => client::ps(&args),
        Command::Stop(args) => client::stop(&args),
        Command::Start(args) => client::start(&args),
        Command::Restart(args) => client::restart(&args),
        Command::Reload(args) => client::reload(&args),
        Command::Inject(args) => client::inject(&args),
        Command::Raise(args) => client::raise(&args),
        Command::Log(args) => client::log(&args),
        Command::Console(args) => client::console(&args),
        Command::Stats(args) => client::stats(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Campaign(args) => campaign::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Schema(_) => Ok(format!("{:#}\n", firebreak_image::schema())),
        Command::Completions(args) => Ok(shell::completions(&args, Cli::command())),
        Command::Man(args) => shell::man(&args, Cli::command()),
    };
    match outcome {
        Ok(text) => say(&text),
        Err(Failure { stdout, stderr }) => {
            eprint!("{stderr}");
            say(&stdout);
            ExitCode::FAILURE
        }
    }
}

/// Prints; a reader that went away early (`| head`) is no failure of ours.
fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// What is printed when something cannot work.
#[derive(Debug)]
struct Failure {
    stdout: String,
    stderr: String,
}

impl Failure {
    fn diagnostics(problems: &Diagnostics, json: bool) -> Self {
        if json {
            let object = serde_json::json!({ "ok": false, "problems": problems.to_json() });
            Self {
                stdout: format!("{object:#}\n"),
                stderr: String::new(),
            }
        } else {
            Self {
                stdout: String::new(),
                stderr: problems.render(colors()),
            }
        }
    }

    fn text(message: String) -> Self {
        Self {
            stdout: String::new(),
            stderr: format!("firebreak: {message}\n"),
        }
    }

    /// The same, or one JSON object on standard output.
    fn told(message: String, json: bool) -> Self {
        if !json {
            return Self::text(message);
        }
        let object = serde_json::json!({ "ok": false, "text": message });
        Self {
            stdout: format!("{object}\n"),
            stderr: String::new(),
        }
    }
}

/// Colors only for eyes, and not for those who do not want them (<https://no-color.org>).
fn colors() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Returns where payloads and the hypervisor are: `cargo xtask build` puts it beside them.
fn options(payloads: Option<&Path>, hypervisor: Option<&Path>) -> Options {
    let beside = || {
        payloads
            .map(|dir| dir.join("hypervisor.bin"))
            .filter(|file| file.is_file())
    };
    Options {
        payloads: payloads.map(Path::to_owned),
        hypervisor: hypervisor.map(Path::to_owned).or_else(beside),
    }
}

impl Input {
    fn options(&self) -> Options {
        options(self.payloads.as_deref(), self.hypervisor.as_deref())
    }
}

fn check(args: &CheckArgs) -> Result<String, Failure> {
    let input = &args.input;
    let system = firebreak_image::check(&input.file, &input.options())
        .map_err(|problems| Failure::diagnostics(&problems, input.json))?;
    let explanation = args.explain.then(|| Explanation::new(&system));
    Ok(told(
        &Report::new(&system, None),
        &system.warnings,
        input.json,
        None,
        explanation.as_ref(),
    ))
}

fn build(args: &BuildArgs) -> Result<String, Failure> {
    let input = &args.input;
    let built = firebreak_image::build(&input.file, &input.options())
        .map_err(|problems| Failure::diagnostics(&problems, input.json))?;
    std::fs::write(&args.output, &built.bytes).map_err(|error| {
        let path = args.output.display();
        let why = format!("{path} cannot be written: {error}; choose another -o");
        Failure::told(why, input.json)
    })?;
    Ok(told(
        &built.report,
        &built.system.warnings,
        input.json,
        Some(&args.output),
        None,
    ))
}

fn told(
    report: &Report,
    warnings: &Diagnostics,
    json: bool,
    output: Option<&Path>,
    explanation: Option<&Explanation>,
) -> String {
    if json {
        let object = serde_json::json!({
            "ok": true,
            "problems": warnings.to_json(),
            "output": output,
            "report": report,
            "explanation": explanation,
        });
        return format!("{object:#}\n");
    }
    if !warnings.problems.is_empty() {
        eprintln!("{}", warnings.render(colors()));
    }
    let done = match output {
        Some(path) => format!("\n{} is built\n", path.display()),
        None => "\nno problems found\n".to_owned(),
    };
    let explained = explanation.map_or_else(String::new, Explanation::to_text);
    report.to_text() + &explained + &done
}

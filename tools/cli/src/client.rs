// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single commands for a system that `firebreak run` shows.

use std::io::{self, BufRead, BufReader, IsTerminal as _, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ratatui::crossterm::terminal;
use serde_json::{Value, json};

use crate::Failure;
use crate::reload;
use crate::run::socket::{Ask, connect, default_path, to_bytes, to_text};

/// Ctrl-]: ends `console`.
const DETACH: u8 = 0x1d;

#[derive(Args)]
pub(crate) struct Way {
    /// The socket of `firebreak run` [default: $XDG_RUNTIME_DIR/firebreak.sock]
    #[arg(long, value_name = "PATH", env = "FIREBREAK_SOCKET")]
    socket: Option<PathBuf>,
    /// Writes JSON to standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// How long the answer may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// Tells the state of every partition of a running system.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak ps
  firebreak ps --json | jq '.partitions[] | select(.state != \"running\").name'")]
pub(crate) struct PsArgs {
    #[command(flatten)]
    way: Way,
}

/// Tells what a running system has counted.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak stats
  firebreak stats --json | jq '[.pes[].seis] | add'")]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    way: Way,
}

/// Stops a partition; the others go on.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak stop linux")]
pub(crate) struct StopArgs {
    /// Name of the partition
    name: String,
    #[command(flatten)]
    way: Way,
}

/// Starts a partition that is stopped, from its images.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak start linux")]
pub(crate) struct StartArgs {
    /// Name of the partition
    name: String,
    #[command(flatten)]
    way: Way,
}

/// Stops a partition and starts it again from its images.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak restart linux")]
pub(crate) struct RestartArgs {
    /// Name of the partition
    name: String,
    #[command(flatten)]
    way: Way,
}

/// Starts a partition again from another image, or from the one that was booted.
///
/// The image goes over the serial line in pieces, while the partition runs on; only when all of it has
/// arrived unharmed does the partition stop. Its file must set aside reload_room for it.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak reload linux                    back to the image that was booted
  firebreak reload control control.bin      another one, raw or an arm64 Image")]
pub(crate) struct ReloadArgs {
    /// Name of the partition
    name: String,
    /// The new image
    image: Option<PathBuf>,
    #[command(flatten)]
    way: Way,
}

/// What meets a synchronous external abort.
#[derive(Clone, Copy, ValueEnum)]
enum Access {
    Data,
    Fetch,
}

/// When an injection is made.
#[derive(Clone, Copy, ValueEnum)]
enum When {
    Masked,
    Unmasked,
    Start,
}

/// Reads a hexadecimal number, with or without 0x.
fn hex(text: &str) -> Result<u64, String> {
    let digits = text.trim_start_matches("0x").replace('_', "");
    u64::from_str_radix(&digits, 16).map_err(|error| format!("{error}; write it like 0x811"))
}

/// Makes a vCPU take a virtual SError or a synchronous external abort.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak inject linux --iss 0x811              a virtual SError with this syndrome
  firebreak inject linux --iss 0x811 --el 0       the same, when it is found in user space
  firebreak inject linux --iss 0xc11 --at masked  the same, when it is found with SError masked
  firebreak inject linux --vcpu 1 --sea data --far 0xffff800010000000")]
pub(crate) struct InjectArgs {
    /// Name of the partition
    name: String,
    /// Number of the vCPU in the partition
    #[arg(long, value_name = "N", default_value_t = 0)]
    vcpu: u8,
    /// ESR_EL1.ISS, 25 bits
    #[arg(long, value_name = "HEX", required_unless_present = "sea", value_parser = hex)]
    iss: Option<u64>,
    /// A synchronous external abort instead of a virtual SError
    #[arg(long, value_name = "ACCESS")]
    sea: Option<Access>,
    /// FAR_EL1 of the abort
    #[arg(long, value_name = "HEX", requires = "sea", value_parser = hex)]
    far: Option<u64>,
    /// Waits until the guest is found at this exception level, a second at most
    #[arg(long, value_name = "EL", value_parser = clap::value_parser!(u8).range(0..=1))]
    el: Option<u8>,
    /// Waits until EL1 is found with SError masked or unmasked, a second at most; or until the vCPU starts
    #[arg(long, value_name = "WHEN", conflicts_with = "el")]
    at: Option<When>,
    #[command(flatten)]
    way: Way,
}

/// Asks the reference firmware to raise a hardware error.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak raise pe=1 iss=0xc11 sev=recoverable pa=0x48001000 in=guest
  firebreak raise pe=0 iss=0 sev=corrected pa=0x48001000

The words are those of the firmware's line (docs/sei-contract.md, section 10): pe=N iss=0xHEX
sev=recoverable|fatal|corrected|informational|none [pa=0xHEX] [norecord] [delay=TICKS] [in=guest]
[with=PE] [as=MODES] [sync=data|fetch] [far=0xHEX].
Without in=guest it may hit the hypervisor at work: if it is uncorrected, the machine is reset.")]
pub(crate) struct RaiseArgs {
    /// What to raise
    #[arg(required = true, value_name = "WORD")]
    words: Vec<String>,
    #[command(flatten)]
    way: Way,
}

/// Shows what a running system said.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak log -n 50
  firebreak log --follow --json | jq 'select(.kind == \"event\").event'")]
pub(crate) struct LogArgs {
    /// How many of the last lines
    #[arg(short = 'n', value_name = "N", default_value_t = 20)]
    lines: usize,
    /// Stays, and shows what comes
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    way: Way,
}

/// Attaches to a partition's console. Ctrl-] ends it.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak console linux
  echo uname | firebreak console linux")]
pub(crate) struct ConsoleArgs {
    /// Name of the partition
    name: String,
    #[command(flatten)]
    way: Way,
}

pub(crate) fn ps(args: &PsArgs) -> Result<String, Failure> {
    command(&args.way, "ps".to_owned(), |answer| {
        let rows = answer["partitions"].as_array();
        rows.into_iter()
            .flatten()
            .map(|one| row(one) + "\n")
            .collect()
    })
}

pub(crate) fn stats(args: &StatsArgs) -> Result<String, Failure> {
    command(&args.way, "stats".to_owned(), |answer| {
        let rows = answer["pes"].as_array();
        let line = |one: &Value| format!("PE {}  errors handed over: {}\n", one["pe"], one["seis"]);
        rows.into_iter().flatten().map(line).collect()
    })
}

pub(crate) fn stop(args: &StopArgs) -> Result<String, Failure> {
    command(&args.way, format!("stop {}", args.name), done)
}

pub(crate) fn start(args: &StartArgs) -> Result<String, Failure> {
    command(&args.way, format!("start {}", args.name), done)
}

pub(crate) fn restart(args: &RestartArgs) -> Result<String, Failure> {
    command(&args.way, format!("restart {}", args.name), done)
}

pub(crate) fn reload(args: &ReloadArgs) -> Result<String, Failure> {
    let Some(path) = &args.image else {
        return command(&args.way, format!("reload {}", args.name), done);
    };
    let show = io::stderr().is_terminal() && !args.way.json;
    let image = reload::read(path).map_err(|why| refused(&args.way, &why))?;
    let mut answer = Value::Null;
    for (at, line) in reload::lines(&args.name, &image) {
        let ask = Ask::Command {
            line,
            patience_s: args.way.timeout,
        };
        answer = one(&args.way, &ask)?;
        if show {
            eprint!("\r{at} of {} bytes", image.len());
        }
    }
    if show {
        eprintln!();
    }
    if args.way.json {
        return Ok(format!("{}\n", answer["answer"]));
    }
    Ok(done(&answer["answer"]))
}

pub(crate) fn inject(args: &InjectArgs) -> Result<String, Failure> {
    let fault = match args.sea {
        None => "serror",
        Some(Access::Data) => "sea=data",
        Some(Access::Fetch) => "sea=fetch",
    };
    let mut line = format!("inject {} vcpu={} {fault}", args.name, args.vcpu);
    for (key, value) in [("iss", args.iss), ("far", args.far)] {
        line += &value.map_or_else(String::new, |value| format!(" {key}={value:#x}"));
    }
    line += &args.el.map_or_else(String::new, |el| format!(" el={el}"));
    line += match args.at {
        None => "",
        Some(When::Masked) => " at=masked",
        Some(When::Unmasked) => " at=unmasked",
        Some(When::Start) => " at=start",
    };
    command(&args.way, line, done)
}

pub(crate) fn raise(args: &RaiseArgs) -> Result<String, Failure> {
    let ask = Ask::Raise {
        words: args.words.join(" "),
        patience_s: args.way.timeout,
    };
    let told = one(&args.way, &ask)?;
    if args.way.json {
        return Ok(format!("{told}\n"));
    }
    Ok(format!("{}\n", told["text"].as_str().unwrap_or("done")))
}

/// A partition in a line.
pub(crate) fn row(row: &Value) -> String {
    let text = |key: &str| match &row[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(
        "{:>2}  {:<15} {:<9} restarts {:<4} vCPUs on {:<2} retired pages {}",
        text("vm"),
        text("name"),
        text("state"),
        text("restarts"),
        text("vcpus_on"),
        text("retired")
    )
}

fn done(answer: &Value) -> String {
    let text = answer["text"].as_str().unwrap_or("");
    let lead = match answer["inj"].as_u64() {
        Some(inj) => format!("done, injection {inj}"),
        None => "done".to_owned(),
    };
    match text {
        "" => lead + "\n",
        text => format!("{lead}: {text}\n"),
    }
}

fn command(way: &Way, line: String, show: fn(&Value) -> String) -> Result<String, Failure> {
    let told = answer(way, line)?;
    if way.json {
        return Ok(format!("{told}\n"));
    }
    Ok(show(&told))
}

fn open(way: &Way, ask: &Ask) -> Result<BufReader<UnixStream>, Failure> {
    let path = way.socket.clone().unwrap_or_else(default_path);
    connect(&path, ask)
        .map(BufReader::new)
        .map_err(|why| refused(way, &why))
}

fn refused(way: &Way, why: &str) -> Failure {
    Failure::told(why.to_owned(), way.json)
}

fn next(way: &Way, stream: &mut BufReader<UnixStream>) -> Result<Option<Value>, Failure> {
    let mut line = String::new();
    let len = stream.read_line(&mut line).unwrap_or(0);
    if len == 0 {
        return Ok(None);
    }
    let value = serde_json::from_str(&line);
    value
        .map(Some)
        .map_err(|error| refused(way, &format!("not understood: {error}")))
}

/// Reads whether it was done.
fn head(way: &Way, stream: &mut BufReader<UnixStream>) -> Result<Value, Failure> {
    let told = next(way, stream)?
        .ok_or_else(|| refused(way, "`firebreak run` ended before it answered"))?;
    if told["ok"] == true {
        return Ok(told);
    }
    Err(refused(way, told["text"].as_str().unwrap_or("refused")))
}

fn one(way: &Way, ask: &Ask) -> Result<Value, Failure> {
    head(way, &mut open(way, ask)?)
}

/// Gives a command, and returns the hypervisor's answer.
pub(crate) fn answer(way: &Way, line: String) -> Result<Value, Failure> {
    let ask = Ask::Command {
        line,
        patience_s: way.timeout,
    };
    one(way, &ask).map(|mut told| told["answer"].take())
}

pub(crate) fn log(args: &LogArgs) -> Result<String, Failure> {
    let way = &args.way;
    let ask = Ask::Log {
        past: args.lines,
        follow: args.follow,
    };
    let mut stream = open(way, &ask)?;
    head(way, &mut stream)?;
    let mut out = io::stdout().lock();
    while let Some(record) = next(way, &mut stream)? {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let line = match record["kind"].as_str() {
            _ if way.json => record.to_string(),
            Some("event") => {
                format!(
                    "{:<10} {}",
                    text(&record["event"]["ev"]),
                    text(&record["words"])
                )
            }
            Some("line") => format!("{}| {}", text(&record["name"]), text(&record["text"])),
            _ => text(&record["text"]),
        };
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(String::new())
}

/// The keyboard, key by key, until this is dropped.
struct Raw(bool);

impl Raw {
    fn set() -> Self {
        Self(io::stdin().is_terminal() && terminal::enable_raw_mode().is_ok())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.0 {
            let _ = terminal::disable_raw_mode();
        }
    }
}

pub(crate) fn console(args: &ConsoleArgs) -> Result<String, Failure> {
    let way = &args.way;
    let ask = Ask::Console {
        name: args.name.clone(),
    };
    let mut stream = open(way, &ask)?;
    let told = head(way, &mut stream)?;
    let typing = stream.get_ref().try_clone();
    let typing = typing.map_err(|error| refused(way, &error.to_string()))?;
    if io::stdin().is_terminal() {
        eprintln!("[console of {}; Ctrl-] ends]", args.name);
    }
    let raw = Raw::set();
    std::thread::spawn(move || type_keys(&typing));
    let mut out = io::stdout().lock();
    let _ = out.write_all(told["text"].as_str().unwrap_or("").as_bytes());
    let mut why = String::new();
    while let Some(message) = next(way, &mut stream)? {
        if let Some(text) = message["refused"].as_str().or(message["end"].as_str()) {
            why = format!("firebreak: {text}\n");
            break;
        }
        let text = message["out"].as_str().unwrap_or("");
        let mut bytes = if way.json {
            format!("{message}\n").into_bytes()
        } else {
            to_bytes(text)
        };
        if raw.0 {
            bytes = to_bytes(&to_text(&bytes).replace('\n', "\r\n"));
        }
        if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    drop(raw);
    eprint!("{why}");
    Ok(String::new())
}

fn type_keys(mut stream: &UnixStream) {
    let mut keys = [0; 64];
    while let Ok(len @ 1..) = io::stdin().lock().read(&mut keys) {
        let keys = keys.get(..len).unwrap_or(&[]);
        let until = keys.iter().position(|key| *key == DETACH).unwrap_or(len);
        let keys_now = keys.get(..until).unwrap_or(keys);
        let message = json!({ "in": to_text(keys_now) });
        if stream.write_all(format!("{message}\n").as_bytes()).is_err() || until < len {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

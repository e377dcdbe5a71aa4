// SPDX-License-Identifier: MIT OR Apache-2.0
//! The socket by which single commands reach a running session: JSON, an object a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use firebreak_qemu::Record;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hub::{Hub, Message};

/// What a client asks for.
#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// A command of the hypervisor.
    Command { line: String, patience_s: u64 },
    /// An error from the firmware.
    Raise { words: String, patience_s: u64 },
    /// The last records, and what comes after them.
    Log { past: usize, follow: bool },
    /// A console; bytes to type follow, as `{"in":"..."}`.
    Console { name: String },
}

/// Bytes in JSON: each a character of the same number.
pub(crate) fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The reverse of [`to_text`].
pub(crate) fn to_bytes(text: &str) -> Vec<u8> {
    text.chars().filter_map(|c| u8::try_from(c).ok()).collect()
}

/// Returns where a session listens if nobody says.
pub(crate) fn default_path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => Path::new(&dir).join("firebreak.sock"),
        None => format!("/tmp/firebreak-{}.sock", own_uid()).into(),
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The socket of a session; its file goes with it.
pub(crate) struct Socket {
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Lets clients of the same user come in.
pub(crate) fn serve(path: &Path, hub: &Arc<Hub>) -> Result<Socket, String> {
    let told =
        |error: std::io::Error| format!("{}: {error}; choose another --socket", path.display());
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(format!(
                "{} is no socket; choose another --socket",
                path.display()
            ));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(format!(
                "another `firebreak run` listens at {}; end it, or choose another --socket",
                path.display()
            ));
        }
        std::fs::remove_file(path).map_err(told)?;
    }
    // Nobody else's from the first moment on.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(told)?;
    let hub = Arc::clone(hub);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let hub = Arc::clone(&hub);
            thread::spawn(move || attend(&hub, &stream));
        }
    });
    Ok(Socket {
        path: path.to_owned(),
    })
}

fn attend(hub: &Arc<Hub>, stream: &UnixStream) {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    if !peer.is_ok_and(|peer| peer.uid.as_raw() == own_uid()) {
        return;
    }
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    let mut lines = BufReader::new(reading).lines();
    let Some(Ok(line)) = lines.next() else { return };
    let out = match serde_json::from_str(&line) {
        Err(error) => refusal(&format!(
            "not understood: {error}; are both of one version?"
        )),
        Ok(Ask::Command { line, patience_s }) => {
            match hub.command(&line, Duration::from_secs(patience_s)) {
                Ok(event) => json!({"ok": event.flag("ok"), "text": event.text("text"),
                    "answer": event.value()}),
                Err(why) => refusal(&why),
            }
        }
        Ok(Ask::Raise { words, patience_s }) => {
            match hub.raise(&words, Duration::from_secs(patience_s)) {
                Ok(line) => json!({"ok": true, "text": line}),
                Err(why) => refusal(&why),
            }
        }
        Ok(Ask::Log { past, follow }) => return log(hub, stream, past, follow),
        Ok(Ask::Console { name }) => return console(hub, stream, &name, lines),
    };
    let _ = send(stream, &out);
}

fn refusal(why: &str) -> Value {
    json!({"ok": false, "text": why})
}

fn send(mut stream: &UnixStream, value: &Value) -> std::io::Result<()> {
    stream.write_all(format!("{value}\n").as_bytes())
}

/// A record for programs; `words` are for people.
pub(crate) fn record(hub: &Hub, record: &Record) -> Value {
    match record {
        Record::Event(event) => {
            let words = hub.with(|model| model.sentence(event));
            json!({"kind": "event", "event": event.value(), "words": words})
        }
        Record::Line { name, text } => json!({"kind": "line", "name": name, "text": text}),
        Record::Plain(text) => json!({"kind": "plain", "text": text}),
        Record::Firmware(line) => json!({"kind": "firmware", "text": line.raw}),
        Record::SecurePlain(text) => json!({"kind": "firmware", "text": text}),
        Record::Qemu(text) => json!({"kind": "qemu", "text": text}),
    }
}

fn log(hub: &Hub, stream: &UnixStream, past: usize, follow: bool) {
    if send(stream, &json!({"ok": true, "text": ""})).is_err() {
        return;
    }
    if !follow {
        let records = hub.history(past);
        // A reader that went away ends it.
        let _ = records
            .iter()
            .try_for_each(|one| send(stream, &record(hub, one)));
        return;
    }
    for message in hub.listen_away(past) {
        let out = match message {
            Message::Record(one) => record(hub, &one),
            Message::Bytes { .. } => continue,
            Message::Ended(why) => json!({"kind": "end", "text": why}),
        };
        if send(stream, &out).is_err() {
            return;
        }
    }
}

fn console(
    hub: &Arc<Hub>,
    stream: &UnixStream,
    name: &str,
    typed: impl Iterator<Item = std::io::Result<String>> + Send + 'static,
) {
    let standing = hub.with(|model| model.find(name).map(|one| one.line.unfinished()));
    let Some(standing) = standing else {
        let why = format!("there is no partition \"{name}\": `firebreak ps` lists them");
        let _ = send(stream, &refusal(&why));
        return;
    };
    let heard = hub.listen_away(0);
    if send(stream, &json!({"ok": true, "text": standing})).is_err() {
        return;
    }
    if let Ok(second) = stream.try_clone() {
        let (hub, name) = (Arc::clone(hub), name.to_owned());
        thread::spawn(move || type_lines(&hub, &name, typed, &second));
    }
    show(stream, name, &heard);
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

fn type_lines(
    hub: &Hub,
    name: &str,
    typed: impl Iterator<Item = std::io::Result<String>>,
    stream: &UnixStream,
) {
    for line in typed.map_while(Result::ok) {
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        let bytes = to_bytes(value["in"].as_str().unwrap_or(""));
        if let Err(why) = hub.type_into(name, &bytes) {
            let _ = send(stream, &json!({"refused": why}));
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

fn show(stream: &UnixStream, name: &str, heard: &Receiver<Message>) {
    for message in heard {
        let out = match message {
            Message::Bytes {
                name: of,
                mut bytes,
                newline,
            } if of == name => {
                if newline {
                    bytes.push(b'\n');
                }
                json!({ "out": to_text(&bytes) })
            }
            Message::Ended(why) => json!({ "end": why }),
            _ => continue,
        };
        if send(stream, &out).is_err() {
            return;
        }
    }
}

/// Connects to a session, and asks.
pub(crate) fn connect(path: &Path, ask: &Ask) -> Result<UnixStream, String> {
    let told = |error: std::io::Error| {
        format!(
            "no running system at {}: {error}; start one with `firebreak run`, or say which with \
             --socket",
            path.display()
        )
    };
    let owner = std::fs::metadata(path).map_err(told)?.uid();
    if owner != own_uid() {
        return Err(format!(
            "{} belongs to another user; say which with --socket",
            path.display()
        ));
    }
    let stream = UnixStream::connect(path).map_err(told)?;
    send(&stream, &json!(ask)).map_err(told)?;
    Ok(stream)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The middle of a running session: lines in, everybody who listens, commands out.
//!
//! A command's answer comes over the line that everything shares, so it may be lost. Whoever asks
//! waits for a bounded time, and is told what is known then. Only what changes nothing is asked
//! again by itself.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use firebreak_qemu::{Demux, Event, Item, Record};
use firebreak_wire::{COMMAND, COMMAND_BYTES, ESCAPE};

use super::link::Wire;
use super::model::Model;

/// How many records a late listener can still have.
const HISTORY: usize = 10_000;
/// How far a listener over the socket may fall behind.
const BEHIND: usize = 8192;
/// How often a question is asked.
const TRIES: u32 = 3;

/// What listeners get.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// Something whole.
    Record(Record),
    /// Bytes of a console as they came.
    Bytes {
        name: String,
        bytes: Vec<u8>,
        newline: bool,
    },
    /// No more will come, and why.
    Ended(String),
}

enum Listener {
    /// Of this process: gets everything.
    Here(Sender<Message>),
    /// Over the socket: is dropped when it falls behind.
    Away(SyncSender<Message>),
}

impl Listener {
    fn tell(&self, message: &Message) -> bool {
        match self {
            Self::Here(sender) => sender.send(message.clone()).is_ok(),
            Self::Away(sender) => sender.try_send(message.clone()).is_ok(),
        }
    }
}

#[derive(Default)]
struct State {
    model: Model,
    history: VecDeque<Record>,
    listeners: Vec<Listener>,
    ended: Option<String>,
}

impl State {
    fn tell(&mut self, message: &Message) {
        if let Message::Record(record) = message {
            if self.history.len() >= HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(record.clone());
        }
        self.listeners.retain(|listener| listener.tell(message));
    }
}

/// A running session.
pub(crate) struct Hub {
    state: Mutex<State>,
    shared: Mutex<Box<dyn Write + Send>>,
    firmware: Option<Mutex<Box<dyn Write + Send>>>,
    /// Number of the last command; held while one waits for its answer.
    turn: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Listens to the lines from now on. Commands are numbered from `first` on.
    pub(crate) fn start(shared: Wire, firmware: Option<Wire>, first: u64) -> Arc<Self> {
        let (reader, second) = match firmware {
            None => (None, None),
            Some(Wire { reader, writer }) => (Some(reader), Some(Mutex::new(writer))),
        };
        let hub = Arc::new(Self {
            state: Mutex::default(),
            shared: Mutex::new(shared.writer),
            firmware: second,
            turn: Mutex::new(first),
        });
        let listening = Arc::clone(&hub);
        thread::spawn(move || listening.follow_shared(shared.reader));
        if let Some(reader) = reader {
            let listening = Arc::clone(&hub);
            thread::spawn(move || listening.follow_firmware(reader));
        }
        hub
    }

    fn follow_shared(&self, mut reader: Box<dyn Read + Send>) {
        let mut demux = Demux::new();
        let mut buffer = [0; 4096];
        let mut items = Vec::new();
        let why = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break "the machine ended its serial line".to_owned(),
                Ok(len) => demux.push(buffer.get(..len).unwrap_or(&[]), &mut items),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break format!("the serial line is gone: {error}"),
            }
            items.drain(..).for_each(|item| self.take(&item));
        };
        demux.finish(&mut items);
        items.drain(..).for_each(|item| self.take(&item));
        self.end(&why);
    }

    fn take(&self, item: &Item) {
        let mut state = lock(&self.state);
        if let Item::Console {
            name,
            bytes,
            newline,
        } = item
        {
            state.tell(&Message::Bytes {
                name: name.clone(),
                bytes: bytes.clone(),
                newline: *newline,
            });
        }
        if let Some(record) = state.model.take(item) {
            state.tell(&Message::Record(record));
        }
    }

    fn follow_firmware(&self, reader: Box<dyn Read + Send>) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let mut state = lock(&self.state);
            let text = String::from_utf8_lossy(&line);
            if let Some(record) = state.model.take_firmware(text.trim_end()) {
                state.tell(&Message::Record(record));
            }
            line.clear();
        }
    }

    /// Ends the session for everybody who listens.
    pub(crate) fn end(&self, why: &str) {
        let mut state = lock(&self.state);
        if state.ended.is_none() {
            state.ended = Some(why.to_owned());
            state.tell(&Message::Ended(why.to_owned()));
        }
        state.listeners.clear();
    }

    /// Listens, in this process.
    pub(crate) fn listen(&self) -> Receiver<Message> {
        let (sender, receiver) = mpsc::channel();
        self.add(Listener::Here(sender), 0);
        receiver
    }

    /// Listens over the socket, beginning with the last `past` records.
    pub(crate) fn listen_away(&self, past: usize) -> Receiver<Message> {
        let (sender, receiver) = mpsc::sync_channel(BEHIND + HISTORY);
        self.add(Listener::Away(sender), past);
        receiver
    }

    fn add(&self, listener: Listener, past: usize) {
        let mut state = lock(&self.state);
        let skipped = state.history.len().saturating_sub(past);
        for record in state.history.iter().skip(skipped) {
            listener.tell(&Message::Record(record.clone()));
        }
        match &state.ended {
            Some(why) => drop(listener.tell(&Message::Ended(why.clone()))),
            None => state.listeners.push(listener),
        }
    }

    /// Returns the last `past` records.
    pub(crate) fn history(&self, past: usize) -> Vec<Record> {
        let state = lock(&self.state);
        let skipped = state.history.len().saturating_sub(past);
        state.history.iter().skip(skipped).cloned().collect()
    }

    /// Looks at what is known.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&lock(&self.state).model)
    }

    /// Types bytes on a partition's console.
    pub(crate) fn type_into(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let vm = self
            .with(|model| model.find(name).map(|one| one.vm))
            .ok_or_else(|| {
                format!("there is no partition \"{name}\": `firebreak ps` lists them")
            })?;
        let digit = vm
            .and_then(|vm| u8::try_from(vm).ok())
            .filter(|vm| *vm < 10);
        let digit = digit.ok_or_else(|| {
            format!("the number of \"{name}\" is not known yet; `firebreak ps` asks for it")
        })?;
        let mut typed = vec![ESCAPE, b'0' + digit];
        for byte in bytes {
            if *byte == ESCAPE {
                typed.push(ESCAPE);
            }
            typed.push(*byte);
        }
        self.send(&typed)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), String> {
        let mut shared = lock(&self.shared);
        let sent = shared.write_all(bytes).and_then(|()| shared.flush());
        sent.map_err(|error| format!("the serial line cannot be written: {error}"))
    }

    /// Sends the hypervisor a command, and waits for its answer.
    ///
    /// # Errors
    ///
    /// When none came, with what to do.
    pub(crate) fn command(&self, line: &str, patience: Duration) -> Result<Event, String> {
        let printable = line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        // " id=" and a number of 20 digits.
        if !printable || line.len() + 24 > COMMAND_BYTES {
            return Err("a command is printable ASCII, and at most 103 characters".to_owned());
        }
        // A piece of an image that came before is known by its place.
        let asks = matches!(
            line.split(' ').next(),
            Some("ps" | "stats" | "log" | "data")
        );
        let mut turn = lock(&self.turn);
        for attempt in 1..=TRIES {
            *turn += 1;
            let id = *turn;
            let heard = self.listen();
            let mut bytes = vec![ESCAPE, COMMAND];
            bytes.extend(format!("{line} id={id}\n").bytes());
            self.send(&bytes)?;
            let answer = wait(&heard, patience, |record| is_answer(record, id))?;
            match answer {
                // The hypervisor says that it did not even understand it: nothing was done.
                Some(event) if damaged(&event) && attempt < TRIES => {}
                Some(event) => return Ok(event),
                None if asks && attempt < TRIES => {}
                None => break,
            }
        }
        Err(no_answer(line, patience, asks))
    }

    /// Asks the firmware to raise an error; `words` are those of its line, without `id=`.
    ///
    /// # Errors
    ///
    /// When there is no firmware, it refuses, or says nothing.
    pub(crate) fn raise(&self, words: &str, patience: Duration) -> Result<String, String> {
        let Some(firmware) = &self.firmware else {
            return Err(
                "this system has no line to the firmware: start it with --firmware FW.bin, \
                        or --firmware-serial for a board with a second port"
                    .to_owned(),
            );
        };
        if !words.bytes().all(|byte| matches!(byte, b' '..=b'~')) || words.len() > 200 {
            return Err("an error is described in printable ASCII, at most 200 characters".into());
        }
        let mut turn = lock(&self.turn);
        *turn += 1;
        let id = *turn;
        let heard = self.listen();
        let mut line = lock(firmware);
        let sent = line.write_all(format!("raise id={id} {words}\n").as_bytes());
        sent.map_err(|error| format!("the firmware's line cannot be written: {error}"))?;
        drop(line);
        let told = |record: &Record| match record {
            Record::Firmware(line) => match line.verb.as_str() {
                "raised" if line.num("id") == Some(id) => Some(Ok(line.raw.clone())),
                "error" if line.num("id").is_none_or(|of| of == id) => {
                    let why = line.text("text").unwrap_or("").replace('-', " ");
                    Some(Err(format!("the firmware refused: {why}")))
                }
                _ => None,
            },
            _ => None,
        };
        wait(&heard, patience, told)?.unwrap_or_else(|| {
            Err(format!(
                "the firmware said nothing of it within {} s; its PE may not have come to it yet",
                patience.as_secs()
            ))
        })
    }
}

fn no_answer(line: &str, patience: Duration, asks: bool) -> String {
    let seconds = patience.as_secs();
    if asks {
        return format!(
            "no answer to `{line}`, asked {TRIES} times, {seconds} s each: the hypervisor does not \
             listen, or the serial line loses too much (speed? cable?)"
        );
    }
    format!(
        "no answer to `{line}` within {seconds} s: the line lost the command or its answer; `ps` \
         tells what is so now, then say it again if it was not done"
    )
}

fn damaged(event: &Event) -> bool {
    let text = event.text("text").unwrap_or("");
    event.flag("ok") == Some(false) && text.contains("the line is damaged")
}

/// Only one command waits at a time: a refusal without a number is of a line that lost its own.
fn is_answer(record: &Record, id: u64) -> Option<Event> {
    let event = record.event("answer")?;
    let ours = match event.num("id") {
        Some(of) => of == id,
        None => event.flag("ok") == Some(false),
    };
    ours.then(|| event.clone())
}

/// Waits until `look` finds something; `None` when time is over.
fn wait<T>(
    heard: &Receiver<Message>,
    patience: Duration,
    look: impl Fn(&Record) -> Option<T>,
) -> Result<Option<T>, String> {
    let end = Instant::now() + patience;
    loop {
        match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Message::Record(record)) => {
                if let Some(found) = look(&record) {
                    return Ok(Some(found));
                }
            }
            Ok(Message::Bytes { .. }) => {}
            Ok(Message::Ended(why)) => return Err(why),
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err("the session ended".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::os::unix::net::UnixStream;

    const PATIENCE: Duration = Duration::from_secs(60);
    /// For what never comes.
    const SHORT: Duration = Duration::from_millis(20);

    fn wire() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = Wire {
            reader: Box::new(ours.try_clone().unwrap()),
            writer: Box::new(ours),
        };
        (wire, theirs)
    }

    /// A hypervisor that answers each command with the next of `answers`; `ID` is its number.
    fn fake(
        answers: &'static [&'static str],
    ) -> (Arc<Hub>, thread::JoinHandle<(Vec<String>, UnixStream)>) {
        let (wire, theirs) = wire();
        let hub = Hub::start(wire, None, 0);
        let machine = thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut commands = Vec::new();
            for (answer, line) in answers.iter().zip(BufReader::new(theirs).lines()) {
                let line = line.unwrap();
                let id = line.rsplit_once('=').unwrap().1.to_owned();
                writer
                    .write_all(answer.replace("ID", &id).as_bytes())
                    .unwrap();
                commands.push(line);
            }
            // The line stays open until somebody looks at what came.
            (commands, writer)
        });
        (hub, machine)
    }

    const DONE: &str =
        "\x1e{\"v\":1,\"t\":1,\"ev\":\"answer\",\"id\":ID,\"ok\":true,\"text\":\"\"}\n";

    #[test]
    fn a_lost_answer_to_a_question_is_asked_for_again() {
        let (hub, machine) = fake(&["\x1e{\"v\":1,\"t\"", DONE]);
        let answer = hub.command("ps", Duration::from_secs(2)).unwrap();
        assert_eq!(answer.num("id"), Some(2));
        assert_eq!(machine.join().unwrap().0, ["\x01:ps id=1", "\x01:ps id=2"]);
    }

    #[test]
    fn what_changes_something_is_not_done_twice() {
        let (hub, machine) = fake(&["noise\n"]);
        let why = hub.command("inject a vcpu=0 serror", SHORT).unwrap_err();
        assert!(why.contains("`ps` tells what is so now"), "{why}");
        assert_eq!(machine.join().unwrap().0.len(), 1);
        // Unless the hypervisor says that it did nothing.
        const DAMAGED: &str = "\x1e{\"v\":1,\"t\":1,\"ev\":\"answer\",\"id\":null,\"ok\":false,\
            \"text\":\"the line is damaged; send it again\"}\n";
        let (hub, machine) = fake(&[DAMAGED, DONE]);
        assert!(hub.command("stop a", PATIENCE).is_ok());
        assert_eq!(machine.join().unwrap().0.len(), 2);
    }

    #[test]
    fn noise_before_an_answer_is_shown_and_harms_nothing() {
        let (hub, machine) = fake(&[
            "\x00\u{9b}\x1b[2J\nlinux| hi\n\x1e{\"v\":1\n\x1e{\"v\":1,\"t\":1,\
            \"ev\":\"answer\",\"id\":ID,\"ok\":true,\"text\":\"\"}\n",
        ]);
        assert!(hub.command("stats", PATIENCE).is_ok());
        machine.join().unwrap();
        let lines: Vec<_> = hub.history(9).iter().map(ToString::to_string).collect();
        assert!(lines.contains(&"linux| hi".to_owned()), "{lines:?}");
        assert!(!lines.concat().contains('\x1b'));
    }

    #[test]
    fn nobody_can_smuggle_a_second_command() {
        let (hub, _machine) = fake(&[]);
        for line in ["ps\n\x01:stop a", "stop \u{e9}", &"x".repeat(200)] {
            assert!(hub.command(line, SHORT).is_err());
        }
        assert!(hub.raise("pe=0\nraise", SHORT).is_err());
    }

    #[test]
    fn a_line_that_ends_is_told_to_who_waits_and_to_who_comes_later() {
        let (wire, theirs) = wire();
        let hub = Hub::start(wire, None, 0);
        let heard = hub.listen();
        drop(theirs);
        assert!(matches!(heard.recv(), Ok(Message::Ended(_))));
        assert!(matches!(hub.listen().recv(), Ok(Message::Ended(_))));
        assert!(hub.command("ps", PATIENCE).is_err());
    }

    #[test]
    fn typing_goes_to_the_partition_that_is_named() -> io::Result<()> {
        let (wire, mut theirs) = wire();
        let hub = Hub::start(wire, None, 0);
        let heard = hub.listen();
        theirs.write_all(
            b"\x1e{\"v\":1,\"t\":1,\"ev\":\"started\",\"vm\":2,\"name\":\"b\",\"restarts\":0}\n",
        )?;
        heard.recv().unwrap();
        hub.type_into("b", b"x\x01y").unwrap();
        assert!(hub.type_into("c", b"x").unwrap_err().contains("\"c\""));
        let mut bytes = [0; 6];
        theirs.read_exact(&mut bytes)?;
        assert_eq!(&bytes, b"\x012x\x01\x01y");
        Ok(())
    }
}

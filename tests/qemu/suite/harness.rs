// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the cases share: images made once, machines described in a word, and waits in a line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use firebreak_image::Options;
pub(crate) use firebreak_qemu::field;
use firebreak_qemu::{Event, Machine, Mark, Raise, Record, Running};
use libtest_mimic::{Failed, Trial};

/// What a case returns.
pub(crate) type Outcome = Result<(), Failed>;

/// How long a case waits for one thing, in seconds of an idle host.
const PATIENCE_S: u64 = 90;

/// Makes a trial.
pub(crate) fn trial(
    name: impl Into<String>,
    run: impl FnOnce() -> Outcome + Send + 'static,
) -> Trial {
    Trial::test(name, run)
}

/// Makes a failure out of anything that can be shown.
pub(crate) fn failed(error: impl std::fmt::Display) -> Failed {
    Failed::from(error.to_string())
}

pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Returns where `cargo xtask build` put everything.
pub(crate) fn out() -> PathBuf {
    workspace().join("target/firebreak")
}

/// Returns the image of a system, `tests/qemu/systems/<name>.toml` (or the demo's), and makes it
/// the first time.
pub(crate) fn image(system: &str) -> Result<PathBuf, Failed> {
    static MADE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = made.get(system) {
        return Ok(path.clone());
    }
    let file = match system {
        "demo" => workspace().join("guest-images/demo/firebreak.toml"),
        _ => workspace()
            .join("tests/qemu/systems")
            .join(format!("{system}.toml")),
    };
    let options = Options {
        payloads: Some(out()),
        hypervisor: Some(out().join("hypervisor.bin")),
    };
    let built = firebreak_image::build(&file, &options)
        .map_err(|error| Failed::from(format!("{error:?}")))?;
    let dir = out().join("systems");
    fs::create_dir_all(&dir).map_err(failed)?;
    let path = dir.join(format!("{system}.img"));
    // Another run of the suite may be loading the same image: it sees the old one or the new one.
    let new = dir.join(format!("{system}.{}.new", std::process::id()));
    fs::write(&new, built.bytes).map_err(failed)?;
    fs::rename(&new, &path).map_err(failed)?;
    made.insert(system.to_owned(), path.clone());
    Ok(path)
}

/// Describes a machine without firmware.
pub(crate) fn bare(system: &str) -> Result<Machine, Failed> {
    Ok(Machine::new(image(system)?))
}

/// Describes a machine with the reference firmware.
pub(crate) fn with_firmware(system: &str) -> Result<Machine, Failed> {
    Ok(bare(system)?.firmware(out().join("firmware.bin")))
}

/// A machine in a case.
pub(crate) struct Case {
    /// The machine.
    pub(crate) machine: Running,
    mark: Mark,
    commands: u64,
}

impl Case {
    /// Starts a machine.
    pub(crate) fn start(machine: Machine) -> Result<Self, Failed> {
        Ok(Self {
            machine: machine.start().map_err(failed)?,
            mark: Mark::START,
            commands: 0,
        })
    }

    /// From here on only what comes next counts.
    pub(crate) fn forget(&mut self) {
        self.mark = self.machine.mark();
    }

    /// Returns where what counts begins.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Returns all that counts.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.machine.since(self.mark)
    }

    /// Returns all records since the machine was started.
    pub(crate) fn all_records(&self) -> Vec<Record> {
        self.machine.since(Mark::START)
    }

    /// Returns how long a case waits for one thing.
    pub(crate) fn patience() -> Duration {
        firebreak_qemu::deadline(PATIENCE_S)
    }

    /// Waits for a record.
    pub(crate) fn wait(
        &self,
        what: &str,
        wanted: impl FnMut(&Record) -> bool,
    ) -> Result<Record, Failed> {
        self.machine
            .wait_for(what, self.mark, Self::patience(), wanted)
            .map_err(failed)
    }

    /// Waits for an event that fits.
    pub(crate) fn event(
        &self,
        name: &str,
        mut fits: impl FnMut(&Event) -> bool,
    ) -> Result<Event, Failed> {
        let what = format!("a fitting event `{name}`");
        let record = self.wait(&what, |record| record.event(name).is_some_and(&mut fits))?;
        record.event(name).cloned().ok_or_else(|| failed(what))
    }

    /// Waits for a partition's event of that name.
    pub(crate) fn event_of(&self, name: &str, partition: &str) -> Result<Event, Failed> {
        self.event(name, |event| event.text("name") == Some(partition))
    }

    /// Waits for a line of a partition that starts so.
    pub(crate) fn line(&self, partition: &str, start: &str) -> Result<String, Failed> {
        self.lines(partition, start, 1)
            .map(|mut lines| lines.pop().unwrap_or_default())
    }

    /// Waits for lines of a partition that start so, and returns the first of them.
    pub(crate) fn first_line(&self, partition: &str, start: &str) -> Result<String, Failed> {
        self.lines(partition, start, 1)
            .map(|lines| lines.into_iter().next().unwrap_or_default())
    }

    /// Waits for so many lines of a partition that start so, and returns them.
    pub(crate) fn lines(
        &self,
        partition: &str,
        start: &str,
        count: usize,
    ) -> Result<Vec<String>, Failed> {
        let what = format!("{count} lines `{start}...` of {partition}");
        let found = self
            .machine
            .wait_until(&what, self.mark, Self::patience(), |records| {
                let lines: Vec<String> = records
                    .iter()
                    .filter_map(|record| record.line(partition))
                    .filter(|line| line.starts_with(start))
                    .map(str::to_owned)
                    .collect();
                (lines.len() >= count).then_some(lines)
            });
        found.map_err(failed)
    }

    /// Returns every line of a partition that begins so, since the machine was started.
    pub(crate) fn said_ever(&self, partition: &str, start: &str) -> Vec<String> {
        let records = self.all_records();
        let lines = records.iter().filter_map(|record| record.line(partition));
        lines
            .filter(|line| line.starts_with(start))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line of the hypervisor, or noise, that contains `part`.
    pub(crate) fn plain(&self, part: &str) -> Result<String, Failed> {
        let what = format!("a line of the hypervisor with `{part}`");
        let record = self.wait(&what, |record| match record {
            Record::Plain(text) => text.contains(part),
            _ => false,
        })?;
        Ok(record.to_string())
    }

    /// Waits for the firmware to say something of an error.
    pub(crate) fn firmware(&self, verb: &str, id: u64) -> Outcome {
        let what = format!("`fw: {verb} id={id}`");
        self.wait(&what, |record| {
            record
                .firmware(verb)
                .is_some_and(|line| line.num("id") == Some(id))
        })
        .map(drop)
    }

    /// Sends the hypervisor a command, and waits for its answer.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Event, Failed> {
        self.commands += 1;
        let id = self.commands;
        self.machine.send_command(id, command).map_err(failed)?;
        self.answer(id, command)
    }

    /// Waits for the answer to a command that was sent.
    pub(crate) fn answer(&self, id: u64, command: &str) -> Result<Event, Failed> {
        let what = format!("the answer {id} to `{command}`");
        let record = self.wait(&what, |record| {
            record
                .event("answer")
                .is_some_and(|event| event.num("id") == Some(id))
        })?;
        record.event("answer").cloned().ok_or_else(|| failed(what))
    }

    /// Sends a command, and holds that it is done.
    pub(crate) fn order(&mut self, command: &str) -> Result<Event, Failed> {
        let answer = self.ask(command)?;
        let ok = answer.value().get("ok") == Some(&serde_json::Value::Bool(true));
        self.hold(ok, &format!("`{command}` to be done"))?;
        Ok(answer)
    }

    /// Sends a command, and holds that it is refused for a reason with `part` in it.
    pub(crate) fn refused(&mut self, command: &str, part: &str) -> Outcome {
        let answer = self.ask(command)?;
        let no = answer.value().get("ok") == Some(&serde_json::Value::Bool(false));
        let why = answer.text("text").is_some_and(|text| text.contains(part));
        self.hold(
            no && why,
            &format!("`{command}` to be refused with `{part}`"),
        )
    }

    /// Makes a vCPU take an error by a command, and returns the identity of the injection.
    pub(crate) fn inject(&mut self, what: &str) -> Result<u64, Failed> {
        let answer = self.order(&format!("inject {what}"))?;
        answer
            .num("inj")
            .ok_or_else(|| failed("the answer names no injection"))
    }

    /// Waits until an injection is told to have come so far.
    pub(crate) fn injection(&self, inj: u64, state: &str) -> Result<Event, Failed> {
        self.event("vserror", |event| {
            event.num("inj") == Some(inj) && event.text("state") == Some(state)
        })
    }

    /// Raises an error, and waits until the firmware has done so.
    pub(crate) fn raise(&mut self, raise: &Raise) -> Outcome {
        self.machine.send_raise(raise).map_err(failed)?;
        self.firmware("raised", raise.id)
    }

    /// Holds that there was no event of that name, of anybody.
    pub(crate) fn never(&self, name: &str) -> Outcome {
        match self.records().iter().find_map(|record| record.event(name)) {
            None => Ok(()),
            Some(event) => Err(failed(self.machine.explain(
                &format!("no event `{name}`"),
                &format!("there was {}", event.value()),
            ))),
        }
    }

    /// Holds something that is seen in what was said so far.
    pub(crate) fn hold(&self, holds: bool, what: &str) -> Outcome {
        if holds {
            Ok(())
        } else {
            Err(failed(self.machine.explain(what, "it is not so")))
        }
    }

    /// Waits until the hypervisor runs, and returns the partitions' numbers, PEs and memory.
    pub(crate) fn partitions(&self, count: usize) -> Result<Vec<Event>, Failed> {
        let what = format!("{count} partitions");
        let found = self
            .machine
            .wait_until(&what, self.mark, Self::patience(), |records| {
                let events: Vec<Event> = records
                    .iter()
                    .filter_map(|record| record.event("partition"))
                    .cloned()
                    .collect();
                (events.len() >= count).then_some(events)
            });
        found.map_err(failed)
    }

    /// Returns where in the machine's memory a partition's address is.
    pub(crate) fn pa_of(&self, partition: &str, ipa: u64) -> Result<u64, Failed> {
        let is_it = |event: &Event| event.text("name") == Some(partition);
        // Said at boot, which may be forgotten by now.
        let record = self
            .machine
            .wait_for(partition, Mark::START, Self::patience(), |record| {
                record.event("partition").is_some_and(is_it)
            })
            .map_err(failed)?;
        let event = record.event("partition").ok_or("no event")?;
        let hex = |piece: &serde_json::Value, key: &str| {
            u64::from_str_radix(piece.get(key)?.as_str()?.strip_prefix("0x")?, 16).ok()
        };
        let pieces = event.value().get("ram").and_then(|ram| ram.as_array());
        pieces
            .into_iter()
            .flatten()
            .find_map(|piece| {
                let (start, len) = (hex(piece, "ipa")?, hex(piece, "len")?);
                let offset = ipa.checked_sub(start).filter(|offset| *offset < len)?;
                Some(hex(piece, "pa")? + offset)
            })
            .ok_or_else(|| failed(format!("{partition} has no memory at {ipa:#x}")))
    }
}

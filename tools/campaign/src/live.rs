// SPDX-License-Identifier: MIT OR Apache-2.0
//! One machine of a campaign: booted once, brought back to a starting point again and again.

use std::path::Path;
use std::time::{Duration, Instant};

use firebreak_qemu::{Event, Machine, Mark, Record, Running, deadline};
use firebreak_report::Reset;

use crate::plan::{Guest, Moment, ResetChoice, Typed};
use crate::scratch;
use crate::words::missed_ticks;

/// How long a machine may take for one thing that it was asked, in seconds of an idle host.
const PATIENCE_S: u64 = 90;
/// A restart is not worth being measured if booting takes longer than this.
const QUICK_BOOT: Duration = Duration::from_secs(1);
/// How long an answer may be on its way when a case is over.
const SETTLES: Duration = Duration::from_secs(2);
/// How long one PE may run while another one's interrupt waits, if QEMU runs them in turns. What a
/// bystander is late beyond that is not QEMU's doing.
const TURNS_US: u32 = 20;
/// Machine's time in which a guest comes back from printing that it is where a moment wants it.
const COMES_BACK_NS: u64 = 20_000_000;
/// The log of a machine grows; another one is booted after so many cases.
const MOST_CASES: u32 = 2000;

/// A partition, as the hypervisor told it at boot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition {
    pub(crate) vm: u64,
    pub(crate) pes: Vec<u8>,
    /// IPA, PA and length of each piece of its memory.
    pub(crate) ram: Vec<(u64, u64, u64)>,
}

impl Partition {
    fn of(event: &Event) -> Self {
        let value = event.value();
        let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
        let hex = |piece: &serde_json::Value, key: &str| {
            let text = piece[key].as_str().unwrap_or("");
            u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
        };
        let pes = list("pes");
        let pes = pes.iter().filter_map(|pe| u8::try_from(pe.as_u64()?).ok());
        let ram = list("ram");
        let ram = ram.iter();
        Self {
            vm: event.num("vm").unwrap_or(0),
            pes: pes.collect(),
            ram: ram
                .map(|piece| (hex(piece, "ipa"), hex(piece, "pa"), hex(piece, "len")))
                .collect(),
        }
    }

    /// Returns where an address of the guest is in the machine's memory.
    pub(crate) fn pa_of(&self, ipa: u64) -> Option<u64> {
        self.ram.iter().find_map(|(start, pa, len)| {
            let offset = ipa.checked_sub(*start).filter(|offset| offset < len)?;
            Some(pa + offset)
        })
    }
}

/// A machine that runs.
pub(crate) struct Live {
    pub(crate) running: Running,
    pub(crate) mark: Mark,
    pub(crate) partition: Partition,
    /// Ticks that the bystander had missed when the case began.
    pub(crate) missed_before: u64,
    guest: Guest,
    commands: u64,
    /// The last command that was sent, and when.
    asked: Option<(u64, Mark)>,
    reset: Reset,
    /// What measuring the ways to reset said.
    pub(crate) measured: String,
    /// Moments whose starting point is kept.
    kept: Vec<usize>,
    cases: u32,
    spoiled: bool,
}

impl Live {
    /// Boots, waits until the guest is up, and chooses how to come back here.
    pub(crate) fn boot(
        image: &Path,
        firmware: Option<&Path>,
        guest: &Guest,
        choice: ResetChoice,
        states: &Path,
    ) -> Result<Self, String> {
        let started = Instant::now();
        let cpu = match guest.icount {
            true => guest.cpu.clone(),
            // One tick is one nanosecond, with or without counting instructions.
            false => format!("{},cntfrq=1000000000", guest.cpu),
        };
        let mut machine = Machine::new(image)
            .cpu(&cpu)
            .smp(guest.smp)
            .memory_mib(guest.memory_mib)
            .icount(guest.icount)
            .turns_us(TURNS_US)
            .debugger();
        if let Some(firmware) = firmware {
            machine = machine.firmware(firmware);
        }
        let states_written = scratch::write(states);
        if states_written.is_ok() {
            let drive = format!(
                "if=none,format=qcow2,id=states,cache=unsafe,file={}",
                states.display()
            );
            machine = machine.args(["-drive".to_owned(), drive]);
        }
        let running = machine.start().map_err(|error| error.to_string())?;
        let mut live = Self {
            running,
            mark: Mark::START,
            partition: Partition::default(),
            missed_before: 0,
            guest: guest.clone(),
            commands: 0,
            asked: None,
            reset: Reset::Cold,
            measured: String::new(),
            kept: Vec::new(),
            cases: 0,
            spoiled: false,
        };
        live.wait_ready(Mark::START)?;
        live.meet()?;
        live.choose(choice, started.elapsed())?;
        Ok(live)
    }

    /// Says whether the next case needs another machine.
    pub(crate) fn is_worn(&self) -> bool {
        self.spoiled || self.cases >= MOST_CASES || self.reset == Reset::Cold && self.cases > 0
    }

    /// What happened cannot be undone by a restart of the partition.
    pub(crate) fn spoil(&mut self) {
        self.spoiled = self.spoiled || self.reset != Reset::Snapshot;
    }

    fn patience() -> Duration {
        deadline(PATIENCE_S)
    }

    fn wait_ready(&self, from: Mark) -> Result<(), String> {
        let (name, start) = (&self.guest.partition, &self.guest.ready);
        let what = format!("a line of {name} that starts with \"{start}\"");
        let mut halted = None;
        let found = self
            .running
            .wait_for(&what, from, Self::patience(), |record| {
                if let Some(event) = record.event("halt") {
                    halted = event.text("text").map(str::to_owned);
                }
                halted.is_some()
                    || record
                        .line(name)
                        .is_some_and(|line| line.starts_with(start))
            });
        match (found, halted) {
            (_, Some(why)) => Err(format!("the hypervisor refuses to run: {why}")),
            (Ok(_), None) => Ok(()),
            (Err(failure), None) => Err(failure.to_string()),
        }
    }

    /// Learns what the hypervisor told of the partition at boot.
    fn meet(&mut self) -> Result<(), String> {
        let records = self.running.since(Mark::START);
        let mut told = records
            .iter()
            .filter_map(|record| record.event("partition"));
        let ours = told.find(|event| event.text("name") == Some(&self.guest.partition));
        let ours = ours.ok_or("the hypervisor told of no such partition at boot")?;
        self.partition = Partition::of(ours);
        Ok(())
    }

    /// Chooses how to come back, by trying.
    fn choose(&mut self, choice: ResetChoice, boot: Duration) -> Result<(), String> {
        let snapshot = match choice {
            ResetChoice::Auto | ResetChoice::Snapshot => Some(self.try_snapshot()),
            ResetChoice::Restart | ResetChoice::Cold => None,
        };
        let restart = match (choice, &snapshot) {
            (ResetChoice::Restart, _) | (ResetChoice::Auto, Some(Err(_))) => true,
            (ResetChoice::Auto, _) => boot < QUICK_BOOT,
            _ => false,
        };
        let restart = restart.then(|| self.try_restart());
        self.reset = match (&snapshot, &restart) {
            (Some(Ok(load)), Some(Ok(again))) if load > again => Reset::Restart,
            (Some(Ok(_)), _) => Reset::Snapshot,
            (_, Some(Ok(_))) => Reset::Restart,
            _ => Reset::Cold,
        };
        let told = |name: &str, tried: &Option<Result<Duration, String>>| match tried {
            Some(Ok(took)) => format!("{name} {:.1} ms", took.as_secs_f64() * 1e3),
            Some(Err(why)) => format!("{name} failed ({})", why.lines().next().unwrap_or("")),
            None => format!("{name} not tried"),
        };
        self.measured = format!(
            "boot {:.1} ms, {}, {}",
            boot.as_secs_f64() * 1e3,
            told("snapshot", &snapshot),
            told("restart", &restart)
        );
        match choice {
            ResetChoice::Snapshot if self.reset != Reset::Snapshot => Err(self.measured.clone()),
            _ => Ok(()),
        }
    }

    fn try_snapshot(&mut self) -> Result<Duration, String> {
        self.save("ready")?;
        let started = Instant::now();
        self.load("ready")?;
        self.barrier()?;
        Ok(started.elapsed())
    }

    fn try_restart(&mut self) -> Result<Duration, String> {
        let started = Instant::now();
        self.restart()?;
        self.barrier()?;
        // The state that was kept, if any, is from before: both are the guest at its start.
        Ok(started.elapsed())
    }

    fn save(&mut self, name: &str) -> Result<(), String> {
        let told = |error: firebreak_qemu::Error| error.to_string();
        self.running.stop().map_err(told)?;
        let saved = self.running.save_snapshot(name).map_err(told);
        self.running.go_on().map_err(told)?;
        saved
    }

    fn load(&mut self, name: &str) -> Result<(), String> {
        self.settle();
        let told = |error: firebreak_qemu::Error| error.to_string();
        self.running.stop().map_err(told)?;
        self.running.load_snapshot(name).map_err(told)?;
        self.running.go_on().map_err(told)
    }

    /// Waits for the answer to the last command, if one may still come. What of it is on the way into the
    /// line when an older state is restored would be typed into the guest of that state.
    fn settle(&mut self) {
        let Some((id, from)) = self.asked.take() else {
            return;
        };
        let is_it = |record: &Record| {
            let event = record.event("answer");
            event.is_some_and(|event| event.num("id") == Some(id))
        };
        // A machine that was reset or hangs answers nothing.
        let _ = self.running.wait_for("an answer", from, SETTLES, is_it);
    }

    fn restart(&mut self) -> Result<(), String> {
        let from = self.running.mark();
        let answer = self.ask(&format!("restart {}", self.guest.partition))?;
        if answer.flag("ok") != Some(true) {
            let why = answer.text("text").unwrap_or("").to_owned();
            return Err(format!("the partition cannot be restarted: {why}"));
        }
        // The life that ends may have said "ready" behind the command.
        let (name, start) = (&self.guest.partition, &self.guest.ready);
        let what = format!("{name} to start again and to say \"{start}\"");
        let look = |records: &[Record]| is_up_again(records, name, start).then_some(());
        let found = self.running.wait_until(&what, from, Self::patience(), look);
        found.map_err(|failure| failure.to_string())
    }

    /// Brings the machine to the starting point of a moment, and says how.
    pub(crate) fn return_to(&mut self, index: usize, moment: &Moment) -> Result<Reset, String> {
        self.cases += 1;
        let first = self.cases == 1;
        match self.reset {
            Reset::Snapshot => self.return_by_snapshot(index, moment)?,
            Reset::Restart => {
                self.restart()?;
                self.prepare(&moment.prepare)?;
            }
            Reset::Cold => self.prepare(&moment.prepare)?,
        }
        self.count_missed()?;
        self.barrier()?;
        Ok(match (first, self.reset) {
            (true, Reset::Restart) => Reset::Restart,
            (_, reset) => reset,
        })
    }

    /// What the bystander misses from here on is the case's: until now the machine was prepared, and
    /// stood still for its state to be kept.
    fn count_missed(&mut self) -> Result<(), String> {
        let Some(name) = &self.guest.bystander else {
            return Ok(());
        };
        let what = format!("a report of {name}");
        let missed = |record: &Record| missed_ticks(record.line(name)?);
        let from = self.running.mark();
        let found = self
            .running
            .wait_for(&what, from, Self::patience(), |record| {
                missed(record).is_some()
            });
        let record = found.map_err(|failure| failure.to_string())?;
        self.missed_before = missed(&record).unwrap_or(0);
        Ok(())
    }

    fn return_by_snapshot(&mut self, index: usize, moment: &Moment) -> Result<(), String> {
        let name = format!("moment{index}");
        if self.kept.contains(&index) {
            return self.load(&name);
        }
        self.load("ready")?;
        self.barrier()?;
        if moment.prepare.is_empty() {
            return Ok(());
        }
        self.prepare(&moment.prepare)?;
        if self.save(&name).is_ok() {
            self.kept.push(index);
        }
        Ok(())
    }

    /// Has the starting point of a moment made anew.
    pub(crate) fn forget(&mut self, index: usize) {
        self.kept.retain(|kept| *kept != index);
    }

    fn prepare(&mut self, steps: &[Typed]) -> Result<(), String> {
        for step in steps {
            let from = self.running.mark();
            if !step.text.is_empty() {
                self.type_text(&step.text)?;
            }
            if step.until.is_empty() {
                continue;
            }
            let (name, start) = (&self.guest.partition, &step.until);
            let what = format!("a line of {name} that starts with \"{start}\"");
            let is_it = |record: &Record| {
                record
                    .line(name)
                    .is_some_and(|line| line.starts_with(start))
            };
            let found = self.running.wait_for(&what, from, Self::patience(), is_it);
            found.map_err(|failure| failure.to_string())?;
        }
        match steps {
            [] => Ok(()),
            _ => self.let_it_come_back(),
        }
    }

    /// What the guest printed, it printed on its way.
    fn let_it_come_back(&mut self) -> Result<(), String> {
        let mut now_ns = || Ok::<_, String>(self.ask("ps")?.num("t").unwrap_or(u64::MAX));
        let end_ns = now_ns()?.saturating_add(COMES_BACK_NS);
        while now_ns()? < end_ns {}
        Ok(())
    }

    /// Types into the guest.
    pub(crate) fn type_text(&mut self, text: &str) -> Result<(), String> {
        let number = u8::try_from(self.partition.vm).unwrap_or(0);
        let typed = self.running.type_into(number, text);
        typed.map_err(|error| error.to_string())
    }

    /// Sends a command without waiting, and returns its number.
    pub(crate) fn send(&mut self, command: &str) -> Result<u64, String> {
        self.commands += 1;
        let id = self.commands;
        self.asked = Some((id, self.running.mark()));
        let sent = self.running.send_command(id, command);
        sent.map(|()| id).map_err(|error| error.to_string())
    }

    /// Returns a number that no command has had.
    pub(crate) fn number(&mut self) -> u64 {
        self.commands += 1;
        self.commands
    }

    fn ask(&mut self, command: &str) -> Result<Event, String> {
        let from = self.running.mark();
        let id = self.send(command)?;
        let what = format!("the answer {id} to `{command}`");
        let is_it = |record: &Record| {
            let event = record.event("answer");
            event.is_some_and(|event| event.num("id") == Some(id))
        };
        let found = self.running.wait_for(&what, from, Self::patience(), is_it);
        let record = found.map_err(|failure| failure.to_string())?;
        record.event("answer").cloned().ok_or(what)
    }

    /// What was said up to now belongs to the past: the line keeps order, and this question is new.
    fn barrier(&mut self) -> Result<(), String> {
        self.mark = self.running.mark();
        let from = self.mark;
        let id = self.send("ps")?;
        let mut mark = from;
        let end = Instant::now() + Self::patience();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let records = self.running.fresh(&mut mark, left);
            let records = records.map_err(|failure| failure.to_string())?;
            let answered = |record: &Record| {
                let event = record.event("answer");
                event.is_some_and(|event| event.num("id") == Some(id))
            };
            if records.iter().any(answered) {
                // What came with the answer and behind it is this case's: no more than a beat.
                self.mark = mark;
                return Ok(());
            }
            if records.is_empty() {
                return Err("the hypervisor does not answer".to_owned());
            }
        }
    }
}

/// Says whether a partition was started, and said behind that that it is up.
fn is_up_again(records: &[Record], name: &str, ready: &str) -> bool {
    let mut behind = records.iter().skip_while(|record| {
        let started = record.event("started");
        started.is_none_or(|event| event.text("name") != Some(name))
    });
    behind.any(|record| {
        let line = record.line(name);
        line.is_some_and(|line| line.starts_with(ready))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With instructions counted the last words of the life that ended came first, and the restart that
    /// was asked for was taken for the guest's end in one case of a thousand.
    #[test]
    fn a_life_that_ends_is_not_taken_for_the_next_one() {
        let alive = "victim| victim: alive n=7";
        let started = r#"{"v":1,"t":9,"ev":"started","vm":0,"name":"victim","restarts":1}"#;
        let other = r#"{"v":1,"t":9,"ev":"started","vm":1,"name":"control","restarts":1}"#;
        let is_up = |lines: &[&str]| {
            let records: Vec<Record> = lines.iter().map(|line| Record::parse(line)).collect();
            is_up_again(&records, "victim", "victim: alive")
        };
        assert!(!is_up(&[alive]));
        assert!(!is_up(&[alive, started]));
        assert!(!is_up(&[other, alive]));
        assert!(is_up(&[alive, started, alive]));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of a running system, from what it says. No terminal, no thread, no clock.

use std::collections::VecDeque;

use firebreak_qemu::{Event, FirmwareLine, Item, Record};

use super::text::{Line, harmless};
use super::words::{self, Weight};

/// How many lines of each console are kept.
const CONSOLE_LINES: usize = 2000;
/// How many events are kept in words.
const EVENT_LINES: usize = 1000;

/// A partition, as far as it is known.
#[derive(Default)]
pub(crate) struct Partition {
    /// Its number; unknown while only its console was seen.
    pub(crate) vm: Option<u64>,
    pub(crate) name: String,
    /// `running`, `stopped`, ...; `?` until something told.
    pub(crate) state: String,
    pub(crate) restarts: u64,
    /// Why it is down.
    pub(crate) reason: String,
    /// PE of its first vCPU.
    pub(crate) pe: u64,
    /// Where its memory begins.
    pub(crate) pa: Option<String>,
    pub(crate) lines: VecDeque<String>,
    pub(crate) line: Line,
}

/// An event in words.
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) words: String,
    pub(crate) weight: Weight,
}

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) partitions: Vec<Partition>,
    pub(crate) events: VecDeque<Told>,
    /// Why the system does not run.
    pub(crate) halted: Option<String>,
    /// Whether the hypervisor failed, ever.
    pub(crate) failed: bool,
}

impl Model {
    /// Takes one piece of the shared line; returns what is worth telling.
    pub(crate) fn take(&mut self, item: &Item) -> Option<Record> {
        match item {
            Item::Event(event) => {
                self.follow(event);
                // The pieces of an image are too many for a pane.
                let is_piece = event.num("next").is_some() && event.flag("ok") == Some(true);
                if !is_piece {
                    self.tell(event.name(), self.sentence(event), words::weight(event));
                }
                Some(Record::Event(event.clone()))
            }
            Item::Console {
                name,
                bytes,
                newline,
            } => {
                let partition = self.named(name);
                partition.line.push(bytes);
                if !newline {
                    return None;
                }
                let text = partition.line.end();
                keep(&mut partition.lines, text.clone(), CONSOLE_LINES);
                Some(Record::Line {
                    name: name.clone(),
                    text,
                })
            }
            Item::Plain(text) => {
                let text = harmless(text);
                if text.is_empty() {
                    return None;
                }
                self.tell("line", text.clone(), Weight::Note);
                Some(Record::Plain(text))
            }
        }
    }

    /// Takes a line of the firmware.
    pub(crate) fn take_firmware(&mut self, line: &str) -> Option<Record> {
        let text = harmless(line);
        let Some(line) = FirmwareLine::parse(&text) else {
            return (!text.is_empty()).then_some(Record::SecurePlain(text));
        };
        let weight = match line.verb.as_str() {
            "error" | "reset" => Weight::Loss,
            _ => Weight::Note,
        };
        let words = text.trim_start_matches("fw: ").to_owned();
        self.tell("firmware", words, weight);
        Some(Record::Firmware(line))
    }

    /// Returns an event in words, partitions by their names.
    pub(crate) fn sentence(&self, event: &Event) -> String {
        words::sentence(event, |vm| {
            let partition = self.partitions.iter().find(|one| one.vm == Some(vm))?;
            Some(partition.name.clone())
        })
    }

    /// Returns the partition of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|one| one.name == name)
    }

    fn tell(&mut self, name: &str, words: String, weight: Weight) {
        let told = Told {
            name: name.to_owned(),
            words,
            weight,
        };
        keep(&mut self.events, told, EVENT_LINES);
    }

    fn named(&mut self, name: &str) -> &mut Partition {
        let index = match self.partitions.iter().position(|one| one.name == name) {
            Some(index) => index,
            None => {
                self.partitions.push(Partition {
                    name: name.to_owned(),
                    state: "?".to_owned(),
                    ..Partition::default()
                });
                self.partitions.len() - 1
            }
        };
        &mut self.partitions[index]
    }

    fn follow(&mut self, event: &Event) {
        match event.name() {
            "boot" => {
                self.halted = None;
                self.partitions
                    .iter_mut()
                    .for_each(|one| one.line = Line::default());
            }
            "halt" => self.halted = Some(harmless(event.text("text").unwrap_or(""))),
            "panic" => self.failed = true,
            "answer" => self.follow_answer(event),
            _ => self.follow_partition(event),
        }
    }

    fn follow_partition(&mut self, event: &Event) {
        let known = |name: &&str| firebreak_wire::is_console_name(name);
        let Some(name) = event.text("name").filter(known).map(str::to_owned) else {
            return;
        };
        let reason = harmless(event.text("reason").unwrap_or(""));
        let state = match event.name() {
            "partition" => "starting",
            "started" => "running",
            "killed" => "killed",
            "stopped" => "stopped",
            "restart" => "restarting",
            _ => return,
        };
        let partition = self.named(&name);
        partition.vm = event.num("vm").or(partition.vm);
        partition.state = state.to_owned();
        partition.reason = reason;
        let restarts = event.num("restarts").or(event.num("count"));
        partition.restarts = restarts.unwrap_or(partition.restarts);
        if event.name() == "partition" {
            let value = event.value();
            partition.pe = value["pes"][0].as_u64().unwrap_or(0);
            partition.pa = value["ram"][0]["pa"].as_str().map(harmless);
        }
        if matches!(event.name(), "started" | "restart") {
            let cut = partition.line.end();
            if !cut.is_empty() {
                keep(&mut partition.lines, cut, CONSOLE_LINES);
            }
        }
        self.partitions
            .sort_by_key(|one| one.vm.unwrap_or(u64::MAX));
    }

    /// `ps` knows best: an event may have been lost on the line.
    fn follow_answer(&mut self, event: &Event) {
        let rows = event.value()["partitions"].as_array();
        for row in rows.into_iter().flatten() {
            let known = |name: &&str| firebreak_wire::is_console_name(name);
            let Some(name) = row["name"].as_str().filter(known) else {
                continue;
            };
            let partition = self.named(name);
            partition.vm = row["vm"].as_u64().or(partition.vm);
            partition.restarts = row["restarts"].as_u64().unwrap_or(partition.restarts);
            let state = harmless(row["state"].as_str().unwrap_or("?"));
            // A partition that was killed is a stopped one; why is worth keeping.
            if !(state == "stopped" && partition.state == "killed") {
                partition.state = state;
            }
        }
        self.partitions
            .sort_by_key(|one| one.vm.unwrap_or(u64::MAX));
    }
}

fn keep<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebreak_qemu::Demux;
    use proptest::prelude::*;
    use serde_json::json;

    fn fed(bytes: &[u8]) -> (Model, Vec<Record>) {
        let mut model = Model::default();
        let (mut demux, mut items) = (Demux::new(), Vec::new());
        demux.push(bytes, &mut items);
        demux.finish(&mut items);
        let records = items.iter().filter_map(|item| model.take(item)).collect();
        (model, records)
    }

    const BOOT: &str = "\x1e{\"v\":1,\"t\":1,\"ev\":\"partition\",\"vm\":1,\"name\":\"victim\",\
        \"vcpus\":1,\"pes\":[3],\"ram\":[{\"ipa\":\"0x1\",\"pa\":\"0x48000000\",\"len\":\"0x1\"}]}\n\
        \x1e{\"v\":1,\"t\":2,\"ev\":\"started\",\"vm\":1,\"name\":\"victim\",\"restarts\":0}\n";

    #[test]
    fn the_state_of_a_partition_follows_its_events() {
        let (mut model, _) = fed(BOOT.as_bytes());
        let victim = model.find("victim").unwrap();
        assert_eq!((victim.state.as_str(), victim.pe), ("running", 3));
        assert_eq!(victim.pa.as_deref(), Some("0x48000000"));
        for (event, state, restarts) in [
            (
                json!({"ev":"restart","reason":"asked","count":2}),
                "restarting",
                2,
            ),
            (json!({"ev":"started","restarts":2}), "running", 2),
            (json!({"ev":"killed","reason":"fatal"}), "killed", 2),
        ] {
            let mut event = event;
            event["v"] = json!(1);
            event["vm"] = json!(1);
            event["name"] = json!("victim");
            model.take(&Item::Event(Event::new(event).unwrap()));
            let victim = model.find("victim").unwrap();
            assert_eq!((victim.state.as_str(), victim.restarts), (state, restarts));
        }
        assert_eq!(model.find("victim").unwrap().reason, "fatal");
    }

    #[test]
    fn an_answer_to_ps_mends_what_a_lost_event_left_wrong() {
        let (mut model, _) = fed(BOOT.as_bytes());
        let answer = json!({"v":1,"t":9,"ev":"answer","id":1,"ok":true,"text":"","partitions":[
            {"vm":0,"name":"linux","state":"running","restarts":4,"vcpus_on":2,"retired":0},
            {"vm":1,"name":"victim","state":"stopped","restarts":1,"vcpus_on":0,"retired":0},
            {"vm":2,"name":"\u{1b}[2J","state":"running"}]});
        model.take(&Item::Event(Event::new(answer).unwrap()));
        let names: Vec<_> = model
            .partitions
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["linux", "victim"]);
        assert_eq!(model.find("victim").unwrap().state, "stopped");
    }

    #[test]
    fn noise_and_lost_bytes_are_lines_and_nothing_else() {
        let (whole, _) = fed(BOOT.as_bytes());
        for lost in 0..BOOT.len() {
            let mut bytes = BOOT.as_bytes().to_vec();
            bytes.remove(lost);
            bytes.extend(b"\xff\x1b[2J\x00noise\nvictim| alive\n");
            let (model, records) = fed(&bytes);
            assert!(model.partitions.len() <= 2, "byte {lost}");
            let steers = |record: &Record| match record {
                Record::Plain(text) => text.contains('\x1b'),
                _ => false,
            };
            assert!(!records.iter().any(steers), "byte {lost}");
        }
        assert_eq!(whole.partitions.len(), 1);
    }

    #[test]
    fn a_prompt_is_there_before_its_line_ends() {
        let (model, records) = fed(b"linux| hello\nlinux> $ ");
        assert_eq!(records.len(), 2);
        // A torn frame is noise: the stream ended inside of it.
        assert_eq!(model.find("linux").unwrap().lines, ["hello"]);
        let (model, _) = fed(b"linux> $ \nlinux> ls\n");
        assert_eq!(model.find("linux").unwrap().line.unfinished(), "$ ls");
    }

    /// A line that bytes are dropped from, put into and changed in costs the lines that were hit;
    /// the others are there, in their order, and the next answer to `ps` puts every state right.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..3_usize, "[ -~]{0,20}").prop_map(|(who, text)| {
                format!("{}| {text}\n", ["linux", "control", "victim"][who])
            }),
            (0..9_u64).prop_map(|n| {
                format!(
                    "\x1e{{\"v\":1,\"t\":{n},\"ev\":\"started\",\"vm\":1,\"name\":\"victim\",\
                     \"restarts\":{n}}}\n"
                )
            }),
            (0..9_u64).prop_map(|n| {
                format!(
                    "\x1e{{\"v\":1,\"t\":{n},\"ev\":\"stopped\",\"vm\":1,\"name\":\"victim\",\
                     \"reason\":\"asked\"}}\n"
                )
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn damage_costs_the_lines_that_it_hits(
            lines in proptest::collection::vec(line(), 1..20),
            hits in proptest::collection::vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3_u8, any::<u8>()),
                0..12,
            ),
        ) {
            let mut pieces: Vec<(Vec<u8>, bool)> =
                lines.iter().map(|line| (line.clone().into_bytes(), true)).collect();
            for (piece, at, how, byte) in hits {
                let (bytes, whole) = &mut pieces[piece.index(lines.len())];
                // Its line feed stays: two lines that became one are the limit that is known.
                let at = at.index(bytes.len());
                let body = bytes.len() - 1;
                match how {
                    0 if at < body => drop(bytes.remove(at)),
                    1 => bytes.insert(at, byte),
                    _ if at < body => bytes[at] = byte,
                    _ => continue,
                }
                *whole = false;
            }
            let (mut demux, mut items) = (Demux::new(), Vec::new());
            for (bytes, _) in &pieces {
                demux.push(bytes, &mut items);
            }
            let mut left = items.iter();
            for (line, (_, whole)) in lines.iter().zip(&pieces) {
                if !whole {
                    continue;
                }
                let (mut alone, mut wanted) = (Demux::new(), Vec::new());
                alone.push(line.as_bytes(), &mut wanted);
                let found = left.any(|item| format!("{item:?}") == format!("{:?}", wanted[0]));
                prop_assert!(found, "{line:?} is lost in {pieces:?}");
            }
            let mut model = Model::default();
            for record in items.iter().filter_map(|item| model.take(item)) {
                prop_assert!(!record.to_string().contains('\x1b'), "{record}");
            }
            model.take(&Item::Event(Event::new(json!({"v":1,"t":9,"ev":"answer","id":1,"ok":true,
                "text":"","partitions":[{"vm":1,"name":"victim","state":"running","restarts":3}]}))
                .unwrap()));
            let victim = model.find("victim").unwrap();
            prop_assert_eq!((victim.state.as_str(), victim.restarts), ("running", 3));
        }
    }
}

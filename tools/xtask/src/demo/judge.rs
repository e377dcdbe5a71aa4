// SPDX-License-Identifier: MIT OR Apache-2.0
//! Says whether an error of the demo was dealt with as told: a pure function over what was recorded.
//!
//! Three witnesses have to agree, and none can write in another's name: the firmware (on its
//! secure line), the hypervisor (events) and the guest itself (its console). Records of the two
//! serial lines race on their way here, so only the order within one line is used.

use firebreak_qemu::{Event, FirmwareLine, Record, field};

use super::cases::{Case, Layout};

/// EC of an SError (Arm ARM, ESR_ELx.EC).
const EC_SERROR: u64 = 0x2f;
/// EC of a data abort taken without a change of exception level.
const EC_DATA_ABORT_SAME_EL: u64 = 0x25;
/// DFSC of a synchronous external abort that is not on a table walk.
const FSC_EXTERNAL: u64 = 0x10;
const FSC_MASK: u64 = 0x3f;
const ISS_MASK: u64 = 0x1ff_ffff;
const EC_SHIFT: u32 = 26;
const PAGE_MASK: u64 = !0xfff;
/// How many beats a partition has to live on before one says that it survived.
const BEATS: usize = 2;

/// What came of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Judgement {
    /// What triage decided, as the hypervisor reported it.
    pub(crate) verdict: String,
    /// What the guest did, in its own words where it has some.
    pub(crate) reaction: String,
    /// What is not as told; empty when all is well.
    pub(crate) missing: Vec<String>,
}

impl Judgement {
    /// Says whether all is as told.
    pub(crate) fn is_ok(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Judges a case by all that was recorded since just before its error was raised.
///
/// `layout` is what was known before; `chosen_iss` the syndrome that the victim's policy names.
pub(crate) fn judge(
    case: Case,
    layout: &Layout,
    chosen_iss: Option<u64>,
    records: &[Record],
) -> Judgement {
    let mut judge = Judge {
        case,
        layout,
        records,
        missing: Vec::new(),
    };
    judge.firmware();
    let (verdict, reaction) = match case {
        Case::UcMachine => judge.uc_machine(),
        _ => {
            let (event, behind) = judge.hypervisor();
            let verdict = event
                .and_then(|event| event.text("verdict"))
                .unwrap_or("-")
                .to_owned();
            let reaction = match case {
                Case::CeLinux => judge.ce_linux(behind),
                Case::UerVictim => judge.uer_victim(chosen_iss, behind),
                Case::UeoLinux => judge.ueo_linux(behind),
                Case::ImpdefLinux => judge.impdef_linux(behind),
                Case::UeuVictim | Case::UcMachine => judge.ueu_victim(behind),
            };
            (verdict, reaction)
        }
    };
    Judgement {
        verdict,
        reaction,
        missing: judge.missing,
    }
}

struct Judge<'a> {
    case: Case,
    layout: &'a Layout,
    records: &'a [Record],
    missing: Vec<String>,
}

impl<'a> Judge<'a> {
    fn need(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.missing.push(what.into());
        }
    }

    fn vm(&self) -> Option<u64> {
        self.layout
            .partitions
            .get(self.case.partition())
            .map(|partition| partition.vm)
    }

    /// The firmware recorded just what was asked for, and handed it over.
    fn firmware(&mut self) {
        let case = self.case;
        let said = |verb: &str| -> Option<&'a FirmwareLine> {
            let mut lines = self
                .records
                .iter()
                .filter_map(|record| record.firmware(verb));
            lines.find(|line| line.num("id") == Some(case.id()))
        };
        let raised = said("raised");
        let expected = case.raise(self.layout);
        let fits = raised.zip(expected.as_ref()).is_some_and(|(line, raise)| {
            line.num("iss") == Some(u64::from(raise.iss))
                && line.num("pe") == Some(u64::from(raise.pe))
                && line.text("sev") == Some(&raise.severity)
                && line.num("pa") == raise.pa
        });
        let handed_over = said("delivered").or_else(|| said("taken")).is_some();
        let acknowledged = said("acked").is_some();
        let reset = said("reset").and_then(|line| line.text("reason")) == Some("uncontainable");
        self.need(
            raised.is_some(),
            "firmware: no record that the error was raised",
        );
        self.need(
            raised.is_none() || fits,
            "firmware: raised another error than was asked for",
        );
        if case == Case::UcMachine {
            self.need(!handed_over, "firmware: handed an uncontainable error over");
            self.need(reset, "firmware: no reset for an uncontainable error");
        } else {
            self.need(handed_over, "firmware: the error was not handed over");
            self.need(acknowledged, "firmware: the record was not acknowledged");
        }
    }

    /// The hypervisor reported that very error and decided as told. Returns the event and what
    /// came behind it.
    fn hypervisor(&mut self) -> (Option<&'a Event>, &'a [Record]) {
        let case = self.case;
        let is_it = |record: &Record| {
            record
                .event("error")
                .is_some_and(|event| event.num("id") == Some(case.id()))
        };
        let Some(at) = self.records.iter().position(is_it) else {
            self.missing
                .push("hypervisor: no event for the error".to_owned());
            return (None, &[]);
        };
        let (before, behind) = self.records.split_at(at + 1);
        let event = before.last().and_then(|record| record.event("error"));
        let (_, cper, severity) = case.kind();
        if let (Some(event), Some(raise)) = (event, case.raise(self.layout)) {
            let agree = event.hex("iss") == Some(u64::from(raise.iss))
                && event.num("pe") == Some(u64::from(raise.pe))
                && event.text("cper") == Some(cper)
                && event.hex("pa") == raise.pa;
            self.need(
                agree,
                "hypervisor: its event does not agree with the firmware's record",
            );
            self.need(
                event.text("severity") == Some(severity),
                format!("hypervisor: severity is not {severity}"),
            );
            self.need(
                event.text("name") == Some(case.partition()),
                format!("hypervisor: did not interrupt {}", case.partition()),
            );
            self.need(
                event.text("verdict") == Some(case.verdict()),
                format!("hypervisor: verdict is not {}", case.verdict()),
            );
        }
        (event, behind)
    }

    fn event(records: &'a [Record], name: &str, vm: Option<u64>) -> Option<&'a Event> {
        let mut events = records.iter().filter_map(|record| record.event(name));
        events.find(|event| event.num("vm") == vm)
    }

    /// The virtual SError that a partition took: its syndrome, and what came behind it.
    fn vserror(&mut self, records: &'a [Record]) -> Option<u64> {
        let vm = self.vm();
        let taken = records
            .iter()
            .filter_map(|record| record.event("vserror"))
            .find(|event| event.num("vm") == vm && event.text("state") == Some("taken"));
        self.need(taken.is_some(), "hypervisor: no virtual SError was taken");
        taken.and_then(|event| event.hex("syndrome"))
    }

    /// Linux beats on with its memory intact.
    fn linux_beats(&mut self, records: &[Record]) -> usize {
        let beats: Vec<&str> = records
            .iter()
            .filter_map(|record| record.line("linux"))
            .filter(|line| line.starts_with("agent: beat "))
            .collect();
        self.need(beats.len() >= BEATS, "linux: does not beat");
        let intact = beats.iter().all(|line| line.ends_with("pattern=ok"));
        self.need(intact, "linux: its memory pattern is bad");
        beats.len()
    }

    fn nothing_ended(&mut self) {
        let ended = self.records.iter().find_map(|record| match record {
            Record::Event(event) => ["killed", "restart", "stopped", "panic", "watchdog", "boot"]
                .contains(&event.name())
                .then(|| event.value().to_string()),
            _ => None,
        });
        self.need(
            ended.is_none(),
            format!("hypervisor: {}", ended.unwrap_or_default()),
        );
    }

    fn ce_linux(&mut self, behind: &'a [Record]) -> String {
        self.linux_beats(behind);
        self.nothing_ended();
        let told = self
            .records
            .iter()
            .any(|record| record.event("vserror").is_some());
        self.need(!told, "hypervisor: a guest was told of a corrected error");
        "linux beats on, pattern ok; nobody noticed".to_owned()
    }

    fn uer_victim(&mut self, chosen_iss: Option<u64>, behind: &'a [Record]) -> String {
        let page = self.layout.victim_page_ipa.map(|ipa| ipa & PAGE_MASK);
        let retired = Self::event(behind, "retired", self.vm());
        let fits = retired.is_some_and(|event| event.hex("ipa").map(|ipa| ipa & PAGE_MASK) == page);
        self.need(fits, "hypervisor: the victim's page was not retired");
        let syndrome = self.vserror(behind);
        self.need(
            chosen_iss.is_none() || syndrome == chosen_iss,
            "hypervisor: not the syndrome that the policy names",
        );
        let lines: Vec<&str> = behind
            .iter()
            .filter_map(|record| record.line("victim"))
            .collect();
        let esr = self.victim_report(&lines, "victim: serror ", syndrome);
        let abort = lines
            .iter()
            .position(|line| line.starts_with("victim: abort "));
        let (abort_esr, far) = abort
            .and_then(|at| lines.get(at))
            .map_or((None, None), |line| {
                (field(line, "esr"), field(line, "far"))
            });
        self.need(
            abort.is_some(),
            "victim: no abort when it touched the retired page",
        );
        if abort.is_some() {
            let shape = abort_esr.is_some_and(|esr| {
                esr & FSC_MASK == FSC_EXTERNAL && esr >> EC_SHIFT == EC_DATA_ABORT_SAME_EL
            });
            self.need(shape, "victim: the abort is not a data abort with FSC 0x10");
            self.need(
                far.is_some() && far.map(|far| far & PAGE_MASK) == page,
                "victim: the abort's FAR is not in the retired page",
            );
        }
        let event = behind
            .iter()
            .filter_map(|record| record.event("abort"))
            .any(|event| {
                event.flag("retired") == Some(true) && event.hex("far") == far && far.is_some()
            });
        self.need(
            event,
            "hypervisor: no event for the touch of the retired page",
        );
        let goes_on = abort.is_some_and(|at| {
            lines
                .iter()
                .skip(at)
                .any(|line| line.starts_with("victim: alive "))
        });
        self.need(goes_on, "victim: does not go on");
        format!(
            "victim took SError esr={}, then abort esr={} far={}; it goes on",
            hex(esr),
            hex(abort_esr),
            hex(far)
        )
    }

    /// The victim reported an SError with exactly that syndrome.
    fn victim_report(
        &mut self,
        lines: &[&str],
        prefix: &str,
        syndrome: Option<u64>,
    ) -> Option<u64> {
        let esr = lines
            .iter()
            .find(|line| line.starts_with(prefix))
            .and_then(|line| field(line, "esr"));
        self.need(esr.is_some(), "victim: reported no SError");
        let exact = esr.zip(syndrome).is_some_and(|(esr, syndrome)| {
            esr >> EC_SHIFT == EC_SERROR && esr & ISS_MASK == syndrome
        });
        self.need(exact, "victim: reported another syndrome than was injected");
        esr
    }

    fn ueo_linux(&mut self, behind: &'a [Record]) -> String {
        let syndrome = self.vserror(behind);
        self.need(
            syndrome == Some(u64::from(self.case.kind().0)),
            "hypervisor: not the error's own syndrome",
        );
        self.linux_beats(behind);
        self.nothing_ended();
        format!(
            "linux took SError iss={} and beats on, pattern ok",
            hex(syndrome)
        )
    }

    fn impdef_linux(&mut self, behind: &'a [Record]) -> String {
        let syndrome = self.vserror(behind);
        let restart = behind.iter().position(|record| {
            record
                .event("restart")
                .is_some_and(|event| event.num("vm") == self.vm())
        });
        self.need(restart.is_some(), "hypervisor: linux was not restarted");
        let (dying, reborn) = behind.split_at(restart.unwrap_or(behind.len()));
        let lines: Vec<&str> = dying
            .iter()
            .filter_map(|record| record.line("linux"))
            .collect();
        self.need(
            lines.iter().any(|line| line.contains("Kernel panic")),
            "linux: no kernel panic",
        );
        let code = lines.iter().find_map(|line| panic_code(line));
        let exact = code
            .zip(syndrome)
            .is_some_and(|(code, syndrome)| code & ISS_MASK == syndrome);
        self.need(
            exact,
            "linux: panicked with another syndrome than was injected",
        );
        let ready = reborn.iter().position(|record| {
            record
                .line("linux")
                .is_some_and(|line| line.starts_with("agent: ready"))
        });
        self.need(ready.is_some(), "linux: its agent did not come back");
        self.linux_beats(reborn.get(ready.unwrap_or(reborn.len())..).unwrap_or(&[]));
        let reason = restart
            .and_then(|at| behind.get(at))
            .and_then(|record| record.event("restart"));
        let reason = reason.and_then(|event| event.text("reason")).unwrap_or("-");
        format!(
            "linux panicked (code {}), restarted ({reason}), beats again",
            hex(code)
        )
    }

    fn ueu_victim(&mut self, behind: &'a [Record]) -> String {
        let killed = behind.iter().position(|record| {
            record
                .event("killed")
                .is_some_and(|event| event.num("vm") == self.vm())
        });
        self.need(killed.is_some(), "hypervisor: victim was not killed");
        let (_, _, severity) = self.case.kind();
        let says_why = self.records.iter().any(|record| match record {
            Record::Plain(text) => {
                text.starts_with("firebreak: victim: ") && text.contains(severity)
            }
            _ => false,
        });
        self.need(says_why, "hypervisor: does not say why victim died");
        let after = behind
            .get(killed.map_or(behind.len(), |at| at + 1)..)
            .unwrap_or(&[]);
        let alive = after
            .iter()
            .filter_map(|record| record.line("victim"))
            .any(|line| line.starts_with("victim: alive"));
        self.need(!alive, "victim: speaks after its death");
        self.linux_beats(after);
        let control = after
            .iter()
            .filter_map(|record| record.line("control"))
            .any(is_control_report);
        self.need(control, "control: does not tick on");
        let reason = killed
            .and_then(|at| behind.get(at))
            .and_then(|record| record.event("killed"));
        let reason = reason.and_then(|event| event.text("reason")).unwrap_or("-");
        format!("victim killed ({reason}); linux and control go on")
    }

    fn uc_machine(&mut self) -> (String, String) {
        let boot = self
            .records
            .iter()
            .position(|record| record.event("boot").is_some());
        self.need(boot.is_some(), "hypervisor: did not boot again");
        let behind = self
            .records
            .get(boot.unwrap_or(self.records.len())..)
            .unwrap_or(&[]);
        let expected = self.case.raise(self.layout);
        let record = behind
            .iter()
            .find_map(|record| record.event("boot-error-record"));
        self.need(record.is_some(), "hypervisor: found no boot error record");
        if let (Some(event), Some(raise)) = (record, expected) {
            let agree = event.text("severity") == Some("UC")
                && event.hex("iss") == Some(u64::from(raise.iss))
                && event.num("pe") == Some(u64::from(raise.pe))
                && event.hex("pa") == raise.pa
                && event.text("source") == Some("firmware");
            self.need(
                agree,
                "hypervisor: the boot error record does not agree with the firmware's line",
            );
        }
        let said = |partition: &str, text: &str| {
            let mut lines = behind.iter().filter_map(|record| record.line(partition));
            lines.any(|line| line.starts_with(text))
        };
        let alive = said("victim", "victim: alive");
        let control = behind
            .iter()
            .filter_map(|record| record.line("control"))
            .any(is_control_report);
        self.need(alive, "victim: does not live again");
        self.need(control, "control: does not tick again");
        self.linux_beats(behind);
        let reset = self
            .records
            .iter()
            .any(|record| record.firmware("reset").is_some());
        let verdict = if reset { "reset" } else { "-" };
        (
            verdict.to_owned(),
            "machine reset, boot error record found, all partitions run again".to_owned(),
        )
    }
}

/// The code of Linux's last words: `SError Interrupt on CPU0, code 0x00000000bf000000 -- SError`.
fn panic_code(line: &str) -> Option<u64> {
    let code = line
        .split_once("SError Interrupt on CPU")?
        .1
        .split_once("code 0x")?
        .1;
    u64::from_str_radix(code.split(' ').next()?, 16).ok()
}

fn is_control_report(line: &str) -> bool {
    line.starts_with("control: ticks=")
}

fn hex(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:#x}"))
}

/// What the control guest says of its ticks, over all boots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Control {
    /// Ticks that were reported.
    pub(crate) ticks: u64,
    /// Ticks that started a period late.
    pub(crate) missed: u64,
    /// The latest start of all, in nanoseconds.
    pub(crate) jitter_max_ns: u64,
    /// Whether the reports are whole: each boot has some, and none is lost in between.
    pub(crate) is_whole: bool,
}

/// Adds up what the control guest reported.
pub(crate) fn control(records: &[Record]) -> Control {
    let mut sum = Control {
        is_whole: true,
        ..Control::default()
    };
    let mut boot = None::<(u64, u64)>;
    for line in records.iter().filter_map(|record| record.line("control")) {
        if line.starts_with("control: ready") {
            sum.is_whole &= boot.is_none_or(|(ticks, _)| ticks != 0);
            sum.close(boot.replace((0, 0)));
        } else if is_control_report(line) {
            let ticks = field(line, "ticks").unwrap_or(0);
            let (before, _) = boot.unwrap_or((0, 0));
            sum.is_whole &= boot.is_some() && ticks == before + 1000;
            boot = Some((ticks, field(line, "missed").unwrap_or(u64::from(u32::MAX))));
            sum.jitter_max_ns = sum
                .jitter_max_ns
                .max(field(line, "jitter_max_ns").unwrap_or(0));
        }
    }
    sum.is_whole &= boot.is_some_and(|(ticks, _)| ticks != 0);
    sum.close(boot);
    sum
}

impl Control {
    fn close(&mut self, boot: Option<(u64, u64)>) {
        let (ticks, missed) = boot.unwrap_or((0, 0));
        self.ticks += ticks;
        self.missed += missed;
    }
}

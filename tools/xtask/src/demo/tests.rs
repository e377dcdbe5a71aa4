// SPDX-License-Identifier: MIT OR Apache-2.0
//! The judge against recorded transcripts, whole and with any one thing amiss.

use firebreak_qemu::Record;

use super::cases::{Case, Layout};
use super::judge::{Control, Judgement, control, judge};
use super::report::Outcome;

fn records(text: &str) -> Vec<Record> {
    text.lines().map(Record::parse).collect()
}

fn layout() -> Layout {
    Layout::read(&records(include_str!(
        "../../../../tests/host/transcripts/machine.log"
    )))
}

fn transcript(case: Case) -> &'static str {
    match case {
        Case::CeLinux => include_str!("../../../../tests/host/transcripts/ce-linux.log"),
        Case::UerVictim => include_str!("../../../../tests/host/transcripts/uer-victim.log"),
        Case::UeoLinux => include_str!("../../../../tests/host/transcripts/ueo-linux.log"),
        Case::ImpdefLinux => include_str!("../../../../tests/host/transcripts/impdef-linux.log"),
        Case::UeuVictim => include_str!("../../../../tests/host/transcripts/ueu-victim.log"),
        Case::UcMachine => include_str!("../../../../tests/host/transcripts/uc-machine.log"),
    }
}

fn judged(case: Case, text: &str) -> Judgement {
    judge(case, &layout(), None, &records(text))
}

/// The same transcript without the lines that contain `text`.
fn without(case: Case, text: &str) -> String {
    let kept: Vec<&str> = transcript(case)
        .lines()
        .filter(|line| !line.contains(text))
        .collect();
    assert!(kept.len() < transcript(case).lines().count(), "{text}");
    kept.join("\n")
}

#[test]
fn every_recorded_case_is_ok() {
    for case in Case::ALL {
        let judgement = judged(case, transcript(case));
        assert_eq!(judgement.missing, [""; 0], "{}", case.name());
        assert_eq!(judgement.verdict, case.verdict());
    }
}

/// What the machine says when nothing was raised: everybody lives on.
#[test]
fn no_case_is_ok_when_its_error_was_not_raised() {
    let quiet = include_str!("../../../../tests/host/transcripts/machine.log");
    for case in Case::ALL {
        let judgement = judged(case, quiet);
        assert!(
            judgement
                .missing
                .iter()
                .any(|m| m.starts_with("firmware: no record")),
            "{}",
            case.name()
        );
        assert!(!judged(case, "").is_ok());
    }
}

#[test]
fn no_case_is_ok_by_another_cases_transcript() {
    for case in Case::ALL {
        for other in Case::ALL.into_iter().filter(|other| *other != case) {
            assert!(
                !judged(case, transcript(other)).is_ok(),
                "{} by {}",
                case.name(),
                other.name()
            );
        }
    }
}

#[test]
fn each_witness_is_needed() {
    for case in Case::ALL {
        let verbs: &[&str] = match case {
            Case::UcMachine => &["fw: raised", "fw: reset"],
            _ => &["fw: raised", "fw: delivered", "fw: acked"],
        };
        for verb in verbs {
            assert!(
                !judged(case, &without(case, verb)).is_ok(),
                "{} without {verb}",
                case.name()
            );
        }
    }
    for (case, line) in [
        (Case::CeLinux, "\"ev\":\"error\""),
        (Case::CeLinux, "agent: beat"),
        (Case::UerVictim, "\"ev\":\"error\""),
        (Case::UerVictim, "\"ev\":\"retired\""),
        (Case::UerVictim, "\"ev\":\"abort\""),
        (Case::UerVictim, "\"state\":\"taken\""),
        (Case::UerVictim, "victim: serror"),
        (Case::UerVictim, "victim: abort"),
        (Case::UerVictim, "victim: alive"),
        (Case::UeoLinux, "\"state\":\"taken\""),
        (Case::UeoLinux, "agent: beat"),
        (Case::ImpdefLinux, "Kernel panic"),
        (Case::ImpdefLinux, "SError Interrupt"),
        (Case::ImpdefLinux, "\"ev\":\"restart\""),
        (Case::ImpdefLinux, "agent: ready"),
        (Case::ImpdefLinux, "agent: beat n="),
        (Case::UeuVictim, "\"ev\":\"killed\""),
        (Case::UeuVictim, "firebreak: victim: "),
        (Case::UeuVictim, "control: ticks"),
        (Case::UeuVictim, "agent: beat"),
        (Case::UcMachine, "boot-error-record"),
        (Case::UcMachine, "\"ev\":\"boot\","),
        (Case::UcMachine, "victim: alive"),
        (Case::UcMachine, "control: ticks"),
    ] {
        assert!(
            !judged(case, &without(case, line)).is_ok(),
            "{} without {line}",
            case.name()
        );
    }
}

#[test]
fn each_detail_has_to_agree() {
    for (case, from, to) in [
        (Case::CeLinux, "iss=0x1811", "iss=0x811"),
        (Case::CeLinux, "sev=corrected", "sev=fatal"),
        (Case::CeLinux, "pa=0x45000040", "pa=0x45000080"),
        (
            Case::CeLinux,
            "\"verdict\":\"log\"",
            "\"verdict\":\"inject\"",
        ),
        (Case::CeLinux, "pattern=ok", "pattern=bad"),
        (Case::CeLinux, "\"pa\":\"0x45000040\"", "\"pa\":null"),
        (Case::UerVictim, "esr=0xbe000c11", "esr=0xbe000c12"),
        (Case::UerVictim, "esr=0xbe000c11", "esr=0x96000c11"),
        (Case::UerVictim, "esr=0x96000010", "esr=0x96000007"),
        (Case::UerVictim, "esr=0x96000010", "esr=0x86000010"),
        (Case::UerVictim, "far=0x40204000 elr", "far=0x40214000 elr"),
        (Case::UerVictim, "\"retired\":true", "\"retired\":false"),
        (
            Case::UerVictim,
            "\"ev\":\"retired\",\"ipa\":\"0x40204000\"",
            "\"ev\":\"retired\",\"ipa\":\"0x40212000\"",
        ),
        (
            Case::UeoLinux,
            "\"severity\":\"UEO\"",
            "\"severity\":\"UER\"",
        ),
        (
            Case::UeoLinux,
            "\"state\":\"taken\",\"syndrome\":\"0x811\"",
            "\"state\":\"taken\",\"syndrome\":\"0xc11\"",
        ),
        (
            Case::ImpdefLinux,
            "code 0x00000000bf000000",
            "code 0x00000000be000000",
        ),
        (
            Case::UeuVictim,
            "\"name\":\"victim\",\"owner\"",
            "\"name\":\"linux\",\"owner\"",
        ),
        (Case::UcMachine, "reason=uncontainable", "reason=psci"),
        (Case::UcMachine, "\"iss\":\"0x11\"", "\"iss\":\"0x12\""),
        (
            Case::UcMachine,
            "\"source\":\"firmware\"",
            "\"source\":\"hypervisor\"",
        ),
    ] {
        let text = transcript(case).replace(from, to);
        assert_ne!(text, transcript(case), "{from}");
        assert!(
            !judged(case, &text).is_ok(),
            "{}: {from} -> {to}",
            case.name()
        );
    }
}

#[test]
fn what_must_not_happen_fails_the_case() {
    for (case, line) in [
        (
            Case::CeLinux,
            r#"{"v":1,"ev":"vserror","vm":0,"vcpu":0,"inj":1,"syndrome":"0x0","state":"pending"}"#,
        ),
        (
            Case::CeLinux,
            r#"{"v":1,"ev":"restart","vm":0,"name":"linux","reason":"watchdog","count":1}"#,
        ),
        (
            Case::UeoLinux,
            r#"{"v":1,"ev":"killed","vm":2,"name":"victim","reason":"x"}"#,
        ),
        (Case::UeuVictim, "victim| victim: alive n=99"),
        (
            Case::UcMachine,
            "fw: delivered id=106 pe=0 from=el1 vector=0x580 elr=0x0",
        ),
    ] {
        let text = format!("{}{line}\n", transcript(case));
        assert!(!judged(case, &text).is_ok(), "{} with {line}", case.name());
    }
}

#[test]
fn the_policys_syndrome_has_to_be_the_one() {
    let records = records(transcript(Case::UerVictim));
    assert!(judge(Case::UerVictim, &layout(), Some(0xc11), &records).is_ok());
    assert!(!judge(Case::UerVictim, &layout(), Some(0xc12), &records).is_ok());
}

#[test]
fn ticks_are_added_up_over_boots_and_lost_reports_are_seen() {
    let report = |ticks, missed| {
        format!("control| control: ticks={ticks} missed={missed} jitter_max_ns=9\n")
    };
    let ready = "control| control: ready\n".to_owned();
    let sum = |parts: &[&String]| {
        control(&records(
            &parts.iter().map(|part| part.as_str()).collect::<String>(),
        ))
    };
    let (one, two, three) = (report(1000, 0), report(2000, 1), report(3000, 1));
    assert_eq!(
        sum(&[&ready, &one, &two, &ready, &one]),
        Control {
            ticks: 3000,
            missed: 1,
            jitter_max_ns: 9,
            is_whole: true
        }
    );
    assert!(!sum(&[&ready, &one, &three]).is_whole);
    assert!(!sum(&[&ready]).is_whole);
    assert!(!sum(&[&ready, &one, &ready]).is_whole);
    assert!(!sum(&[&one]).is_whole);
    assert!(!control(&[]).is_whole);
}

#[test]
fn the_outcome_needs_every_case_and_every_tick() {
    let cases = || {
        Case::ALL
            .map(|case| (case, judged(case, transcript(case))))
            .to_vec()
    };
    let control = Control {
        ticks: 1000,
        missed: 0,
        jitter_max_ns: 1,
        is_whole: true,
    };
    let good = Outcome {
        cases: cases(),
        control,
    };
    assert!(good.is_ok());
    assert!(good.table().contains("control: 0 missed ticks"));
    let json = good.json();
    assert_eq!(json["control_missed_ticks"], 0);
    assert_eq!(json["cases"][5]["name"], "uc-machine");
    assert_eq!(json["cases"][5]["ok"], true);
    let late = Outcome {
        cases: cases(),
        control: Control {
            missed: 1,
            ..control
        },
    };
    let torn = Outcome {
        cases: cases(),
        control: Control {
            is_whole: false,
            ..control
        },
    };
    let few = Outcome {
        cases: cases().split_off(1),
        control,
    };
    assert!(!late.is_ok() && !torn.is_ok() && !few.is_ok());
    let mut bad = cases();
    bad[0].1 = judged(Case::CeLinux, "");
    let bad = Outcome {
        cases: bad,
        control,
    };
    assert!(!bad.is_ok() && bad.table().contains("FAILED"));
}

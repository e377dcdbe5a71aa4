// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every event is JSON with the members that the other end looks for.

use core::fmt::{self, Write};

use super::*;
use crate::answer::{PartitionRow, PeRow, Stats, UsageRow};
use serde_json::{Value, json};

fn decoded(event: &Event<'_>) -> Value {
    let mut text = String::new();
    write_event(&mut text, 42, event).unwrap();
    assert_eq!(text.matches('\x1e').count(), 1);
    assert_eq!(text.matches('\n').count(), 1);
    serde_json::from_str(
        text.strip_prefix('\x1e')
            .unwrap()
            .strip_suffix('\n')
            .unwrap(),
    )
    .unwrap()
}

#[test]
fn every_event_is_one_json_object_with_the_members_of_its_schema() {
    let ram = [
        Ram {
            ipa: 0x4000_0000,
            pa: 0x5000_0000,
            len_bytes: 0x1000,
        },
        Ram {
            ipa: 0x4000_2000,
            pa: 0x5000_2000,
            len_bytes: 0x2000,
        },
    ];
    let cases = [
        (
            Event::Boot {
                version: "0.1",
                board: "b",
                pes: 4,
                ras: true,
                firmware: None,
                partitions: 3,
                line: Some(115_200),
            },
            json!({"v":1,"t":42,"ev":"boot","version":"0.1","board":"b","pes":4,"ras":true,
                "firmware":null,"partitions":3,"line":115_200}),
        ),
        (
            Event::Partition {
                vm: 1,
                name: "linux",
                vcpus: 2,
                pes: &[0, 1],
                ram: &ram,
            },
            json!({"v":1,"t":42,"ev":"partition","vm":1,"name":"linux","vcpus":2,"pes":[0,1],
                "ram":[{"ipa":"0x40000000","pa":"0x50000000","len":"0x1000"},
                       {"ipa":"0x40002000","pa":"0x50002000","len":"0x2000"}]}),
        ),
        (
            Event::Started {
                vm: 0,
                name: "a",
                restarts: 0,
            },
            json!({"v":1,"t":42,"ev":"started","vm":0,"name":"a","restarts":0}),
        ),
        (
            Event::Vserror {
                vm: 2,
                vcpu: 0,
                inj: 3,
                syndrome: Some(0x811),
                state: VserrorState::Taken,
                elr: Some(0x10),
                el: Some(Level::El0),
                exact: true,
            },
            json!({"v":1,"t":42,"ev":"vserror","vm":2,"vcpu":0,"inj":3,"syndrome":"0x811",
                "state":"taken","elr":"0x10","el":"el0","exact":true}),
        ),
        (
            Event::Vsea {
                vm: 2,
                vcpu: 1,
                inj: 4,
                esr: 0x9600_0410,
                far: None,
                elr: 0x10,
                el: Level::El1,
            },
            json!({"v":1,"t":42,"ev":"vsea","vm":2,"vcpu":1,"inj":4,"esr":"0x96000410",
                "far":null,"elr":"0x10","el":"el1"}),
        ),
        (
            Event::Answer {
                id: Some(u64::MAX),
                ok: false,
                text: "why",
                detail: Detail::None,
            },
            json!({"v":1,"t":42,"ev":"answer","id":u64::MAX,"ok":false,"text":"why"}),
        ),
        (
            Event::Answer {
                id: None,
                ok: true,
                text: "",
                detail: Detail::Partitions(&[PartitionRow {
                    vm: 1,
                    name: "a",
                    state: "running",
                    restarts: 2,
                    vcpus_on: 1,
                    retired: 3,
                    spares: 8,
                    kernel: "boot",
                }]),
            },
            json!({"v":1,"t":42,"ev":"answer","id":null,"ok":true,"text":"","partitions":
                [{"vm":1,"name":"a","state":"running","restarts":2,"vcpus_on":1,"retired":3,"spares":8,"kernel":"boot"}]}),
        ),
        (
            Event::Answer {
                id: Some(1),
                ok: true,
                text: "",
                detail: Detail::Stats(&Stats {
                    pes: &[PeRow {
                        pe: 1,
                        seis: 2,
                        waiting: 3,
                        maintenance: 12,
                    }],
                    partitions: &[UsageRow {
                        vm: 4,
                        vmid: 5,
                        tables: 6,
                        irqs_enabled: 7,
                        irqs_raised: 8,
                        irqs_forwarded: 11,
                    }],
                    pool_free: 9,
                    pool_retired: 10,
                }),
            },
            json!({"v":1,"t":42,"ev":"answer","id":1,"ok":true,"text":"",
                "pes":[{"pe":1,"seis":2,"waiting":3,"maintenance":12}],"usage":[{"vm":4,"vmid":5,"tables":6,
                "irqs_enabled":7,"irqs_raised":8,"irqs_forwarded":11}],"pool_free":9,"pool_retired":10}),
        ),
        (
            Event::Answer {
                id: Some(1),
                ok: true,
                text: "",
                detail: Detail::Injection(7),
            },
            json!({"v":1,"t":42,"ev":"answer","id":1,"ok":true,"text":"","inj":7}),
        ),
        (
            Event::Answer {
                id: Some(1),
                ok: true,
                text: "",
                detail: Detail::Next(48),
            },
            json!({"v":1,"t":42,"ev":"answer","id":1,"ok":true,"text":"","next":48}),
        ),
        (
            Event::Abort {
                vm: 0,
                vcpu: 1,
                ipa: 1,
                far: 2,
                pc: 3,
                write: true,
                retired: false,
            },
            json!({"v":1,"t":42,"ev":"abort","vm":0,"vcpu":1,"ipa":"0x1","far":"0x2",
                "pc":"0x3","write":true,"retired":false}),
        ),
        (
            Event::Spare {
                vm: 1,
                ipa: 0x4000_0000,
                pa: 0x8000_0000,
                left: 7,
            },
            json!({"v":1,"t":42,"ev":"spare","vm":1,"ipa":"0x40000000","pa":"0x80000000",
                "left":7}),
        ),
        (
            Event::BootErrorRecord(BootErrorRecord {
                number: 1,
                severity: "UC",
                cper: "fatal",
                iss: Some(0x11),
                pe: Some(1),
                vm: None,
                name: None,
                vcpu: None,
                from: Some("el2"),
                pc: Some(0),
                pa: Some(1),
                id: Some(7),
                at: None,
                simulated: true,
                source: RecordSource::Firmware,
            }),
            json!({"v":1,"t":42,"ev":"boot-error-record","severity":"UC","iss":"0x11","pe":1,
                "vm":null,"pc":"0x0","pa":"0x1","source":"firmware","number":1,"cper":"fatal",
                "name":null,"vcpu":null,"from":"el2","id":7,"at":null,"simulated":true}),
        ),
        (
            Event::Crash(Crash {
                replayed: true,
                whole: true,
                failures: 0,
                boot: 3,
                at: 9,
                pe: 1,
                kind: "exception",
                vector: 4,
                vm: Some(0),
                name: Some("a"),
                vcpu: Some(0),
                pc: Some(16),
                words: &[("esr", 1), ("far", u64::MAX)],
                calls: &[],
                x: &[0, 1],
                exits: &[],
                text: "why",
                left_out: 0,
            }),
            json!({"v":1,"t":42,"ev":"crash","replayed":true,"whole":true,"failures":0,"boot":3,
                "at":9,"pe":1,"kind":"exception","vector":4,"vm":0,"name":"a","vcpu":0,
                "pc":"0x10","esr":"0x1","far":"0xffffffffffffffff","calls":[],
                "x":["0x0","0x1"],"text":"why","left_out":0}),
        ),
        (
            Event::CrashRecord(CrashRecord {
                replayed: false,
                pe: 2,
                state: "waiting",
                at: 5,
                cper: None,
                iss: Some(2),
                pc: None,
                pa: None,
                id: None,
                vm: Some(1),
                vcpu: Some(0),
                verdict: "log",
            }),
            json!({"v":1,"t":42,"ev":"crash-record","replayed":false,"pe":2,"state":"waiting",
                "at":5,"cper":null,"iss":"0x2","pc":null,"pa":null,"id":null,"vm":1,"vcpu":0,
                "verdict":"log"}),
        ),
        (
            Event::Log(LogEntry {
                number: 12,
                boot: 1,
                at: 3,
                pe: 0,
                cut: false,
                text: "{\"v\":1}",
            }),
            json!({"v":1,"t":42,"ev":"log","number":12,"boot":1,"at":3,"pe":0,"cut":false,
                "text":"{\"v\":1}"}),
        ),
        (
            Event::GivenUp {
                what: "stage2-tables",
                vm: Some(1),
                pa: 0x4050_1000,
            },
            json!({"v":1,"t":42,"ev":"given-up","what":"stage2-tables","vm":1,
                "pa":"0x40501000"}),
        ),
        (
            Event::Panic {
                pe: 3,
                text: "a \"quoted\"\n\x1eline",
            },
            json!({"v":1,"t":42,"ev":"panic","pe":3,"text":"a \"quoted\"\n\x1eline"}),
        ),
        (
            Event::Queue {
                pe: 1,
                published: 9,
                finished: 8,
                pending: 1,
                refused: 2,
                reported: 5,
                suppressed: 3,
            },
            json!({"v":1,"t":42,"ev":"queue","pe":1,"published":9,"finished":8,"pending":1,
                "refused":2,"reported":5,"suppressed":3}),
        ),
    ];
    for (event, expected) in cases {
        assert_eq!(decoded(&event), expected);
        hold_page(&event);
    }
}

/// Holds that `docs/events.md` has a row for an event, with each of its members.
fn hold_page(event: &Event<'_>) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events.md");
    let page = std::fs::read_to_string(page).unwrap();
    let head = format!("| `{}` |", event.name());
    let row = page.lines().find(|line| line.starts_with(&head));
    let row = row.unwrap_or_else(|| panic!("docs/events.md has no row for {}", event.name()));
    let value = decoded(event);
    let common = ["v", "t", "ev"];
    // What an answer says beside these is the command's, and stands in docs/control.md.
    let answer = ["id", "ok", "text"];
    for key in value.as_object().unwrap().keys() {
        let is_named = row.contains(&format!("`{key}`"));
        let is_elsewhere = common.contains(&key.as_str())
            || event.name() == "answer" && !answer.contains(&key.as_str());
        assert!(
            is_named || is_elsewhere,
            "docs/events.md: {row} has no {key}"
        );
    }
}

#[test]
fn the_page_of_events_has_those_without_a_schema_above() {
    let (vm, name, reason) = (0, "a", "r");
    for event in [
        Event::Retired { vm, ipa: 0, pa: 0 },
        Event::Undef {
            vm,
            vcpu: 0,
            pc: 0,
            esr: 0,
        },
        Event::Killed { vm, name, reason },
        Event::Stopped { vm, name, reason },
        Event::Restart {
            vm,
            name,
            reason,
            count: 1,
        },
        Event::Watchdog { vm, name },
        Event::Pvpanic {
            vm,
            name,
            events: 1,
        },
        Event::Suppressed {
            what: "errors",
            count: 1,
        },
        Event::Unclaimed { pe: 0, iss: 0 },
        Event::Unnotified { pe: 0 },
        Event::Halt { text: "why" },
    ] {
        hold_page(&event);
    }
}

#[test]
fn an_error_keeps_all_64_bits_of_its_addresses() {
    let event = Event::Error(ErrorEvent {
        id: u64::MAX,
        pe: 2,
        vm: Some(1),
        name: Some("victim"),
        from: Level::El1,
        pc: u64::MAX,
        iss: 0x1ff_ffff,
        sync: false,
        severity: "UER",
        cper: "recoverable",
        pa: None,
        owner: "partition",
        page_vm: Some(1),
        verdict: "retire",
        rule: "r",
        context: "guest",
        syndrome_severity: Some("UER"),
        record_severity: None,
        owner_class: "partition",
        corrected_on_page: 0,
        corrected_limit: 16,
    });
    hold_page(&event);
    let value = decoded(&event);
    assert_eq!(value["pc"], "0xffffffffffffffff");
    assert_eq!(value["iss"], "0x1ffffff");
    assert_eq!(value["pa"], Value::Null);
    assert_eq!(value["id"].as_u64(), Some(u64::MAX));
    assert_eq!(value["from"], "el1");
}

#[test]
fn a_sink_that_fails_is_told() {
    struct Full(usize);
    impl Write for Full {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            self.0 = self.0.checked_sub(s.len()).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let event = Event::Halt {
        text: "no partitions",
    };
    let mut whole = String::new();
    write_event(&mut whole, 1, &event).unwrap();
    for room in 0..whole.len() {
        assert!(write_event(&mut Full(room), 1, &event).is_err(), "{room}");
    }
    assert!(write_event(&mut Full(whole.len()), 1, &event).is_ok());
}

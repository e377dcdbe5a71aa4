// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every field of a partition file: its name in TOML and in a devicetree, its form, and what it
//! says.
//!
//! The readers of both forms know no other fields, the JSON Schema is made of this table, and a
//! test holds `docs/partitions.md` to it. So a field that is not here cannot be read.

use firebreak_abi::{MAX_PARTITIONS, MAX_VCPUS_PER_PARTITION};
use firebreak_manifest::config::{MAX_BOOTARGS_LEN, MAX_RESTART_LIMIT, MAX_SPARE_PAGES, property};
use firebreak_manifest::{MAX_DEVICES, Policy, RestartPolicy};
use firebreak_triage::Class;

mod board;
pub(crate) mod elsewhere;
mod later;

pub use board::{BOARD, DEVICE, RANGE};
pub use later::{NOT_YET, NotYet};

/// The form of a value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Form {
    /// Text; `most` bytes at most.
    Text {
        /// Bytes.
        most: usize,
    },
    /// A partition's name.
    Name,
    /// One of these words.
    Word(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A whole number from `least` to `most`.
    Integer {
        /// The least.
        least: u64,
        /// The highest.
        most: u64,
    },
    /// A list of whole numbers, at least one and `most` at most.
    Integers {
        /// How many.
        most: usize,
    },
    /// A size such as `256 MiB`.
    Size,
    /// What is done about errors of this class.
    Reaction(Class),
    /// A table.
    Table(&'static [Field]),
    /// A list of tables, `most` at most.
    Tables {
        /// Their fields.
        fields: &'static [Field],
        /// How many.
        most: usize,
        /// Whether there must be one.
        required: bool,
    },
}

/// A field.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Field {
    /// Its key in TOML.
    pub key: &'static str,
    /// The property that says the same in a devicetree; empty if no single property does.
    pub property: &'static str,
    /// Its form.
    pub form: Form,
    /// Whether it must be there.
    pub required: bool,
    /// What it is if it is left out, as JSON; empty if there is no such value.
    pub default: &'static str,
    /// A line of TOML that has it.
    pub example: &'static str,
    /// What it says, in a sentence.
    pub about: &'static str,
}

const fn field(
    key: &'static str,
    property: &'static str,
    form: Form,
    default: &'static str,
    example: &'static str,
    about: &'static str,
) -> Field {
    Field {
        key,
        property,
        form,
        required: default.is_empty(),
        default,
        example,
        about,
    }
}

const fn optional(field: Field) -> Field {
    Field {
        required: false,
        ..field
    }
}

/// Fields of the whole file.
pub static ROOT: [Field; 2] = [
    optional(field(
        "system",
        "",
        Form::Table(&SYSTEM),
        "",
        "[system]",
        "What concerns the system as a whole.",
    )),
    field(
        "partition",
        "",
        Form::Tables {
            fields: &PARTITION,
            most: MAX_PARTITIONS,
            required: true,
        },
        "",
        "[[partition]]",
        "The partitions; their order gives them their numbers.",
    ),
];

/// Fields of `[system]`.
pub static SYSTEM: [Field; 4] = [
    field(
        "board",
        "firebreak,board",
        Form::Text { most: 4096 },
        "\"qemu-virt\"",
        "board = \"qemu-virt\"",
        "The board: the name of a built-in one, or the path of a board file relative to this file.",
    ),
    field(
        "control",
        property::CONTROL,
        Form::Flag,
        "false",
        "control = true",
        "Whether the running system takes commands on its UART.",
    ),
    optional(field(
        "log",
        property::LOG,
        Form::Size,
        "",
        "log = \"64 KiB\"",
        "The log that survives a reset: up to 256 KiB, none of 0 KiB. As much as the firmware keeps if left out.",
    )),
    field(
        "trace",
        property::TRACE,
        Form::Size,
        "\"0 KiB\"",
        "trace = \"4 KiB\"",
        "The trace of each PE, 32 exits in a KiB: up to 32 KiB.",
    ),
];

/// Fields of `[[partition]]`.
pub static PARTITION: [Field; 20] = [
    field(
        "name",
        "",
        Form::Name,
        "",
        "name = \"control\"",
        "The partition's name: it heads each line of its console.",
    ),
    field(
        "vcpus",
        property::CPUS,
        Form::Integer {
            least: 1,
            most: MAX_VCPUS_PER_PARTITION as u64,
        },
        "",
        "vcpus = 1",
        "Number of virtual CPUs.",
    ),
    field(
        "pes",
        property::MPIDR,
        Form::Integers {
            most: MAX_VCPUS_PER_PARTITION,
        },
        "",
        "pes = [0]",
        "The PE that each vCPU owns, counted in the board's order.",
    ),
    field(
        "memory",
        property::MEMORY,
        Form::Size,
        "",
        "memory = \"16 MiB\"",
        "RAM: a multiple of 2 MiB.",
    ),
    optional(field(
        "memory_base",
        property::MEMORY_BASE,
        Form::Integer {
            least: 0,
            most: u64::MAX,
        },
        "",
        "memory_base = 0x6000_0000",
        "Where the RAM is in the machine: a multiple of 2 MiB. Where there is room if left out.",
    )),
    field(
        "direct_map",
        property::DIRECT_MAP,
        Form::Flag,
        "false",
        "direct_map = true",
        "Whether the guest sees its RAM at its physical address (1:1), as devices with DMA need.",
    ),
    optional(field(
        "devices",
        property::DEVICES,
        Form::Tables {
            fields: &DEVICE,
            most: MAX_DEVICES,
            required: false,
        },
        "",
        "devices = [{ path = \"/pl061@9030000\" }]",
        "Devices of the board that are passed through.",
    )),
    field(
        "spare_pages",
        property::SPARE_PAGES,
        Form::Integer {
            least: 0,
            most: MAX_SPARE_PAGES as u64,
        },
        "8",
        "spare_pages = 16",
        "Pages of 4 KiB that take the place of retired ones when the partition next starts.",
    ),
    optional(field(
        "reload_room",
        property::RELOAD_ROOM,
        Form::Size,
        "",
        "reload_room = \"256 KiB\"",
        "Room for another image that `reload` brings: a multiple of 4 KiB, up to 64 MiB.",
    )),
    field(
        "image",
        "firebreak,file",
        Form::Text { most: 4096 },
        "",
        "image = \"guests/control.bin\"",
        "Path of the kernel: raw, arm64 Image or ELF, and any of them packed with gzip.",
    ),
    optional(field(
        "initramfs",
        "firebreak,file",
        Form::Text { most: 4096 },
        "",
        "initramfs = \"initramfs.cpio\"",
        "Path of the initial RAM disk.",
    )),
    optional(field(
        "cmdline",
        "bootargs",
        Form::Text {
            most: MAX_BOOTARGS_LEN,
        },
        "",
        "cmdline = \"console=ttyAMA0 panic=-1\"",
        "The kernel's command line.",
    )),
    field(
        "console",
        property::VPL011,
        Form::Word(&["pl011", "none"]),
        "\"pl011\"",
        "console = \"none\"",
        "The guest's UART.",
    ),
    field(
        "ras_visible",
        property::RAS_VISIBLE,
        Form::Flag,
        "true",
        "ras_visible = false",
        "Whether the guest's ID registers show the RAS extension.",
    ),
    field(
        "external_aborts",
        property::DIRECT_ABORTS,
        Form::Word(&["hypervisor", "guest"]),
        "\"hypervisor\"",
        "external_aborts = \"guest\"",
        "Who takes the external aborts of the guest's own accesses.",
    ),
    field(
        "watchdog",
        property::WATCHDOG,
        Form::Flag,
        "true",
        "watchdog = false",
        "Whether the guest has a watchdog, by whose silence its death is noticed.",
    ),
    field(
        "pvpanic",
        property::PVPANIC,
        Form::Flag,
        "false",
        "pvpanic = true",
        "Whether the guest has QEMU's pvpanic device, by which it says that it panics.",
    ),
    field(
        "autostart",
        property::AUTOSTART,
        Form::Flag,
        "true",
        "autostart = false",
        "Whether the partition is started at boot.",
    ),
    optional(field(
        "restart",
        "",
        Form::Table(&RESTART),
        "",
        "restart = { on_kill = true, limit = 3 }",
        "When a partition that stopped starts again.",
    )),
    optional(field(
        "on_error",
        "",
        Form::Table(&ON_ERROR),
        "",
        "[partition.on_error]",
        "What is done about a hardware error, by its class.",
    )),
];

/// Fields of `restart`.
pub static RESTART: [Field; 5] = [
    field(
        "on_reset",
        property::RESTART_ON_RESET,
        Form::Flag,
        "true",
        "restart = { on_reset = false }",
        "Restarts the partition when it asks for a reset.",
    ),
    field(
        "on_silence",
        property::RESTART_ON_SILENCE,
        Form::Flag,
        "true",
        "restart = { on_silence = false }",
        "Restarts the partition when it stopped refreshing its watchdog.",
    ),
    field(
        "on_kill",
        property::RESTART_ON_KILL,
        Form::Flag,
        "false",
        "restart = { on_kill = true }",
        "Restarts the partition when it was killed because of an error.",
    ),
    field(
        "limit",
        property::RESTART_LIMIT,
        Form::Integer {
            least: 0,
            most: MAX_RESTART_LIMIT as u64,
        },
        "5",
        "restart = { limit = 3 }",
        "How often it is restarted at most.",
    ),
    field(
        "backoff_ms",
        property::RESTART_BACKOFF,
        Form::Integer {
            least: 0,
            most: RestartPolicy::MAX_BACKOFF_MS as u64,
        },
        "0",
        "restart = { backoff_ms = 100 }",
        "Milliseconds before the first restart; twice as many before each further one.",
    ),
];

const fn reaction(
    class: Class,
    property: &'static str,
    default: &'static str,
    example: &'static str,
    about: &'static str,
) -> Field {
    field(
        class.name(),
        property,
        Form::Reaction(class),
        default,
        example,
        about,
    )
}

/// Fields of `on_error`.
pub static ON_ERROR: [Field; 8] = [
    reaction(
        Class::Corrected,
        "firebreak,on-corrected",
        "\"log\"",
        "corrected = \"log\"",
        "CE: the hardware corrected it.",
    ),
    reaction(
        Class::Ueo,
        "firebreak,on-ueo",
        "\"log\"",
        "ueo = \"inject:0x811\"",
        "UEO, restartable: nothing is lost.",
    ),
    reaction(
        Class::Uer,
        "firebreak,on-uer",
        "\"retire\"",
        "uer = \"retire:0xc11\"",
        "UER, recoverable: a page is lost, the guest can go on without it.",
    ),
    reaction(
        Class::Ueu,
        "firebreak,on-ueu",
        "\"kill\"",
        "ueu = \"restart\"",
        "UEU, unrecoverable: what the vCPU was doing is lost.",
    ),
    reaction(
        Class::Impdef,
        "firebreak,on-impdef",
        "\"kill\"",
        "impdef = \"inject:0x1000000\"",
        "Implementation defined, or an error without a record.",
    ),
    reaction(
        Class::Uncategorized,
        "firebreak,on-uncategorized",
        "\"kill\"",
        "uncategorized = \"restart\"",
        "An error without a state.",
    ),
    field(
        "corrected_limit",
        property::CORRECTED_LIMIT,
        Form::Integer {
            least: 0,
            most: u16::MAX as u64,
        },
        "16",
        "corrected_limit = 4",
        "Corrected errors on one page, in one window of time, that retire it early; 0 for never.",
    ),
    field(
        "corrected_window_s",
        property::CORRECTED_WINDOW,
        Form::Integer {
            least: 1,
            most: Policy::MAX_CORRECTED_WINDOW_S as u64,
        },
        "86400",
        "corrected_window_s = 3600",
        "That window of time, in seconds.",
    ),
];

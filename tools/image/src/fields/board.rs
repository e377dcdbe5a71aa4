// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fields of a board file, of its ranges of memory, and of a device that is passed through.

use super::{Field, Form, field, optional};

/// Fields of a board file.
pub static BOARD: [Field; 8] = [
    field(
        "name",
        "",
        Form::Text { most: 64 },
        "\"\"",
        "name = \"my-board\"",
        "The board's name.",
    ),
    field(
        "pes",
        "",
        Form::Integers { most: 8 },
        "",
        "pes = [0, 1, 2, 3]",
        "Affinity of each PE (MPIDR_EL1), in the order of the devicetree.",
    ),
    field(
        "image",
        "",
        Form::Integer {
            least: 0,
            most: u64::MAX,
        },
        "",
        "image = 0x4020_0000",
        "Where the image is loaded: a multiple of 2 MiB.",
    ),
    field(
        "ras",
        "",
        Form::Flag,
        "true",
        "ras = false",
        "Whether its PEs have FEAT_RAS.",
    ),
    optional(field(
        "devicetree",
        "",
        Form::Text { most: 4096 },
        "",
        "devicetree = \"my-board.dtb\"",
        "Path of its devicetree, in which devices that are passed through are looked up.",
    )),
    optional(field(
        "memory",
        "",
        Form::Tables {
            fields: &RANGE,
            most: 8,
            required: false,
        },
        "",
        "[[memory]]",
        "RAM.",
    )),
    optional(field(
        "reserved",
        "",
        Form::Tables {
            fields: &RANGE,
            most: 16,
            required: false,
        },
        "",
        "[[reserved]]",
        "What the firmware keeps.",
    )),
    optional(field(
        "persistent",
        "",
        Form::Table(&RANGE),
        "",
        "persistent = { base = 0x4019_0000, size = \"260 KiB\" }",
        "Memory in a reserved range that survives a warm reset: a page for a crash, and the log behind it.",
    )),
];

/// Fields of a device that is passed through.
pub static DEVICE: [Field; 4] = [
    optional(field(
        "path",
        "",
        Form::Text { most: 4096 },
        "",
        "path = \"/pl061@9030000\"",
        "Its path, label or alias in the board's devicetree.",
    )),
    optional(field(
        "page",
        "",
        Form::Integer {
            least: 0,
            most: u64::MAX,
        },
        "",
        "page = 0x0a00_3000",
        "Instead of a path: all devices with registers in this page of 4 KiB.",
    )),
    optional(field(
        "at",
        "",
        Form::Integer {
            least: 0,
            most: u64::MAX,
        },
        "",
        "at = 0x0903_0000",
        "Where the guest sees its first register; at its physical address if left out.",
    )),
    optional(field(
        "dma",
        "",
        Form::Word(&["trusted"]),
        "",
        "dma = \"trusted\"",
        "That it may write to all of memory: there is no SMMU to hold it.",
    )),
];

/// Fields of a range of a board's memory.
pub static RANGE: [Field; 2] = [
    field(
        "base",
        "",
        Form::Integer {
            least: 0,
            most: u64::MAX,
        },
        "",
        "base = 0x4000_0000",
        "Its first address.",
    ),
    field(
        "size",
        "",
        Form::Size,
        "",
        "size = \"1 GiB\"",
        "Its length.",
    ),
];

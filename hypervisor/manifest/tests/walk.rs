// SPDX-License-Identifier: MIT OR Apache-2.0
//! The walk against an independent parser, and against blobs that lie.

mod support;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use firebreak_abi::Pa;
use firebreak_manifest::tree::{Event, Tree};
use firebreak_manifest::{TreeFault, blob_len, read_board, read_config, used_len};
use proptest::prelude::*;
use support::Blob;

const SAMPLES: [&[u8]; 2] = [
    include_bytes!("../../../tests/corpus/dtb/qemu-virt.dtb"),
    include_bytes!("../../../tests/corpus/dtb/qemu-virt-secure.dtb"),
];

/// What a tree holds, one line each.
fn ours(bytes: &[u8]) -> Result<Vec<String>, TreeFault> {
    let mut lines = Vec::new();
    let mut walk = Tree::open(bytes)?.walk();
    while let Some(event) = walk.next_event()? {
        lines.push(match event {
            Event::Begin(name) => format!("begin {:?}", String::from_utf8_lossy(name)),
            Event::Property(name, value) => {
                format!(
                    "{:?} = {:x?}",
                    String::from_utf8_lossy(name.bytes()?),
                    value.bytes()
                )
            }
            Event::End => "end".to_owned(),
        });
    }
    Ok(lines)
}

fn theirs(node: FdtNode<'_>, lines: &mut Vec<String>) {
    lines.push(format!("begin {:?}", node.name()));
    for property in node.properties() {
        lines.push(format!("{:?} = {:x?}", property.name(), property.value()));
    }
    for child in node.children() {
        theirs(child, lines);
    }
    lines.push("end".to_owned());
}

fn by_dtoolkit(bytes: &[u8]) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    theirs(Fdt::new(bytes).ok()?.root(), &mut lines);
    Some(lines)
}

#[test]
fn every_node_and_property_of_real_trees_is_read_as_another_parser_reads_it() {
    for sample in SAMPLES {
        let blob = Blob::new(sample);
        let lines = ours(blob.bytes()).unwrap();
        assert!(lines.len() > 300);
        assert_eq!(Some(lines), by_dtoolkit(blob.bytes()));
    }
}

#[test]
fn a_blob_may_be_longer_than_its_header_says_but_not_shorter() {
    let blob = Blob::new(&[SAMPLES[0], &[0xff; 100]].concat());
    assert!(ours(blob.bytes()).is_ok());
    for len in 0..SAMPLES[0].len() {
        let cut = Blob::new(&SAMPLES[0][..len]);
        assert_eq!(ours(cut.bytes()), Err(TreeFault::Truncated), "{len}");
    }
}

/// What is behind the used part is never looked at.
#[test]
fn the_used_part_says_all() {
    for blob in SAMPLES {
        let header = blob.first_chunk().unwrap();
        let used = used_len(header, blob.len());
        assert!(used > 40 && used <= blob.len());
        // A copy, which is aligned as the walk wants it.
        let mut cut = blob.to_vec();
        let whole = read_board(&cut).is_ok();
        cut[used..].fill(0xff);
        assert_eq!(read_board(&cut).is_ok(), whole);
        let mut roomy = blob.to_vec();
        roomy.resize(1 << 20, 0xff);
        roomy[4..8].copy_from_slice(&(1_u32 << 20).to_be_bytes());
        let roomy_header = roomy.first_chunk().unwrap();
        assert_eq!(used_len(roomy_header, roomy.len()), used);
    }
    // A map of reservations behind the rest has no known end; lengths that lie end with the blob.
    let mut header: [u8; 40] = *SAMPLES[0].first_chunk().unwrap();
    header[16..20].copy_from_slice(&9000_u32.to_be_bytes());
    assert_eq!(used_len(&header, 10_000), 10_000);
    assert_eq!(used_len(&[0xff; 40], 10_000), 10_000);
    header[16..20].copy_from_slice(&40_u32.to_be_bytes());
    header[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(used_len(&header, 10_000), 10_000);
}

#[test]
fn the_length_is_read_from_the_header_alone() {
    let header: [u8; 40] = SAMPLES[0][..40].try_into().unwrap();
    assert_eq!(blob_len(&header), Ok(SAMPLES[0].len()));
    assert_eq!(blob_len(&[0; 40]), Err(TreeFault::Magic(0)));
    let mut huge = header;
    huge[4] = 0x7f;
    assert!(matches!(blob_len(&huge), Err(TreeFault::TooLarge(_))));
}

/// Changes one word of the header.
fn with_header_word(index: usize, word: u32) -> Blob {
    let mut bytes = SAMPLES[0].to_vec();
    bytes[index * 4..][..4].copy_from_slice(&word.to_be_bytes());
    Blob::new(&bytes)
}

#[test]
fn each_lie_of_the_header_is_told_by_name() {
    let len = u32::try_from(SAMPLES[0].len()).unwrap();
    for (index, word, fault) in [
        (0, 0xedfe_0dd0, TreeFault::Magic(0xedfe_0dd0)),
        (1, len + 1, TreeFault::Truncated),
        (1, 39, TreeFault::Truncated),
        (1, u32::MAX, TreeFault::TooLarge(u32::MAX)),
        (2, len, TreeFault::Block("structure")),
        (2, u32::MAX, TreeFault::Block("structure")),
        (2, 0, TreeFault::Block("structure")),
        (2, 65, TreeFault::Block("structure")),
        (3, u32::MAX, TreeFault::Block("strings")),
        (4, u32::MAX, TreeFault::Block("reservation")),
        (4, 41, TreeFault::Block("reservation")),
        (5, 16, TreeFault::Version(16)),
        (6, 18, TreeFault::Version(17)),
        (8, u32::MAX, TreeFault::Block("strings")),
        (9, u32::MAX, TreeFault::Block("structure")),
        (9, 7, TreeFault::Block("structure")),
    ] {
        let blob = with_header_word(index, word);
        assert_eq!(ours(blob.bytes()), Err(fault), "word {index} = {word:#x}");
    }
}

#[test]
fn depth_and_number_of_nodes_are_bounded() {
    let deep = |levels: usize| {
        Blob::tree(|root| {
            (1..levels).for_each(|_| root.begin_node("a"));
            (1..levels).for_each(|_| root.end_node());
        })
    };
    assert!(ours(deep(16).bytes()).is_ok());
    assert!(matches!(ours(deep(17).bytes()), Err(TreeFault::TooDeep(_))));
    let wide = |nodes: usize| Blob::tree(|root| (1..nodes).for_each(|_| root.node("", |_| ())));
    assert!(ours(wide(4096).bytes()).is_ok());
    assert_eq!(ours(wide(4097).bytes()), Err(TreeFault::TooManyNodes));
}

#[test]
fn a_property_behind_a_child_is_refused() {
    let blob = Blob::tree(|root| {
        root.prop_empty("first");
        root.node("child", |_| ());
    });
    // Moves the property behind the child: PROP 0 0 | BEGIN "child" END becomes the reverse.
    let mut bytes = blob.bytes().to_vec();
    let structs = 56 + 8;
    bytes[structs..structs + 28].rotate_left(12);
    let result = ours(Blob::new(&bytes).bytes());
    assert!(
        matches!(result, Err(TreeFault::PropertyAfterChild(_))),
        "{result:?}"
    );
}

#[test]
fn tokens_that_do_nothing_are_passed_over_between_properties_too() {
    let blob = Blob::tree(|root| {
        root.prop_str("model", "x");
        root.prop_u32("#address-cells", 1);
        root.prop_str("compatible", "y");
    });
    // Rubs the middle property out, as fdt_nop_property() does.
    let mut bytes = blob.bytes().to_vec();
    let at = 56 + 8 + 16;
    bytes[at..at + 16].copy_from_slice(&[0, 0, 0, 4].repeat(4));
    let lines = ours(Blob::new(&bytes).bytes()).unwrap();
    assert_eq!(
        lines,
        [
            "begin \"\"",
            "\"model\" = [78, 0]",
            "\"compatible\" = [79, 0]",
            "end"
        ]
    );
    assert_eq!(read_board(Blob::new(&bytes).bytes()).unwrap().model, "x");
}

/// One thing that goes wrong with a blob.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Word(usize, u32),
    Copy(usize, usize),
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (
            any::<usize>(),
            prop_oneof![any::<u32>(), 0..16_u32, Just(u32::MAX)]
        )
            .prop_map(|(at, word)| Damage::Word(at, word)),
        (0..10_usize, 0..0x3000_u32).prop_map(|(at, word)| Damage::Word(at, word)),
        (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Damage::Copy(from, to)),
        any::<usize>().prop_map(Damage::Cut),
    ]
}

fn damaged(sample: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for damage in damages {
        let words = bytes.len() / 4;
        if words == 0 {
            break;
        }
        match *damage {
            Damage::Flip(at, bit) => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            Damage::Word(at, word) => {
                bytes[at % words * 4..][..4].copy_from_slice(&word.to_be_bytes());
            }
            Damage::Copy(from, to) => {
                bytes.copy_within(from % words * 4..from % words * 4 + 4, to % words * 4);
            }
            Damage::Cut(len) => bytes.truncate(len % (bytes.len() + 1)),
        }
    }
    bytes
}

/// A configuration, so that its reader gets its share of damage.
fn configuration() -> Vec<u8> {
    let blob = Blob::tree(|root| {
        root.node("chosen", |chosen| {
            chosen.node("victim", |node| {
                node.prop_str_list("compatible", &["firebreak,domain", "xen,domain"]);
                node.prop_u32("#address-cells", 2);
                node.prop_u32("#size-cells", 2);
                node.prop_u32("cpus", 1);
                node.prop_u64("memory", 0x4000);
                node.prop_u64_list("firebreak,mpidr", &[3]);
                node.prop_str("firebreak,on-uer", "retire:0xc11");
                node.node("kernel", |module| {
                    module.prop_str_list("compatible", &["multiboot,kernel", "multiboot,module"]);
                    module.prop_u64_list("reg", &[0x1_0000, 0x1000]);
                    module.prop_str("bootargs", "quiet");
                });
            });
        });
    });
    blob.bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_damage_makes_a_reader_panic_or_read_what_another_parser_does_not(
        which in 0..3_usize,
        damages in proptest::collection::vec(damage(), 1..5),
    ) {
        let sample = SAMPLES.get(which).map_or_else(configuration, |sample| sample.to_vec());
        let blob = Blob::new(&damaged(&sample, &damages));
        let bytes = blob.bytes();
        // Errors must be printable, whatever they quote.
        let _ = read_board(bytes).map_err(|error| error.to_string());
        let _ = read_config(bytes, Pa::new(0x4020_0000)).map_err(|error| error.to_string());
        if let (Ok(ours), Some(theirs)) = (ours(bytes), by_dtoolkit(bytes)) {
            prop_assert_eq!(ours, theirs);
        }
    }
}

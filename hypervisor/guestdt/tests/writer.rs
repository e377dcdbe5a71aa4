// SPDX-License-Identifier: MIT OR Apache-2.0
//! The writer's bounds, and what it does with nonsense.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use firebreak_guestdt::{FdtWriter, MAX_NAMES, MAX_NAMES_BYTES, WriteError};

fn write(inside: impl FnOnce(&mut FdtWriter<'_>)) -> Result<Vec<u8>, WriteError> {
    let mut buf = vec![0; 0x2_0000];
    let mut tree = FdtWriter::new(&mut buf);
    inside(&mut tree);
    let len = tree.finish()?;
    buf.truncate(len);
    Ok(buf)
}

#[test]
fn every_kind_of_value_comes_back() {
    let blob = write(|tree| {
        tree.node("", |root| {
            root.prop_empty("empty");
            root.prop_u32("u32", 0x1234_5678);
            root.prop_u64("u64", 0x1234_5678_9abc_def0);
            root.prop_cells("cells", &[1, 2, 3]);
            root.prop_u64_list("list", &[1, u64::MAX]);
            root.prop_str("text", "héllo");
            root.prop_str_list("texts", &["a", "", "bc"]);
            root.prop_bytes("bytes", &[1, 2, 3, 4, 5]);
            root.node_at("unit", 0, |_| ());
            root.node_at("unit", 0xfeed_0000_0000_0001, |_| ());
        });
    })
    .unwrap();
    let root = Fdt::new(&blob).unwrap().root();
    let values: Vec<_> = root
        .properties()
        .map(|one| (one.name().to_owned(), one.value().to_vec()))
        .collect();
    let expected: [(&str, &[u8]); 8] = [
        ("empty", b""),
        ("u32", &[0x12, 0x34, 0x56, 0x78]),
        ("u64", &[0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0]),
        ("cells", &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]),
        (
            "list",
            &[
                0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255,
            ],
        ),
        ("text", "héllo\0".as_bytes()),
        ("texts", b"a\0\0bc\0"),
        ("bytes", &[1, 2, 3, 4, 5]),
    ];
    assert_eq!(
        values,
        expected.map(|(name, value)| (name.to_owned(), value.to_vec()))
    );
    let children: Vec<_> = root
        .children()
        .map(|child| child.name().to_owned())
        .collect();
    assert_eq!(children, ["unit@0", "unit@feed000000000001"]);
}

#[test]
fn a_name_is_stored_once() {
    let one = write(|tree| tree.node("", |root| root.prop_u32("reg", 1))).unwrap();
    let two = write(|tree| {
        tree.node("", |root| {
            root.prop_u32("reg", 1);
            root.prop_u32("reg", 1);
        });
    })
    .unwrap();
    assert_eq!(two.len() - one.len(), 16);
}

#[test]
fn nodes_must_be_nested_and_properties_come_first() {
    type Nonsense = fn(&mut FdtWriter<'_>);
    let nonsense: [Nonsense; 7] = [
        |_| (),
        |tree| tree.begin_node(""),
        |tree| tree.end_node(),
        |tree| tree.prop_empty("x"),
        |tree| {
            tree.node("", |_| ());
            tree.node("", |_| ());
        },
        |tree| {
            tree.node("", |_| ());
            tree.prop_empty("x");
        },
        |tree| {
            tree.node("", |root| {
                root.node("child", |_| ());
                root.prop_empty("x");
            });
        },
    ];
    for inside in nonsense {
        assert_eq!(write(inside), Err(WriteError::Misplaced));
    }
}

#[test]
fn the_room_for_names_is_bounded() {
    let with_names = |count: usize| {
        write(|tree| {
            tree.node("", |root| {
                (0..count).for_each(|index| root.prop_empty(&format!("p{index}")))
            });
        })
    };
    assert!(with_names(MAX_NAMES).is_ok());
    assert_eq!(with_names(MAX_NAMES + 1), Err(WriteError::NamesFull));
    let with_length =
        |len: usize| write(|tree| tree.node("", |root| root.prop_empty(&"x".repeat(len))));
    assert!(with_length(MAX_NAMES_BYTES - 1).is_ok());
    assert_eq!(with_length(MAX_NAMES_BYTES), Err(WriteError::NamesFull));
}

#[test]
fn a_nul_in_a_name_is_refused() {
    assert_eq!(
        write(|tree| tree.node("", |root| root.node("a\0b", |_| ()))),
        Err(WriteError::Nul)
    );
    assert_eq!(
        write(|tree| tree.node("", |root| root.prop_empty("a\0"))),
        Err(WriteError::Nul)
    );
}

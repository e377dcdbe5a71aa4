// SPDX-License-Identifier: MIT OR Apache-2.0

use std::path::Path;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node as _, Property as _};
use proptest::prelude::*;

use super::tree::{self, Node, Piece, Property};
use super::{entries, parse, print_blob};
use crate::diagnostic::Source;

fn source(text: &str) -> Source {
    Source::new(Path::new("test.dts"), text).as_dts()
}

fn read(text: &str) -> Node {
    let source = source(text);
    tree::resolve(parse::parse(&source).unwrap(), &source).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    let root = read(&format!("/dts-v1/;\n/ {{ x: y {{ }}; a = {text}; }};"));
    root.property("a").unwrap().bytes()
}

fn refused(text: &str) -> (String, usize) {
    let source = source(text);
    let problem = parse::parse(&source)
        .and_then(|root| tree::resolve(root, &source))
        .unwrap_err();
    assert!(!problem.remedy.is_empty());
    let span = problem.span.unwrap();
    assert!(span.start < span.end && span.end <= text.len(), "{span:?}");
    (problem.message, source.position(span.start).0)
}

#[test]
fn every_form_of_a_value_gives_the_bytes_of_a_blob() {
    assert_eq!(bytes("<1 0x10 010>"), [0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 8]);
    assert_eq!(
        bytes("<'a' 0xffffffffUL>"),
        [0, 0, 0, 97, 255, 255, 255, 255]
    );
    assert_eq!(bytes("/bits/ 8 <1 2>, /bits/ 16 <3>"), [1, 2, 0, 3]);
    assert_eq!(bytes("/bits/ 64 <0x100000000>"), [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(bytes("[00 1f e 0]"), [0, 0x1f, 0xe0]);
    assert_eq!(bytes("\"a\\n\\x41\\101\\\"\", \"\""), *b"a\nAA\"\0\0");
    assert_eq!(bytes("&x, <&x>"), *b"/y\0\0\0\0\x01");
    assert_eq!(bytes("&{/y}"), *b"/y\0");
    assert_eq!(
        bytes("<1>, /* between */ \"z\" // behind\n"),
        *b"\0\0\0\x01z\0"
    );
}

#[test]
fn later_words_are_put_over_earlier_ones() {
    let root = read(
        "# 1 \"before.dts\"\n/dts-v1/;\n/memreserve/ 0x0 0x1000;\n\
         / { a: b@1 { x = <1>; y; gone { }; }; c { }; };\n\
         &a { x = <2>; /delete-node/ gone; };\n/ { b@1 { /delete-property/ y; z; }; };\n\
         /delete-node/ &{/c};\n",
    );
    let node = root.child("b@1").unwrap();
    assert_eq!(node.property("x").unwrap().cells(), Some(vec![2]));
    assert!(node.property("z").is_some());
    // Deleting speaks of what stands before it in the same node.
    let text = "/dts-v1/; / { a { x; /delete-property/ x; b { }; /delete-node/ b; }; };";
    let node = read(text);
    let node = node.child("a").unwrap();
    assert!(node.properties.is_empty() && node.children.is_empty());
    assert!(root.child("c").is_none());
}

#[test]
fn what_is_no_source_is_refused_at_its_line() {
    for (text, words, line) in [
        ("", "`/dts-v1/;`", 0),
        ("/ { };", "`/dts-v1/;` in the first line", 1),
        ("/dts-v1/;\n/ {", "the end of the file", 2),
        ("/dts-v1/;\n/ {\n}", "the end of the file where `;`", 3),
        ("/dts-v1/;\n/ { a = ; };", "a value", 2),
        ("/dts-v1/;\n/ { a = <1; };", "a number", 2),
        (
            "/dts-v1/;\n/ { a = <0x100000000>; };",
            "no number of 32 bits",
            2,
        ),
        ("/dts-v1/;\n/ { a = <-1>; };", "no number of 32 bits", 2),
        ("/dts-v1/;\n/ { a = <(1 + 1)>; };", "arithmetic", 2),
        ("/dts-v1/;\n/ { a = <'ab'>; };", "not one character", 2),
        ("/dts-v1/;\n/ { a = \"open; };", "no end", 2),
        ("/dts-v1/;\n/ { a = [0]; };", "two digits", 2),
        ("/dts-v1/;\n/ { a = \"\\xg\"; };", "escape", 2),
        ("/dts-v1/;\n/ { a = /bits/ 7 <1>; };", "7 bits", 2),
        (
            "/dts-v1/;\n/ { a = <&none>; };",
            "nothing is labelled `none`",
            2,
        ),
        ("/dts-v1/;\n/ { a; a; };", "twice, first in line 2", 2),
        ("/dts-v1/;\n&none { };", "`none` so far", 2),
        ("/dts-v1/;\n/delete-node/ &b;", "no node `b`", 2),
        ("/dts-v1/;\n/* open", "comment", 2),
        ("/dts-v1/;\n/include/ \"a.dtsi\"", "other files", 2),
        ("#include <a.h>\n/dts-v1/;", "other files", 1),
        ("/dts-v1/;\n#define A 1\n/ { };", "macros", 2),
        ("/dts-v1/;\n/plugin/;", "overlay", 2),
        ("/dts-v1/;\n/ { a = /incbin/(\"a\"); };", "other files", 2),
    ] {
        if text.is_empty() {
            let source = source(text);
            assert!(parse::parse(&source).unwrap_err().message.contains(words));
            continue;
        }
        let (message, at) = refused(text);
        assert!(message.contains(words), "{text:?}: {message}");
        assert_eq!(at, line, "{text:?}");
    }
    let deep = format!("/dts-v1/; / {{ {}", "a { ".repeat(100_000));
    assert!(refused(&deep).0.contains("64 levels"));
}

fn same(node: &Node, blob: &FdtNode<'_>, path: &str) {
    let properties: Vec<_> = blob.properties().collect();
    assert_eq!(node.properties.len(), properties.len(), "{path}");
    for (one, other) in node.properties.iter().zip(properties) {
        assert_eq!(one.name, other.name(), "{path}");
        assert_eq!(one.bytes(), other.value(), "{path}: {}", one.name);
    }
    let children: Vec<_> = blob.children().collect();
    assert_eq!(node.children.len(), children.len(), "{path}");
    for (one, other) in node.children.iter().zip(&children) {
        assert_eq!(one.name, other.name(), "{path}");
        same(one, other, &format!("{path}/{}", one.name));
    }
}

/// QEMU's own trees, printed as source and read back, are what they were.
#[test]
fn real_blobs_survive_printing_and_reading() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/dtb");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|one| one != "dtb") {
            continue;
        }
        let blob = std::fs::read(&path).unwrap();
        let root = read(&print_blob(&blob).unwrap());
        // An independent reader; it does not know names as long as the Versal's.
        if let Ok(blob) = Fdt::new(&blob) {
            same(&root, &blob.root(), "");
            count += 1;
        }
    }
    assert!(count >= 2);
}

fn any_node() -> impl Strategy<Value = Node> {
    let property = (
        "[a-z,#][a-z0-9,._+?#-]{0,12}",
        proptest::collection::vec(any::<u8>(), 0..12),
    )
        .prop_map(|(name, bytes)| Property {
            name,
            span: 0..0,
            value_span: 0..0,
            pieces: vec![Piece::Bytes(bytes)],
        });
    let leaf = (
        "[a-z][a-z0-9@]{0,8}",
        proptest::collection::vec(property, 0..4),
    )
        .prop_map(|(name, mut properties)| {
            properties.sort_by(|a, b| a.name.cmp(&b.name));
            properties.dedup_by(|a, b| a.name == b.name);
            Node {
                name,
                properties,
                ..Node::default()
            }
        });
    leaf.clone().prop_recursive(4, 24, 4, move |child| {
        (leaf.clone(), proptest::collection::vec(child, 0..4)).prop_map(
            |(mut node, mut children)| {
                children.sort_by(|a, b| a.name.cmp(&b.name));
                children.dedup_by(|a, b| a.name == b.name);
                node.children = children;
                node
            },
        )
    })
}

fn print(node: &Node, name: &str, into: &mut String) {
    *into += &format!("{name} {{\n");
    for property in &node.properties {
        let bytes: Vec<_> = property
            .bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        *into += &format!("{} = [{}];\n", property.name, bytes.join(" "));
    }
    for child in &node.children {
        print(child, &child.name, into);
    }
    *into += "};\n";
}

fn is_same(one: &Node, other: &Node) -> bool {
    let of = |node: &Node| -> Vec<_> {
        node.properties
            .iter()
            .map(|property| (property.name.clone(), property.bytes()))
            .collect()
    };
    of(one) == of(other)
        && one.children.len() == other.children.len()
        && one
            .children
            .iter()
            .zip(&other.children)
            .all(|(one, other)| one.name == other.name && is_same(one, other))
}

const WORDS: [&str; 24] = [
    "/dts-v1/;",
    "/",
    "{",
    "}",
    ";",
    "chosen",
    "=",
    "<",
    ">",
    "\"",
    "&",
    ":",
    "compatible",
    "\"xen,domain\"",
    "cpus",
    "<1>",
    "memory",
    "<0 0x4000>",
    "kernel",
    "multiboot,kernel",
    "[",
    "]",
    "/bits/",
    "/*",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_survives_printing_and_reading(root in any_node()) {
        let mut text = "/dts-v1/;\n".to_owned();
        print(&root, "/", &mut text);
        prop_assert!(is_same(&read(&text), &root), "{text}");
    }

    #[test]
    fn damaged_source_is_refused_or_read_and_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<char>()), 1..6)
    ) {
        let mut text = include_str!("../../../../guest-images/demo/firebreak.dts").to_owned();
        for (at, kind, new) in edits {
            if text.is_empty() {
                break;
            }
            let mut at = at.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            match kind {
                0 => text.truncate(at.max(1)),
                1 => text.insert(at, new),
                _ => drop(text.remove(at)),
            }
        }
        told(&text);
    }

    #[test]
    fn words_in_any_order_never_panic(
        words in proptest::collection::vec(prop::sample::select(WORDS.as_slice()), 0..40)
    ) {
        told(&format!("/dts-v1/; / {{ {}", words.join(" ")));
        told(&words.join(" "));
    }
}

/// Reads whatever it is; each problem can be shown.
fn told(text: &str) {
    let source = source(text);
    let mut problems = Vec::new();
    if let Err(problem) = entries(&source, &mut problems) {
        problems.push(problem);
    }
    for problem in problems {
        let span = problem.span.clone().unwrap();
        assert!(
            source.text().get(span).is_some(),
            "a span splits a character"
        );
        assert!(!crate::Diagnostics::from(problem).render(false).is_empty());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devicetree source, version 1 (Devicetree Specification 0.4, chapter 6), with places.
//!
//! What needs other files (`/include/`, `#include`, `/incbin/`), macros and arithmetic is not
//! read: `dtc` and the C preprocessor turn such a file into one that is.

use std::ops::Range;

use super::tree::{Node, Piece, Property};
use crate::diagnostic::{Problem, Source};

/// The deepest nesting of nodes: that of the readers of blobs, and far beyond any machine's.
const MOST_DEPTH: usize = 64;

/// Reads a whole file into its root node; references are left as they are.
pub(super) fn parse(source: &Source) -> Result<Node, Problem> {
    let mut parser = Parser {
        source,
        text: source.text().as_bytes(),
        at: 0,
        depth: 0,
    };
    parser.file()
}

struct Parser<'s> {
    source: &'s Source,
    text: &'s [u8],
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, Problem>;

const NAME: &[u8] = b",._+*#?@-/";

impl<'s> Parser<'s> {
    fn wrong<T>(&self, span: Range<usize>, message: impl Into<String>, remedy: &str) -> Parsed<T> {
        let label = "not understood";
        Err(Problem::error(self.source, span, message, label, remedy))
    }

    /// Refuses what stands here, where something else is wanted.
    fn unexpected<T>(&self, wanted: &str) -> Parsed<T> {
        let rest = self.source.text().get(self.at..).unwrap_or_default();
        let found = match rest.chars().next() {
            None => "the end of the file".to_owned(),
            Some(one) if one.is_control() => "a control character".to_owned(),
            Some(one) => format!("`{one}`"),
        };
        let end = rest.chars().next().map_or(0, char::len_utf8);
        // At the end, the last character is shown.
        let span = match end {
            0 => self.at.saturating_sub(1)..self.at,
            _ => self.at..self.at + end,
        };
        self.wrong(
            span,
            format!("this is not devicetree source: {found} where {wanted} is wanted"),
            "correct the syntax here; `dtc -I dts -O dts` of the devicetree compiler prints the \
             same tree in its plainest form",
        )
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn starts_with(&self, word: &str) -> bool {
        self.text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
    }

    /// Passes over white space, comments, and the preprocessor's marks of lines.
    fn space(&mut self) -> Parsed<()> {
        loop {
            if self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
                self.at += 1;
            } else if self.starts_with("//") {
                self.line();
            } else if self.starts_with("/*") {
                let start = self.at;
                self.at += 2;
                while !self.starts_with("*/") {
                    if self.at >= self.text.len() {
                        let remedy = "end it with */";
                        return self.wrong(start..start + 2, "this comment has no end", remedy);
                    }
                    self.at += 1;
                }
                self.at += 2;
            } else if self.marks_line() {
                self.line();
            } else {
                return Ok(());
            }
        }
    }

    /// Says whether a mark such as `# 1 "file.dts"` stands here.
    fn marks_line(&self) -> bool {
        let begins = self.at == 0 || self.text.get(self.at - 1) == Some(&b'\n');
        let number = self.text.get(self.at + 2).is_some_and(u8::is_ascii_digit);
        begins && number && self.starts_with("# ")
    }

    fn line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    /// Takes a word if it stands here, and what is empty before and behind it.
    fn take(&mut self, word: &str) -> Parsed<bool> {
        self.space()?;
        if !self.starts_with(word) {
            return Ok(false);
        }
        self.at += word.len();
        self.space()?;
        Ok(true)
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.take(word)? {
            return Ok(());
        }
        self.unexpected(&format!("`{word}`"))
    }

    /// Takes what is made of letters, digits and `extra`.
    fn word(&mut self, extra: &[u8], what: &str) -> Parsed<(String, Range<usize>)> {
        self.space()?;
        let start = self.at;
        while self
            .peek()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
        {
            self.at += 1;
        }
        if start == self.at {
            return self.unexpected(what);
        }
        let word = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        Ok((word, start..self.at))
    }

    /// Takes `&label` or `&{/path}`.
    fn reference(&mut self) -> Parsed<(String, Range<usize>)> {
        let start = self.at;
        self.at += 1;
        let word = if self.peek() == Some(b'{') {
            self.at += 1;
            let (path, _) = self.word(NAME, "a path")?;
            if self.peek() != Some(b'}') {
                return self.unexpected("`}`");
            }
            self.at += 1;
            path
        } else {
            self.word(b"_", "a label")?.0
        };
        Ok((word, start..self.at))
    }

    /// Takes labels.
    fn labels(&mut self) -> Parsed<Vec<String>> {
        let mut labels = Vec::new();
        loop {
            self.space()?;
            let start = self.at;
            while self
                .peek()
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                self.at += 1;
            }
            if start == self.at || self.peek() != Some(b':') {
                self.at = start;
                return Ok(labels);
            }
            labels.push(String::from_utf8_lossy(&self.text[start..self.at]).into_owned());
            self.at += 1;
        }
    }

    fn file(&mut self) -> Parsed<Node> {
        let mut root = Node::default();
        let mut begun = false;
        loop {
            self.space()?;
            self.refuse_directives()?;
            if self.at >= self.text.len() {
                break;
            }
            if self.take("/dts-v1/")? {
                self.expect(";")?;
                begun = true;
                continue;
            }
            if !begun {
                return self.unexpected("`/dts-v1/;` in the first line");
            }
            if self.take("/memreserve/")? {
                self.word(b"", "a number")?;
                self.word(b"", "a number")?;
                self.expect(";")?;
            } else if self.take("/delete-node/")? {
                let (reference, span) = self.reference()?;
                self.expect(";")?;
                self.delete(&mut root, &reference, span)?;
            } else {
                self.top(&mut root)?;
            }
        }
        if !begun {
            return self.unexpected("`/dts-v1/;`");
        }
        Ok(root)
    }

    fn refuse_directives(&self) -> Parsed<()> {
        const PREPROCESS: &str = "run the C preprocessor and the devicetree compiler first: \
                                  cpp -nostdinc -undef -x assembler-with-cpp FILE | dtc -I dts -O dts";
        for (word, message, remedy) in [
            ("/include/", "other files are not read", PREPROCESS),
            ("#include", "other files are not read", PREPROCESS),
            ("#define", "macros are not read", PREPROCESS),
            ("#if", "macros are not read", PREPROCESS),
            (
                "/plugin/",
                "an overlay is no whole tree",
                "apply it to its base first: fdtoverlay -i BASE.dtb -o WHOLE.dtb OVERLAY.dtbo",
            ),
            (
                "/incbin/",
                "other files are not read",
                "let the devicetree compiler do it: dtc -I dts -O dtb",
            ),
        ] {
            if self.starts_with(word) {
                return self.wrong(self.at..self.at + word.len(), message, remedy);
            }
        }
        Ok(())
    }

    fn delete(&self, root: &mut Node, reference: &str, span: Range<usize>) -> Parsed<()> {
        fn forget(node: &mut Node, label: &str) -> bool {
            let before = node.children.len();
            node.children
                .retain(|child| !child.labels.iter().any(|one| one == label));
            before != node.children.len()
                || node.children.iter_mut().any(|child| forget(child, label))
        }
        let found = match reference.rsplit_once('/') {
            None => forget(root, reference),
            Some((parent, name)) => {
                let parent = if parent.is_empty() { "/" } else { parent };
                root.find_mut(parent).is_some_and(|parent| {
                    let before = parent.children.len();
                    parent.children.retain(|child| child.name != name);
                    before != parent.children.len()
                })
            }
        };
        if found {
            return Ok(());
        }
        let message = format!("there is no node `{reference}` to delete");
        self.wrong(span, message, "correct the reference")
    }

    /// Takes the root, or an addition to a node that is there.
    fn top(&mut self, root: &mut Node) -> Parsed<()> {
        let labels = self.labels()?;
        self.space()?;
        let start = self.at;
        if self.peek() == Some(b'&') {
            let (reference, span) = self.reference()?;
            let mut node = self.body(String::new(), span.clone())?;
            node.labels = labels;
            let Some(known) = root.find_mut(&reference) else {
                let message = format!("nothing is labelled `{reference}` so far");
                return self.wrong(
                    span,
                    message,
                    "describe the node before what is added to it",
                );
            };
            known.merge(node);
            return Ok(());
        }
        if !self.take("/")? {
            return self.unexpected("a node such as `/ { ... };`");
        }
        let mut node = self.body(String::new(), start..start + 1)?;
        node.labels = labels;
        if root.span.is_empty() {
            root.span = node.span.clone();
        }
        root.merge(node);
        Ok(())
    }

    /// Takes `{ ... };`.
    fn body(&mut self, name: String, span: Range<usize>) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            let message = format!("nodes are nested deeper than {MOST_DEPTH} levels");
            return self.wrong(span, message, "describe the machine in fewer levels");
        }
        self.expect("{")?;
        let mut node = Node {
            name,
            span,
            ..Node::default()
        };
        while !self.take("}")? {
            self.refuse_directives()?;
            self.member(&mut node)?;
        }
        self.expect(";")?;
        self.depth -= 1;
        Ok(node)
    }

    /// Takes a property or a child.
    fn member(&mut self, node: &mut Node) -> Parsed<()> {
        if self.take("/delete-property/")? {
            let (name, _) = self.word(NAME, "a property's name")?;
            node.delete_property(name);
            return self.expect(";");
        }
        if self.take("/delete-node/")? {
            let (name, _) = self.word(NAME, "a node's name")?;
            node.delete_child(name);
            return self.expect(";");
        }
        self.take("/omit-if-no-ref/")?;
        let labels = self.labels()?;
        let (name, span) = self.word(&NAME[..NAME.len() - 1], "a name or `}`")?;
        self.space()?;
        if self.peek() == Some(b'{') {
            let mut child = self.body(name.clone(), span)?;
            child.labels = labels;
            match node.children.iter_mut().find(|one| one.name == name) {
                Some(known) => known.merge(child),
                None => node.children.push(child),
            }
            return Ok(());
        }
        if let Some(first) = node.property(&name) {
            let (line, _) = self.source.position(first.span.start);
            let message = format!("`{name}` is here twice, first in line {line}");
            return self.wrong(span, message, "remove one of them");
        }
        let (pieces, value_span) = if self.take("=")? {
            self.values()?
        } else {
            (Vec::new(), span.clone())
        };
        self.expect(";")?;
        node.properties.push(Property {
            name,
            span,
            value_span,
            pieces,
        });
        Ok(())
    }

    fn values(&mut self) -> Parsed<(Vec<Piece>, Range<usize>)> {
        let start = self.at;
        let mut pieces = Vec::new();
        loop {
            self.refuse_directives()?;
            self.labels()?;
            self.value(&mut pieces)?;
            let end = self.at;
            self.labels()?;
            if !self.take(",")? {
                return Ok((pieces, start..end));
            }
        }
    }

    fn value(&mut self, pieces: &mut Vec<Piece>) -> Parsed<()> {
        match self.peek() {
            Some(b'"') => {
                let mut bytes = self.string(b'"')?;
                bytes.push(0);
                pieces.push(Piece::Bytes(bytes));
            }
            Some(b'&') => {
                let (to, span) = self.reference()?;
                pieces.push(Piece::Path(to, span));
            }
            Some(b'[') => {
                let bytes = self.hexadecimal()?;
                pieces.push(Piece::Bytes(bytes));
            }
            Some(b'<') => self.cells(32, pieces)?,
            Some(b'/') if self.take("/bits/")? => {
                let (bits, span) = self.word(b"", "8, 16, 32 or 64")?;
                self.space()?;
                match bits.as_str() {
                    "8" => self.cells(8, pieces)?,
                    "16" => self.cells(16, pieces)?,
                    "32" => self.cells(32, pieces)?,
                    "64" => self.cells(64, pieces)?,
                    _ => {
                        let message = format!("cells cannot have {bits} bits");
                        return self.wrong(span, message, "use 8, 16, 32 or 64");
                    }
                }
            }
            _ => return self.unexpected("a value such as <1>, \"text\", [00 ff] or &label"),
        }
        Ok(())
    }

    /// Takes a string or a character with its escapes (as in C).
    fn string(&mut self, quote: u8) -> Parsed<Vec<u8>> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let Some(byte) = self.peek() else {
                let remedy = "end it with the quote that began it";
                return self.wrong(start..start + 1, "this text has no end", remedy);
            };
            self.at += 1;
            match byte {
                _ if byte == quote => return Ok(bytes),
                b'\\' => bytes.push(self.escape()?),
                _ => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Parsed<u8> {
        let start = self.at - 1;
        let Some(byte) = self.peek() else {
            return self.unexpected("the rest of an escape");
        };
        self.at += 1;
        Ok(match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'x' => self.digits(16, 2, start)?,
            b'0'..=b'7' => {
                self.at -= 1;
                self.digits(8, 3, start)?
            }
            other => other,
        })
    }

    fn digits(&mut self, radix: u32, most: usize, start: usize) -> Parsed<u8> {
        let mut value = 0_u32;
        let mut count = 0;
        while count < most
            && let Some(digit) = self
                .peek()
                .and_then(|byte| char::from(byte).to_digit(radix))
        {
            value = value * radix + digit;
            self.at += 1;
            count += 1;
        }
        match u8::try_from(value) {
            Ok(byte) if count > 0 => Ok(byte),
            _ => self.wrong(
                start..self.at,
                "this escape is no byte",
                "write \\x and two digits",
            ),
        }
    }

    /// Takes `[00 ff]`.
    fn hexadecimal(&mut self) -> Parsed<Vec<u8>> {
        self.expect("[")?;
        let mut digits = Vec::new();
        let start = self.at;
        while !self.take("]")? {
            match self.peek().and_then(|byte| char::from(byte).to_digit(16)) {
                // A digit of base 16 is below 16.
                Some(digit) => digits.push(digit as u8),
                None => return self.unexpected("a hexadecimal digit or `]`"),
            }
            self.at += 1;
        }
        if !digits.len().is_multiple_of(2) {
            let end = self.at;
            return self.wrong(
                start..end,
                "a byte has two digits",
                "write two digits for each byte",
            );
        }
        Ok(digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect())
    }

    /// Takes `<...>`.
    fn cells(&mut self, bits: u32, pieces: &mut Vec<Piece>) -> Parsed<()> {
        self.expect("<")?;
        let mut bytes = Vec::new();
        while !self.take(">")? {
            self.labels()?;
            match self.peek() {
                Some(b'&') if bits == 32 => {
                    let (to, span) = self.reference()?;
                    pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                    pieces.push(Piece::Phandle(to, span));
                }
                Some(b'(') => {
                    let span = self.at..self.at + 1;
                    let remedy = "write the number that comes out";
                    return self.wrong(span, "arithmetic is not read", remedy);
                }
                Some(b'\'') => {
                    let start = self.at;
                    let text = self.string(b'\'')?;
                    let [one] = text.as_slice() else {
                        let span = start..self.at;
                        return self.wrong(span, "this is not one character", "write one");
                    };
                    push(&mut bytes, u64::from(*one), bits);
                }
                Some(b'-' | b'0'..=b'9') => {
                    let number = self.number(bits)?;
                    push(&mut bytes, number, bits);
                }
                _ => return self.unexpected("a number, &label or `>`"),
            }
        }
        pieces.push(Piece::Bytes(bytes));
        Ok(())
    }

    fn number(&mut self, bits: u32) -> Parsed<u64> {
        let (word, span) = self.word(b"-_", "a number")?;
        let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
        let number = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16),
            None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        let most = u64::MAX >> (64 - bits);
        match number {
            Ok(number) if number <= most => Ok(number),
            _ => {
                let message = format!("`{word}` is no number of {bits} bits");
                let remedy = if bits == 32 {
                    "write a whole number below 2^32; a larger one takes two cells, the high one first"
                } else {
                    "write a whole number that fits"
                };
                self.wrong(span, message, remedy)
            }
        }
    }
}

/// Adds a number in big endian.
fn push(bytes: &mut Vec<u8>, number: u64, bits: u32) {
    let all = number.to_be_bytes();
    let from = all.len() - (bits / 8) as usize;
    bytes.extend_from_slice(&all[from..]);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file as tables of values with the place of everything, so that each message can point at a
//! line.
//!
//! TOML becomes such tables here, a devicetree in `dts`. What reads them does not see which it
//! was, but for the words of its messages.

use std::ops::Range;

use firebreak_abi::PaRange;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Dialect, Problem, Source};
use crate::fields::{Field, NOT_YET, NotYet, elsewhere};

/// Something and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The thing.
    pub value: T,
    /// Its place, in bytes.
    pub span: Range<usize>,
}

/// A value as it was written.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// A number, or how it was written if it does not fit.
    Integer(Result<u64, String>),
    /// A truth value.
    Flag(bool),
    /// A list.
    List(Vec<At<Value>>),
    /// A table.
    Table(Vec<Entry>),
    /// Memory that a bootloader fills; a devicetree alone can say so.
    Loaded(PaRange),
    /// What no field takes.
    Other(&'static str),
}

impl Value {
    fn kind(&self) -> &str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(Err(text)) if text.starts_with('-') => text,
            Self::Integer(_) => "an integer",
            Self::Flag(_) => "a boolean",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
            Self::Loaded(_) => "a range of memory",
            Self::Other(kind) => kind,
        }
    }
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: At<String>,
    /// The value.
    pub value: At<Value>,
}

/// A table while its keys are taken one by one.
pub struct Table<'s, 'd> {
    /// The file that it stands in.
    pub source: &'s Source,
    entries: &'d [Entry],
    /// Where the table begins.
    pub span: Range<usize>,
    /// What the table is, for messages: "a partition".
    what: &'static str,
    known: Vec<&'static str>,
    /// The fields that it may have, where they are documented in a table.
    fields: Option<&'static [Field]>,
}

/// A whole TOML document.
#[derive(Clone, Debug)]
pub struct Document(Vec<Entry>);

impl Document {
    /// Returns its top table.
    pub fn get_ref(&self) -> &[Entry] {
        &self.0
    }
}

impl From<Document> for Vec<Entry> {
    fn from(document: Document) -> Self {
        document.0
    }
}

/// Parses a whole TOML document.
///
/// # Errors
///
/// What is no TOML, with its place.
pub fn parse(source: &Source) -> Result<Document, Problem> {
    let document = DeTable::parse(source.text()).map_err(|error| {
        let end = source.text().len();
        let span = error.span().unwrap_or(0..end.min(1));
        let message = format!("this is not TOML: {}", error.message());
        let remedy =
            "correct the syntax here, then run the check again (https://toml.io/en/v1.0.0)";
        Problem::error(source, span, message, "not understood", remedy)
    })?;
    Ok(Document(entries(document.get_ref())))
}

fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| Entry {
        key: At {
            value: AsRef::<str>::as_ref(key.get_ref()).to_owned(),
            span: key.span(),
        },
        value: At {
            value: toml_value(value.get_ref()),
            span: value.span(),
        },
    };
    table.iter().map(entry).collect()
}

fn toml_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => Value::Integer(
            u64::from_str_radix(integer.as_str(), integer.radix())
                .map_err(|_| integer.as_str().to_owned()),
        ),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(array) => {
            let one = |one: &toml::Spanned<DeValue<'_>>| At {
                value: toml_value(one.get_ref()),
                span: one.span(),
            };
            Value::List(array.iter().map(one).collect())
        }
        DeValue::Table(table) => Value::Table(entries(table)),
        DeValue::Float(_) => Value::Other("a float"),
        DeValue::Datetime(_) => Value::Other("a date"),
    }
}

impl<'s, 'd> Table<'s, 'd> {
    /// Wraps a table.
    pub fn new(
        source: &'s Source,
        entries: &'d [Entry],
        span: Range<usize>,
        what: &'static str,
    ) -> Self {
        Self {
            source,
            entries,
            span,
            what,
            known: Vec::new(),
            fields: None,
        }
    }

    /// Says which fields it may have; no other can be read then.
    #[must_use]
    pub(crate) fn of(mut self, fields: &'static [Field]) -> Self {
        self.known.extend(fields.iter().map(|field| field.key));
        self.fields = Some(fields);
        self
    }

    /// Names all keys at once, so that unknown ones can be told before the first is taken.
    #[must_use]
    pub fn knowing(mut self, keys: &[&'static str]) -> Self {
        self.known.extend(keys);
        self
    }

    fn get(&mut self, key: &'static str) -> Option<&'d At<Value>> {
        if !self.known.contains(&key) {
            // Nothing is read that is not documented.
            assert!(self.fields.is_none(), "`{key}` is missing in fields.rs");
            self.known.push(key);
        }
        self.entries
            .iter()
            .find(|entry| entry.key.value == key)
            .map(|entry| &entry.value)
    }

    fn wrong<T>(&self, value: &At<Value>, key: &str, wanted: &str) -> Result<T, Problem> {
        let message = format!("`{key}` must be {wanted}, not {}", value.value.kind());
        let remedy = format!("write {wanted}");
        Err(Problem::error(
            self.source,
            value.span.clone(),
            message,
            "here",
            remedy,
        ))
    }

    /// Makes the error for a key that must be there.
    pub fn missing(&self, key: &str, example: &str) -> Problem {
        let message = format!("{} has no `{key}`", self.what);
        let remedy = format!("add a line such as `{example}`");
        let label = "in this table";
        Problem::error(self.source, self.span.clone(), message, label, remedy)
    }

    /// Makes the error for a field that must be there.
    pub(crate) fn lacks(&self, key: &str) -> Problem {
        let known = self.fields.unwrap_or_default();
        let field = known.iter().find(|field| field.key == key);
        let (property, example) = field.map_or(("", ""), |field| (field.property, field.example));
        if self.source.dialect() == Dialect::Toml {
            return self.missing(key, example);
        }
        let message = format!("{} has no `{property}`", self.what);
        let remedy = format!("add `{property}`, which says what `{example}` does in TOML");
        let label = "in this node";
        Problem::error(self.source, self.span.clone(), message, label, remedy)
    }

    /// Takes a string.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn string(&mut self, key: &'static str) -> Result<Option<At<String>>, Problem> {
        let Some(at) = self.get(key) else {
            return Ok(None);
        };
        match &at.value {
            Value::Text(text) => Ok(Some(At {
                value: text.clone(),
                span: at.span.clone(),
            })),
            _ => self.wrong(at, key, "a string in quotes"),
        }
    }

    /// Takes a truth value.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn boolean(&mut self, key: &'static str) -> Result<Option<At<bool>>, Problem> {
        let Some(at) = self.get(key) else {
            return Ok(None);
        };
        match at.value {
            Value::Flag(value) => Ok(Some(At {
                value,
                span: at.span.clone(),
            })),
            _ => self.wrong(at, key, "true or false"),
        }
    }

    /// Takes a number that is not negative.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn integer(&mut self, key: &'static str) -> Result<Option<At<u64>>, Problem> {
        let Some(at) = self.get(key) else {
            return Ok(None);
        };
        match at.value {
            Value::Integer(Ok(value)) => Ok(Some(At {
                value,
                span: at.span.clone(),
            })),
            _ => self.wrong(at, key, "an integer that is not negative"),
        }
    }

    /// Takes a list of numbers.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn integers(&mut self, key: &'static str) -> Result<Option<At<Vec<At<u64>>>>, Problem> {
        const WANTED: &str = "a list of integers such as [0, 1]";
        let Some(at) = self.get(key) else {
            return Ok(None);
        };
        let Value::List(list) = &at.value else {
            return self.wrong(at, key, WANTED);
        };
        let mut numbers = Vec::new();
        for one in list {
            match one.value {
                Value::Integer(Ok(value)) => numbers.push(At {
                    value,
                    span: one.span.clone(),
                }),
                _ => return self.wrong(one, key, WANTED),
            }
        }
        Ok(Some(At {
            value: numbers,
            span: at.span.clone(),
        }))
    }

    /// Takes a string, or a list of strings.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn strings(&mut self, key: &'static str) -> Result<Option<Vec<At<String>>>, Problem> {
        const WANTED: &str = "a string in quotes, or a list of them";
        let Some(at) = self.get(key) else {
            return Ok(None);
        };
        let list = match &at.value {
            Value::Text(_) => std::slice::from_ref(at),
            Value::List(list) => list,
            _ => return self.wrong(at, key, WANTED),
        };
        let mut strings = Vec::new();
        for one in list {
            match &one.value {
                Value::Text(text) => strings.push(At {
                    value: text.clone(),
                    span: one.span.clone(),
                }),
                _ => return self.wrong(one, key, WANTED),
            }
        }
        Ok(Some(strings))
    }

    /// Takes a range that a bootloader fills, if that is what the key has.
    pub(crate) fn loaded(&mut self, key: &'static str) -> Option<At<PaRange>> {
        let at = self.get(key)?;
        match at.value {
            Value::Loaded(value) => Some(At {
                value,
                span: at.span.clone(),
            }),
            _ => None,
        }
    }

    /// Takes a table inside of this one.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn table(
        &mut self,
        key: &'static str,
        what: &'static str,
    ) -> Result<Option<Table<'s, 'd>>, Problem> {
        let Some(at) = self.get(key) else {
            return Ok(None);
        };
        match &at.value {
            Value::Table(entries) => Ok(Some(Table::new(
                self.source,
                entries,
                at.span.clone(),
                what,
            ))),
            _ => self.wrong(at, key, "a table"),
        }
    }

    /// Takes a list of tables (`[[key]]`).
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn tables(
        &mut self,
        key: &'static str,
        what: &'static str,
    ) -> Result<Vec<Table<'s, 'd>>, Problem> {
        let Some(at) = self.get(key) else {
            return Ok(Vec::new());
        };
        let wanted = match key {
            "devices" => "a list such as [{ path = \"/pl061@9030000\" }]".to_owned(),
            _ => format!("a list of tables, each headed [[{key}]]"),
        };
        let Value::List(list) = &at.value else {
            return self.wrong(at, key, &wanted);
        };
        let mut tables = Vec::new();
        for one in list {
            match &one.value {
                Value::Table(entries) => {
                    let span = one.span.clone();
                    tables.push(Table::new(self.source, entries, span, what));
                }
                _ => return self.wrong(one, key, &wanted),
            }
        }
        Ok(tables)
    }

    /// Reports every key that is no field, each with the nearest one that there is.
    pub fn unknown_keys(&self) -> Vec<Problem> {
        let known = &self.known;
        let mut problems = Vec::new();
        for Entry { key, .. } in self.entries {
            if known.contains(&key.value.as_str()) {
                continue;
            }
            let later = NOT_YET.iter().find(|word| word.key == key.value);
            if let Some(word) = later.filter(|_| self.fields.is_some()) {
                problems.push(not_yet(self.source, key, word));
                continue;
            }
            let elsewhere = self
                .fields
                .filter(|_| self.source.dialect() == Dialect::Toml)
                .and_then(|fields| elsewhere::remedy(&key.value, fields));
            let remedy = match (elsewhere, nearest(&key.value, known)) {
                (Some(remedy), _) => remedy,
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("{} may have: {}", self.what, known.join(", ")),
            };
            let message = format!("{} has no key `{}`", self.what, key.value);
            problems.push(Problem::error(
                self.source,
                key.span.clone(),
                message,
                "unknown key",
                remedy,
            ));
        }
        problems
    }
}

/// Refuses a word that is kept for later.
pub(crate) fn not_yet(source: &Source, key: &At<String>, word: &NotYet) -> Problem {
    let message = format!("`{}` is not there yet: {}", key.value, word.what);
    Problem::error(source, key.span.clone(), message, "not yet", word.remedy)
}

/// Finds the word that was probably meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|one| (strsim::osa_distance(word, one), *one))
        .filter(|(distance, one)| *distance <= 1 + one.len() / 4)
        .min()
        .map(|(_, one)| one)
}

/// Reads `256 MiB`: a whole number and a binary unit. `None` if it is not one.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let shift = match unit.trim() {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_needs_a_binary_unit() {
        assert_eq!(parse_size("256 MiB"), Some(256 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("1_024 KiB"), Some(1 << 20));
        for wrong in [
            "",
            "MiB",
            "256",
            "256 MB",
            "1.5 GiB",
            "-1 MiB",
            "20000000 TiB",
            "1 Mi B",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_typing_mistake_finds_its_word_and_a_foreign_word_none() {
        let known = ["name", "memory", "image", "initramfs", "cmdline"];
        assert_eq!(nearest("memroy", &known), Some("memory"));
        assert_eq!(nearest("initramf", &known), Some("initramfs"));
        assert_eq!(nearest("passthrough", &known), None);
    }
}

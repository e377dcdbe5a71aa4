// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads TOML with the place of everything, so that each message can point at a line.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Problem, Source};

/// Something and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The thing.
    pub value: T,
    /// Its place, in bytes.
    pub span: Range<usize>,
}

/// A table while its keys are taken one by one; what is left is unknown.
pub struct Table<'s, 'd> {
    /// The file that it stands in.
    pub source: &'s Source,
    table: &'d DeTable<'d>,
    /// Where the table begins.
    pub span: Range<usize>,
    /// What the table is, for messages: "a partition".
    what: &'static str,
    known: Vec<&'static str>,
}

/// Parses a whole document.
///
/// # Errors
///
/// What is no TOML, with its place.
pub fn parse(source: &Source) -> Result<Spanned<DeTable<'_>>, Problem> {
    DeTable::parse(source.text()).map_err(|error| {
        let end = source.text().len();
        let span = error.span().unwrap_or(0..end.min(1));
        let message = format!("this is not TOML: {}", error.message());
        let remedy =
            "correct the syntax here, then run the check again (https://toml.io/en/v1.0.0)";
        Problem::error(source, span, message, "not understood", remedy)
    })
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) if integer.as_str().starts_with('-') => {
            return integer.as_str().to_owned();
        }
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
    .to_owned()
}

impl<'s, 'd> Table<'s, 'd> {
    /// Wraps a table.
    pub fn new(
        source: &'s Source,
        table: &'d DeTable<'d>,
        span: Range<usize>,
        what: &'static str,
    ) -> Self {
        Self {
            source,
            table,
            span,
            what,
            known: Vec::new(),
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    fn wrong<T>(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        wanted: &str,
    ) -> Result<T, Problem> {
        let message = format!("`{key}` must be {wanted}, not {}", kind(value.get_ref()));
        let remedy = format!("write {wanted}");
        Err(Problem::error(
            self.source,
            value.span(),
            message,
            "here",
            remedy,
        ))
    }

    /// Names all keys at once, so that unknown ones can be told before the first is taken.
    #[must_use]
    pub fn knowing(mut self, keys: &[&'static str]) -> Self {
        self.known.extend(keys);
        self
    }

    /// Makes the error for a key that must be there.
    pub fn missing(&self, key: &str, example: &str) -> Problem {
        let message = format!("{} has no `{key}`", self.what);
        let remedy = format!("add a line such as `{example}`");
        Problem::error(
            self.source,
            self.span.clone(),
            message,
            "in this table",
            remedy,
        )
    }

    /// Takes a string.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn string(&mut self, key: &'static str) -> Result<Option<At<String>>, Problem> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some(At {
                value: text.to_string(),
                span: value.span(),
            })),
            _ => self.wrong(value, key, "a string in quotes"),
        }
    }

    /// Takes a truth value.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn boolean(&mut self, key: &'static str) -> Result<Option<At<bool>>, Problem> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(At {
                value: *flag,
                span: value.span(),
            })),
            _ => self.wrong(value, key, "true or false"),
        }
    }

    /// Takes a number that is not negative.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn integer(&mut self, key: &'static str) -> Result<Option<At<u64>>, Problem> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match self.number(value) {
            Some(number) => Ok(Some(At {
                value: number,
                span: value.span(),
            })),
            None => self.wrong(value, key, "an integer that is not negative"),
        }
    }

    fn number(&self, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        match value.get_ref() {
            DeValue::Integer(integer) => {
                u64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            _ => None,
        }
    }

    /// Takes a list of numbers.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn integers(&mut self, key: &'static str) -> Result<Option<At<Vec<At<u64>>>>, Problem> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let DeValue::Array(array) = value.get_ref() else {
            return self.wrong(value, key, "a list of integers such as [0, 1]");
        };
        let mut numbers = Vec::new();
        for one in array.iter() {
            match self.number(one) {
                Some(number) => numbers.push(At {
                    value: number,
                    span: one.span(),
                }),
                None => return self.wrong(one, key, "a list of integers such as [0, 1]"),
            }
        }
        Ok(Some(At {
            value: numbers,
            span: value.span(),
        }))
    }

    /// Takes a string, or a list of strings.
    ///
    /// # Errors
    ///
    /// Something else stands there.
    pub fn strings(&mut self, key: &'static str) -> Result<Option<Vec<At<String>>>, Problem> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let one = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(text) => Some(At {
                value: text.to_string(),
                span: value.span(),
            }),
            _ => None,
        };
        if let Some(only) = one(value) {
            return Ok(Some(vec![only]));
        }
        let wanted = "a string in quotes, or a list of them";
        let DeValue::Array(array) = value.get_ref() else {
            return self.wrong(value, key, wanted);
        };
        let mut strings = Vec::new();
        for each in array.iter() {
            match one(each) {
                Some(string) => strings.push(string),
                None => return self.wrong(each, key, wanted),
            }
        }
        Ok(Some(strings))
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
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Some(Table::new(self.source, table, value.span(), what))),
            _ => self.wrong(value, key, "a table"),
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
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let wanted = format!("a list of tables, each headed [[{key}]]");
        let DeValue::Array(array) = value.get_ref() else {
            return self.wrong(value, key, &wanted);
        };
        let mut tables = Vec::new();
        for one in array.iter() {
            match one.get_ref() {
                DeValue::Table(table) => {
                    tables.push(Table::new(self.source, table, one.span(), what));
                }
                _ => return self.wrong(one, key, &wanted),
            }
        }
        Ok(tables)
    }

    /// Reports every key that nobody took, each with the nearest one that there is.
    pub fn unknown_keys(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let remedy = match nearest(name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{} may have: {}", self.what, self.known.join(", ")),
            };
            let message = format!("{} has no key `{name}`", self.what);
            problems.push(Problem::error(
                self.source,
                key.span(),
                message,
                "unknown key",
                remedy,
            ));
        }
        problems
    }
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

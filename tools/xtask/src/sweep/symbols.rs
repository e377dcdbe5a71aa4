// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of addresses: the hypervisor's windows and functions, the guest's labels.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol};

/// What the labels of the windows begin with.
const WINDOW: &str = "firebreak_window_";

/// Symbols of one linked program.
#[derive(Clone, Debug)]
pub(super) struct Symbols {
    by_name: BTreeMap<String, u64>,
    by_address: BTreeMap<u64, String>,
}

impl Symbols {
    /// Reads them; `base` is added to each, for a program that is loaded elsewhere than linked.
    pub(super) fn read(elf: &Path, base: u64) -> Result<Self> {
        let bytes = fs::read(elf).with_context(|| elf.display().to_string())?;
        let file = object::File::parse(&*bytes).with_context(|| elf.display().to_string())?;
        let mut symbols = Self::of(&[]);
        for symbol in file.symbols() {
            let Ok(name) = symbol.name() else { continue };
            if symbol.is_definition() {
                symbols.add(name, symbol.address() + base);
            }
        }
        Ok(symbols)
    }

    /// Makes them from names and addresses.
    pub(super) fn of(list: &[(&str, u64)]) -> Self {
        let mut symbols = Self {
            by_name: BTreeMap::new(),
            by_address: BTreeMap::new(),
        };
        for (name, address) in list {
            symbols.add(name, *address);
        }
        symbols
    }

    fn add(&mut self, name: &str, address: u64) {
        // Mapping symbols ($x, $d) name no function; nor do the windows' own.
        if name.is_empty() || name.starts_with('$') {
            return;
        }
        self.by_name.insert(name.to_owned(), address);
        if !name.starts_with(WINDOW) {
            let short = rustc_name(name);
            self.by_address.entry(address).or_insert(short);
        }
    }

    /// Returns the address of a symbol.
    pub(super) fn address(&self, name: &str) -> Result<u64> {
        self.by_name
            .get(name)
            .copied()
            .with_context(|| format!("the program has no symbol {name}; build it anew"))
    }

    /// Returns the address of the one function that has this in its mangled name.
    pub(super) fn containing(&self, part: &str) -> Result<u64> {
        let mut found = self.by_name.iter().filter(|(name, _)| name.contains(part));
        match (found.next(), found.next()) {
            (Some((_, address)), None) => Ok(*address),
            (None, _) => bail!(
                "no function of the hypervisor is called {part:?} any more, or it became part of \
                 its caller: name another one in tools/xtask/src/sweep/lives.rs"
            ),
            (Some(_), Some(_)) => bail!("several functions are called {part:?}"),
        }
    }

    /// Returns the declared windows, by name.
    pub(super) fn windows(&self) -> BTreeMap<String, Range<u64>> {
        let mut windows = BTreeMap::new();
        for (name, start) in &self.by_name {
            let inner = name
                .strip_prefix(WINDOW)
                .and_then(|name| name.strip_suffix("_start"));
            let Some(inner) = inner else { continue };
            if let Some(end) = self.by_name.get(&format!("firebreak_window_{inner}_end")) {
                windows.insert(inner.to_owned(), *start..*end);
            }
        }
        windows
    }

    /// Returns the addresses of the labels inside of a window.
    pub(super) fn labels_within<'a>(
        &'a self,
        window: &'a Range<u64>,
    ) -> impl Iterator<Item = u64> + 'a {
        self.by_name
            .iter()
            .filter(|(name, address)| name.starts_with(WINDOW) && window.contains(address))
            .map(|(_, address)| *address)
    }

    /// Returns the function that an address lies in.
    pub(super) fn function(&self, address: u64) -> &str {
        let found = self.by_address.range(..=address).next_back();
        found.map_or("", |(_, name)| name)
    }

    /// Returns an address as symbol and offset.
    pub(super) fn name(&self, address: u64) -> String {
        match self.by_address.range(..=address).next_back() {
            Some((start, name)) => format!("{name}+{:#x}", address - start),
            None => format!("{address:#x}"),
        }
    }
}

/// Leaves out of a mangled name (v0 or legacy) what only the compiler wants to know.
fn rustc_name(name: &str) -> String {
    name.split_once("17h")
        .map_or(name, |(front, _)| front)
        .to_owned()
}

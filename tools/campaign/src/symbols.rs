// SPDX-License-Identifier: MIT OR Apache-2.0
//! Symbols of a guest's ELF file.

use object::{Object as _, ObjectSymbol as _};

use crate::plan::{Address, Guest};

/// Returns where a symbol is.
pub(crate) fn address(guest: &Guest, symbol: &str) -> Result<u64, String> {
    let path = guest.symbols.as_ref().ok_or("the guest has no `symbols`")?;
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    find(&bytes, symbol).map_err(|why| format!("{}: {why}", path.display()))
}

/// Returns the address that a moment names.
pub(crate) fn resolve(guest: &Guest, at: &Address) -> Result<u64, String> {
    match at {
        Address::Virtual(address) => Ok(*address),
        Address::Symbol(symbol) => address(guest, symbol),
    }
}

/// Finds a symbol by its whole name, or by a part that no other symbol has: compilers add to names.
fn find(elf: &[u8], symbol: &str) -> Result<u64, String> {
    let file = object::File::parse(elf).map_err(|error| error.to_string())?;
    let mut parts = Vec::new();
    for one in file.symbols() {
        let name = one.name().unwrap_or("");
        if name == symbol {
            return Ok(one.address());
        }
        if name.contains(symbol) && one.address() != 0 {
            parts.push((name.to_owned(), one.address()));
        }
    }
    match parts.as_slice() {
        [(_, address)] => Ok(*address),
        [] => Err(format!("there is no symbol \"{symbol}\"")),
        many => {
            let names: Vec<&str> = many.iter().take(5).map(|(name, _)| name.as_str()).collect();
            Err(format!(
                "\"{symbol}\" is a part of {} symbols; write one of: {}",
                many.len(),
                names.join(", ")
            ))
        }
    }
}

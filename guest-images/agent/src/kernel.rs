// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the kernel's image is: from `/proc/kallsyms` and `/proc/iomem`.

/// Finds the addresses of all symbols of that name.
pub(crate) fn addresses<'a>(symbols: &'a str, name: &'a str) -> impl Iterator<Item = u64> + 'a {
    symbols.lines().filter_map(move |line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?;
        (words.nth(1)? == name).then(|| u64::from_str_radix(address, 16).ok())?
    })
}

/// Returns the physical address of a symbol of the image: the image is in one piece, and
/// `Kernel code` starts at `_stext`.
pub(crate) fn physical(symbols: &str, memory: &str, name: &str) -> Option<u64> {
    let code = memory.lines().find(|line| line.ends_with("Kernel code"))?;
    let start = code.trim_start().split('-').next()?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let text = addresses(symbols, "_stext").next()?;
    let symbol = addresses(symbols, name).next()?;
    start.checked_add(symbol.checked_sub(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_in_memory() {
        let symbols = "ffff800008000000 T _text\nffff800008010000 T _stext\n\
                       ffff800008abc000 t schedule\nffff8000010e0000 t schedule [module]\n";
        let memory = "40000000-47ffffff : System RAM\n  40210000-411fffff : Kernel code\n";
        let physical = |name| physical(symbols, memory, name);
        assert_eq!(physical("_stext"), Some(0x4021_0000));
        assert_eq!(physical("schedule"), Some(0x40cb_c000));
        assert_eq!(physical("sched"), None);
        assert_eq!(addresses(symbols, "schedule").count(), 2);
    }
}

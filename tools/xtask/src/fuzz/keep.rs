// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses the inputs that are worth keeping in the tree.
//!
//! libFuzzer's own choice keeps an input for each number of times that an edge was taken, which makes
//! thousands. For a replay it is enough that an edge is taken.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What an input's name starts with when it was chosen here, and may be replaced by others.
const PREFIX: &str = "cover-";

/// What every input costs besides its bytes: a file in the tree.
const FILE_BYTES: u64 = 512;
/// The longest input and the most inputs that are kept: a replay is to be short, and the tree small.
const MAX_KEPT_BYTES: u64 = 1024;
const MAX_KEPT: usize = 100;

/// An input, as a merge saw it.
struct Input {
    path: PathBuf,
    len_bytes: u64,
    edges: BTreeSet<u64>,
}

/// Reads a merge's control file: the number of files (in all, and in the first directory), their
/// names, and then for each `STARTED index length` and `FT index features`, all of them in a merge
/// for a set cover. A feature is eight times an edge, plus the class of how often it was taken.
fn inputs(control: &str) -> Vec<Input> {
    let mut lines = control.lines();
    let count = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    lines.next();
    let mut inputs: Vec<Input> = lines
        .by_ref()
        .take(count)
        .map(|path| Input {
            path: PathBuf::from(path),
            len_bytes: 0,
            edges: BTreeSet::new(),
        })
        .collect();
    for line in lines {
        let mut words = line.split(' ');
        let kind = words.next();
        let mut numbers = words.map_while(|word| word.parse::<u64>().ok());
        let index = numbers.next().and_then(|index| usize::try_from(index).ok());
        let Some(input) = index.and_then(|index| inputs.get_mut(index)) else {
            continue;
        };
        match kind {
            Some("STARTED") => input.len_bytes = numbers.next().unwrap_or(0),
            Some("FT") => input.edges.extend(numbers.map(|feature| feature / 8)),
            _ => {}
        }
    }
    inputs
}

/// Returns few and short inputs that together take nearly every edge which all of them take: again and
/// again the one that adds the most edges for its bytes.
pub(super) fn small_cover(control: &str) -> Vec<PathBuf> {
    let mut inputs = inputs(control);
    inputs.retain(|input| input.len_bytes <= MAX_KEPT_BYTES);
    let mut chosen = vec![];
    while chosen.len() < MAX_KEPT {
        let worth =
            |input: &Input| input.edges.len() as u64 * 0x1_0000 / (input.len_bytes + FILE_BYTES);
        let Some(best) = (0..inputs.len()).max_by_key(|index| worth(&inputs[*index])) else {
            break;
        };
        let best = inputs.swap_remove(best);
        if !best.edges.is_empty() {
            inputs
                .iter_mut()
                .for_each(|input| input.edges.retain(|edge| !best.edges.contains(edge)));
            chosen.push(best.path);
        }
        inputs.retain(|input| !input.edges.is_empty());
    }
    chosen
}

/// Replaces what was chosen before by what is chosen now. Everything else in the corpus stays.
pub(super) fn renew(corpus: &Path, chosen: &[PathBuf]) -> Result<()> {
    let read = |path: &PathBuf| fs::read(path).with_context(|| path.display().to_string());
    let contents = chosen.iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut named = vec![];
    for entry in fs::read_dir(corpus)? {
        let path = entry?.path();
        let old = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if old {
            fs::remove_file(&path)?;
        } else {
            named.push(read(&path)?);
        }
    }
    for (number, bytes) in contents
        .iter()
        .filter(|bytes| !named.contains(bytes))
        .enumerate()
    {
        fs::write(corpus.join(format!("{PREFIX}{number:03}")), bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edges 1 and 2 by /a, 1 by /b, 1 to 3 by /c, 4 by /d.
    const CONTROL: &str = "4\n0\n/a\n/b\n/c\n/d\nSTARTED 0 9\nFT 0 8 9 16\nCOV 0 7 8\n\
        STARTED 1 2\nFT 1 10\nSTARTED 2 30\nFT 2 8 17 24\nCOV 2 9\nSTARTED 3 5\nFT 3 32\n";

    #[test]
    fn few_inputs_take_every_edge() {
        assert_eq!(
            small_cover(CONTROL),
            [PathBuf::from("/c"), PathBuf::from("/d")]
        );
        assert!(small_cover("").is_empty());
    }

    #[test]
    fn named_inputs_stay_and_chosen_ones_are_replaced() {
        let corpus = tempfile::tempdir().unwrap();
        let found = tempfile::tempdir().unwrap();
        for (name, bytes) in [("seed", "s"), ("cover-000", "old")] {
            fs::write(corpus.path().join(name), bytes).unwrap();
        }
        let chosen: Vec<PathBuf> = ["s", "new"].iter().map(|n| found.path().join(n)).collect();
        chosen.iter().for_each(|path| {
            fs::write(path, path.file_name().unwrap().as_encoded_bytes()).unwrap()
        });
        renew(corpus.path(), &chosen).unwrap();
        let mut names: Vec<String> = fs::read_dir(corpus.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["cover-000", "seed"]);
        assert_eq!(fs::read(corpus.path().join("cover-000")).unwrap(), b"new");
    }
}

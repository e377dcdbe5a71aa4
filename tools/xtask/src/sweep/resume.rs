// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rows of a sweep so far, so that one that was interrupted can go on.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::report::Row;
use crate::process::Unusable;

/// What is kept between two runs.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    /// Of what is swept, and how.
    digest: String,
    /// What is done.
    pub(super) rows: Vec<Row>,
    #[serde(skip)]
    file: PathBuf,
}

impl State {
    /// Begins anew, or goes on with what is in the file.
    pub(super) fn open(
        file: PathBuf,
        built: &[PathBuf],
        short: bool,
        resume: bool,
    ) -> Result<Self> {
        let digest = digest(built, short)?;
        let new = Self {
            digest,
            rows: Vec::new(),
            file,
        };
        if !resume || !new.file.exists() {
            return Ok(new);
        }
        let name = new.file.display().to_string();
        let text = fs::read_to_string(&new.file).with_context(|| name.clone())?;
        let old: Self = serde_json::from_str(&text).with_context(|| name.clone())?;
        if old.digest != new.digest {
            let why = format!(
                "{name} belongs to another build, or to another extent: sweep without --resume"
            );
            return Err(Unusable(why).into());
        }
        Ok(Self {
            rows: old.rows,
            ..new
        })
    }

    /// Returns a row that is done.
    pub(super) fn find(&self, path: &str, mode: &str, error: &str) -> Option<&Row> {
        let is_it = |row: &&Row| row.path == path && row.mode == mode && row.error == error;
        self.rows.iter().find(is_it)
    }

    /// Adds a row; the file is whole at each moment.
    pub(super) fn add(&mut self, row: Row) -> Result<()> {
        self.rows.push(row);
        let next = self.file.with_extension("next");
        fs::write(&next, serde_json::to_string(&self)?)
            .and_then(|()| fs::rename(&next, &self.file))
            .with_context(|| self.file.display().to_string())
    }
}

fn digest(built: &[PathBuf], short: bool) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(u8::from(short));
    for file in built {
        let path: &Path = file;
        hasher.write(&fs::read(path).with_context(|| path.display().to_string())?);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str) -> Row {
        serde_json::from_value(serde_json::json!({
            "path": path, "mode": "conforming", "error": "CE", "boundaries": 1, "of": 1,
            "points": 1, "nothing_lost": 1, "vm_lost": 0, "machine_lost": 0,
            "longest_masked": null, "lost": [], "failures": [],
        }))
        .unwrap()
    }

    #[test]
    fn a_sweep_goes_on_where_it_was_but_not_with_another_build() {
        let dir = tempfile::tempdir().unwrap();
        let (file, built) = (dir.path().join("state"), dir.path().join("built"));
        fs::write(&built, "one").unwrap();
        let open =
            |short, resume| State::open(file.clone(), std::slice::from_ref(&built), short, resume);
        let mut state = open(false, true).unwrap();
        assert!(state.rows.is_empty());
        state.add(row("hvc")).unwrap();
        let again = open(false, true).unwrap();
        assert!(again.find("hvc", "conforming", "CE").is_some());
        assert!(again.find("hvc", "barge-in", "CE").is_none());
        assert!(open(false, false).unwrap().rows.is_empty());
        assert!(open(true, true).is_err(), "the short sweep is another one");
        fs::write(&built, "two").unwrap();
        assert!(open(false, true).is_err(), "another build");
    }
}

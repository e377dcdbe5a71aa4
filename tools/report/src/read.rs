// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads results, whole or not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Case, End, Line, Run, VERSION};

/// Everything that a file of results holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// What ran.
    pub run: Run,
    /// What became of each case, in the order in which they ended.
    pub cases: Vec<Case>,
    /// How it ended; `None`: it did not, or nobody could say so.
    pub end: Option<End>,
    /// What could not be read.
    pub left_out: LeftOut,
}

/// What of a file could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of lines.
    pub lines: u64,
    /// Number of bytes in these lines.
    pub bytes: u64,
    /// Bytes at the end of the file that are no whole line (part of [`LeftOut::bytes`]).
    pub tail_bytes: u64,
    /// The first line that could not be read, from 1, and why.
    pub first: Option<(u64, String)>,
}

impl LeftOut {
    /// Says whether everything was read.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.lines == 0
    }

    fn add(&mut self, number: u64, bytes: usize, why: String) {
        self.lines += 1;
        self.bytes += bytes as u64;
        self.first.get_or_insert((number, why));
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((number, why)) = &self.first else {
            return f.write_str("nothing was left out");
        };
        let lines = if self.lines == 1 {
            "1 line was".to_owned()
        } else {
            format!("{} lines were", self.lines)
        };
        write!(
            f,
            "{lines} left out ({} bytes), first line {number}: {why}",
            self.bytes
        )
    }
}

/// Why a file is no results.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read or written.
    #[error("{path}: {source}; name a file that `firebreak campaign` wrote")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no run line before the first case.
    #[error(
        "{name}, line {line}: {problem}; results begin with a line of kind `run`: name a file that \
         `firebreak campaign` wrote"
    )]
    NoRun {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u64,
        /// What is there instead.
        problem: String,
    },
    /// Another version of the format.
    #[error(
        "{name}, line {line}: these are results of version {found}, and this firebreak reads \
         version {VERSION}: use the firebreak that wrote them"
    )]
    Version {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u64,
        /// The version.
        found: u32,
    },
    /// Two runs in one file.
    #[error(
        "{name}, line {line}: another run begins, with another {what}: one file holds one run; \
         use `firebreak campaign compare` for two"
    )]
    OtherRun {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u64,
        /// What differs.
        what: &'static str,
    },
    /// The same case twice, with different outcomes.
    #[error(
        "{name}: case {case} is there twice and ends differently (lines {first} and {second}): \
         remove one of the lines, or run the campaign again"
    )]
    Disagree {
        /// The file.
        name: String,
        /// The case.
        case: String,
        /// The first line of it.
        first: u64,
        /// The second line of it.
        second: u64,
    },
}

/// Reads a file of results.
///
/// # Errors
///
/// See [`read`], and fails when the file cannot be read.
pub fn read_file(path: &Path) -> Result<Results, ReadError> {
    let bytes = std::fs::read(path).map_err(|source| ReadError::File {
        path: path.to_owned(),
        source,
    })?;
    read(&path.display().to_string(), &bytes)
}

/// Reads results; `name` is what messages call them.
///
/// Lines that cannot be read are left out and counted. A run that was resumed may say again what
/// runs. The end counts only if no case follows it.
///
/// # Errors
///
/// Fails when they do not begin with a run, are of another version or of several runs, or when a
/// case is there twice and ends differently.
pub fn read(name: &str, bytes: &[u8]) -> Result<Results, ReadError> {
    let mut reader = Reader {
        name,
        run: None,
        cases: Vec::new(),
        seen: HashMap::new(),
        end: None,
        left_out: LeftOut::default(),
    };
    for (number, line) in (1..).zip(bytes.split_inclusive(|&byte| byte == b'\n')) {
        reader.line(number, line)?;
    }
    let Some(run) = reader.run else {
        return Err(ReadError::NoRun {
            name: name.to_owned(),
            line: 1,
            problem: match reader.left_out.first {
                Some((_, why)) => why,
                None => "the file is empty".to_owned(),
            },
        });
    };
    Ok(Results {
        run,
        cases: reader.cases,
        end: reader.end,
        left_out: reader.left_out,
    })
}

struct Reader<'a> {
    name: &'a str,
    run: Option<Run>,
    cases: Vec<Case>,
    /// For each case its place in `cases`, and its line.
    seen: HashMap<String, (usize, u64)>,
    end: Option<End>,
    left_out: LeftOut,
}

impl Reader<'_> {
    fn line(&mut self, number: u64, line: &[u8]) -> Result<(), ReadError> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            // Even one that lacks no more than its end: who goes on writing cuts it off.
            self.left_out.tail_bytes = line.len() as u64;
            let why = "the file ends within it".to_owned();
            self.left_out.add(number, line.len(), why);
            return Ok(());
        }
        match serde_json::from_slice::<Line>(line.trim_ascii()) {
            Ok(Line::Run(run)) => self.run_line(number, run),
            Ok(Line::Case(case)) => self.case_line(number, *case),
            Ok(Line::End(end)) => {
                self.end = Some(end);
                Ok(())
            }
            Err(error) => {
                self.left_out.add(number, line.len(), error.to_string());
                Ok(())
            }
        }
    }

    fn run_line(&mut self, number: u64, run: Run) -> Result<(), ReadError> {
        let name = self.name.to_owned();
        if run.v != VERSION {
            return Err(ReadError::Version {
                name,
                line: number,
                found: run.v,
            });
        }
        self.end = None;
        let Some(first) = &self.run else {
            self.run = Some(run);
            return Ok(());
        };
        match first.other_than(&run) {
            None => Ok(()),
            Some(what) => Err(ReadError::OtherRun {
                name,
                line: number,
                what,
            }),
        }
    }

    fn case_line(&mut self, number: u64, case: Case) -> Result<(), ReadError> {
        if self.run.is_none() {
            return Err(ReadError::NoRun {
                name: self.name.to_owned(),
                line: number,
                problem: format!("case {} comes first", case.name),
            });
        }
        self.end = None;
        match self.seen.entry(case.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert((self.cases.len(), number));
                self.cases.push(case);
            }
            Entry::Occupied(entry) => {
                let (place, first) = *entry.get();
                if !self
                    .cases
                    .get(place)
                    .is_some_and(|other| other.agrees(&case))
                {
                    return Err(ReadError::Disagree {
                        name: self.name.to_owned(),
                        case: case.name,
                        first,
                        second: number,
                    });
                }
            }
        }
        Ok(())
    }
}

impl Run {
    /// Returns what makes `other` no part of the same run, shards apart.
    #[must_use]
    pub fn other_than(&self, other: &Self) -> Option<&'static str> {
        let same = [
            (self.plan == other.plan, "plan"),
            (self.plan_sha256 == other.plan_sha256, "plan's contents"),
            (self.firebreak == other.firebreak, "version of Firebreak"),
            (self.commit == other.commit, "commit of Firebreak"),
            (self.qemu == other.qemu, "version of QEMU"),
            (self.cpu == other.cpu, "CPU"),
            (self.guests == other.guests, "guests"),
            (self.seed == other.seed, "seed"),
        ];
        same.iter().find(|(same, _)| !same).map(|(_, what)| *what)
    }
}

impl Case {
    /// Says whether `other` comes to the same result by the same case.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        self.name == other.name
            && self.class == other.class
            && self.expected == other.expected
            && self.ok == other.ok
            && self.syndrome == other.syndrome
    }
}

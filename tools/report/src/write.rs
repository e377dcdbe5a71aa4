// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes results so that a kill at any time costs no more than the line being written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::{Case, End, Line, ReadError, Results, Run, read_file};

/// Writes one line at a time, each whole and at once.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// A line was begun and not ended (a full disk, say).
    broken: bool,
}

impl<W: Write> Writer<W> {
    /// Makes a writer that goes on where `out` is, which must be the begin of a line.
    pub const fn new(out: W) -> Self {
        Self { out, broken: false }
    }

    /// Writes what runs.
    ///
    /// # Errors
    ///
    /// As [`Writer::line`].
    pub fn run(&mut self, run: &Run) -> io::Result<()> {
        self.line(&Line::Run(run.clone()))
    }

    /// Writes what became of a case.
    ///
    /// # Errors
    ///
    /// As [`Writer::line`].
    pub fn case(&mut self, case: &Case) -> io::Result<()> {
        self.line(&Line::Case(Box::new(case.clone())))
    }

    /// Writes how the run ended.
    ///
    /// # Errors
    ///
    /// As [`Writer::line`].
    pub fn end(&mut self, end: &End) -> io::Result<()> {
        self.line(&Line::End(end.clone()))
    }

    /// Writes a line, and hands it to the system.
    ///
    /// # Errors
    ///
    /// Fails as the file does. Whatever of the line was written then stays there; the next line
    /// begins after it, and a reader leaves out the broken one and says so.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = Vec::new();
        if self.broken {
            bytes.push(b'\n');
        }
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
        self.broken = true;
        self.out.write_all(&bytes)?;
        self.out.flush()?;
        self.broken = false;
        Ok(())
    }

    /// Returns what it writes to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl Results {
    /// Returns them as a file of results.
    ///
    /// # Errors
    ///
    /// Fails as the writer of JSON does.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut writer = Writer::new(Vec::new());
        writer.run(&self.run)?;
        for case in &self.cases {
            writer.case(case)?;
        }
        if let Some(end) = &self.end {
            writer.end(end)?;
        }
        Ok(writer.into_inner())
    }
}

impl Writer<File> {
    /// Makes a new file.
    ///
    /// # Errors
    ///
    /// Fails when there is a file of that name, or none can be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::create_new(path)?))
    }

    /// Goes on with a file that a run has left, and returns what it holds.
    ///
    /// A last line that was cut off is removed first.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or written, or holds no results.
    pub fn resume(path: &Path) -> Result<(Self, Results), ReadError> {
        let results = read_file(path)?;
        let unreadable = |source| ReadError::File {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let whole = length.saturating_sub(results.left_out.tail_bytes);
        file.set_len(whole).map_err(unreadable)?;
        Ok((Self::new(file), results))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results on their way to the disk: a disk that is full for a while costs none of them.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use firebreak_report::{Case, End, Line, Run, Writer};

/// Writes lines; keeps those that cannot be written until they can.
pub(crate) struct Output {
    writer: Writer<Box<dyn Write + Send>>,
    waiting: VecDeque<Line>,
    /// What the system says about the lines that wait.
    trouble: Option<io::Error>,
}

impl Output {
    /// Makes one that writes to `out`, which must be at the begin of a line.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            writer: Writer::new(out),
            waiting: VecDeque::new(),
            trouble: None,
        }
    }

    /// Makes a new file. A device such as `/dev/full` is no new file, and is taken as it is.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = match File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.is_file() => {
                OpenOptions::new().write(true).open(path)
            }
            other => other,
        }?;
        Ok(Self::new(Box::new(file)))
    }

    /// Says what runs.
    pub(crate) fn run(&mut self, run: &Run) -> Option<&io::Error> {
        self.line(Line::Run(run.clone()))
    }

    /// Says what became of a case. Returns the trouble that is new.
    pub(crate) fn case(&mut self, case: &Case) -> Option<&io::Error> {
        self.line(Line::Case(Box::new(case.clone())))
    }

    /// Says how the run ended.
    pub(crate) fn end(&mut self, end: &End) -> Option<&io::Error> {
        self.line(Line::End(end.clone()))
    }

    fn line(&mut self, line: Line) -> Option<&io::Error> {
        self.waiting.push_back(line);
        let was_well = self.trouble.is_none();
        self.trouble = None;
        while let Some(line) = self.waiting.front() {
            match self.writer.line(line) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(error) => {
                    self.trouble = Some(error);
                    break;
                }
            }
        }
        self.trouble.as_ref().filter(|_| was_well)
    }

    /// Returns how many results are not on the disk, and why.
    pub(crate) fn unsaved(&self) -> Option<(usize, String)> {
        let cases = self.waiting.iter();
        let cases = cases.filter(|line| matches!(line, Line::Case(_))).count();
        let trouble = self.trouble.as_ref()?;
        Some((cases, trouble.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A disk that is full for some writes.
    #[derive(Clone, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        full_for: Arc<Mutex<u32>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut full_for = self.full_for.lock().unwrap();
            if *full_for > 0 {
                *full_for -= 1;
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.bytes.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn end(done: u64) -> End {
        End {
            done,
            interrupted: false,
            wall_s: 1.0,
            budget_hit: None,
        }
    }

    #[test]
    fn what_a_full_disk_refuses_is_written_when_there_is_room_again() {
        let disk = Disk::default();
        let mut output = Output::new(Box::new(disk.clone()));
        assert!(output.end(&end(1)).is_none());
        *disk.full_for.lock().unwrap() = 2;
        // It is told once.
        assert!(output.end(&end(2)).is_some());
        assert!(output.end(&end(3)).is_none());
        assert!(output.unsaved().is_some());
        assert!(output.end(&end(4)).is_none());
        assert!(output.unsaved().is_none());
        let text = String::from_utf8(disk.bytes.lock().unwrap().clone()).unwrap();
        let mut done = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            done.push(line["done"].as_u64().unwrap());
        }
        assert_eq!(done, [1, 2, 3, 4]);
    }
}

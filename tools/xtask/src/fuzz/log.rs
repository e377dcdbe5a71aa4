// SPDX-License-Identifier: MIT OR Apache-2.0
//! What libFuzzer prints.

use std::fmt;

/// How far a target came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Status {
    /// Inputs that were run.
    pub(super) executions: u64,
    /// Edges of the code that some input reached.
    pub(super) edges: u64,
    /// Inputs that each reached something new.
    pub(super) inputs: u64,
    /// File of an input that failed.
    pub(super) finding: Option<String>,
}

impl Status {
    /// Reads a line: `#4711 NEW cov: 12 ft: 34 corp: 5/67b ...`, the count of executions at the
    /// end, or the name of a file that holds a finding.
    pub(super) fn read(&mut self, line: &str) {
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            // A slow one is as slow as the machine is busy, and libFuzzer goes on.
            if !path.contains("slow-unit-") {
                self.finding = Some(path.trim().to_owned());
            }
        } else if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
        } else if let Some(rest) = line.strip_prefix('#') {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let behind = |name: &str| {
                let at = words.iter().position(|word| *word == name)?;
                words.get(at + 1)?.split('/').next()?.parse().ok()
            };
            let Some(executions) = words.first().and_then(|word| word.parse().ok()) else {
                return;
            };
            self.executions = executions;
            self.edges = behind("cov:").unwrap_or(self.edges);
            self.inputs = behind("corp:").unwrap_or(self.inputs);
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executions,
            edges,
            inputs,
            ..
        } = self;
        write!(f, "{executions} executions, {edges} edges, {inputs} inputs")?;
        match &self.finding {
            Some(path) => write!(f, ", a finding: {path}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libfuzzer_are_read() {
        let mut status = Status::default();
        for line in [
            "INFO: Seed: 1234",
            "#0\tREAD units: 3",
            "#4096\tpulse  cov: 741 ft: 2105 corp: 190/8532b lim: 43 exec/s: 1365 rss: 45Mb",
            "#4200\tNEW    cov: 742 ft: 2106 corp: 191/8533b lim: 43 exec/s: 1365 rss: 45Mb L: 1/1",
        ] {
            status.read(line);
        }
        assert_eq!(
            (status.executions, status.edges, status.inputs),
            (4200, 742, 191)
        );
        status.read("artifact_prefix='a/'; Test unit written to a/slow-unit-2e");
        assert_eq!(status.finding, None);
        status.read("stat::number_of_executed_units: 5000");
        status.read("artifact_prefix='a/'; Test unit written to a/crash-1f");
        assert_eq!(status.executions, 5000);
        assert_eq!(status.finding.as_deref(), Some("a/crash-1f"));
    }
}

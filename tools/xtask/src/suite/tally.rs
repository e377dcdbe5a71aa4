// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts tests by what libtest and libtest-mimic print.

/// What passed and what failed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// Tests that passed.
    pub(super) passed: u64,
    /// Tests that failed.
    pub(super) failed: u64,
    /// Names of those that failed.
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// Adds another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures.iter().cloned());
    }

    /// Counts a failure that has no test's name.
    pub(super) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Reads one line of a test program's output.
    ///
    /// A test counts where its own line tells so; a program's closing line would count it twice.
    pub(super) fn read(&mut self, line: &str) {
        let Some(rest) = line.trim_start().strip_prefix("test ") else {
            return;
        };
        if rest.starts_with("result: ") {
            return;
        }
        if rest.ends_with("... ok") {
            self.passed += 1;
        } else if let Some(name) = rest.strip_suffix("... FAILED") {
            self.fail(name.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_by_their_own_lines() {
        let output = "
running 4 tests
test a::b ... ok
test [qemu] boots with firmware ... ok
test c - should panic ... ok
test d ... FAILED
test e ... ignored
test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
";
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        assert_eq!((tally.passed, tally.failed), (3, 1));
        assert_eq!(tally.failures, ["d"]);
    }
}

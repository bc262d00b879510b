//! Running test programs: their output passes through, their summary lines are counted.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

/// How many tests did what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    /// One check without tests in it.
    pub fn check(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    pub fn total(self) -> u64 {
        self.passed + self.failed
    }

    /// Counts the line if it is the summary of a test program.
    pub fn read(&mut self, line: &str) {
        let Some(summary) = line.trim_start().strip_prefix("test result: ") else { return };
        for (count, what) in summary.split(['.', ';']).filter_map(|part| part.trim().split_once(' ')) {
            match (count.parse::<u64>(), what) {
                (Ok(count), "passed") => self.passed += count,
                (Ok(count), "failed") => self.failed += count,
                _ => {}
            }
        }
    }

    /// The program says that it failed: that is a failure also if no test was counted, as when one kills the
    /// process, or when it did not compile.
    pub fn program_failed(&mut self) {
        self.failed = self.failed.max(1);
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, Self { passed, failed }: Self) {
        self.passed += passed;
        self.failed += failed;
    }
}

/// Runs one or more test programs to their end.
pub fn run(command: &mut Command) -> Result<Tally> {
    run_showing(command, &mut std::io::stdout())
}

fn run_showing(command: &mut Command, terminal: &mut impl Write) -> Result<Tally> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {program}"))?;
    let output = child.stdout.take().context("the output is piped")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("cannot read what {program} says"))?;
        let line = String::from_utf8_lossy(&line);
        tally.read(&line);
        writeln!(terminal, "{line}").context("cannot write to standard output")?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for {program}"))?;
    if !status.success() {
        eprintln!("{program} failed ({status})");
        tally.program_failed();
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::{Tally, run_showing};
    use std::process::Command;

    fn tally(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed }
    }

    #[test]
    fn summaries_add_up_and_other_lines_do_not_count() {
        let mut sum = Tally::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s",
            "7 passed; 7 failed",
        ] {
            sum.read(line);
        }
        assert_eq!(sum, tally(13, 2));
    }

    /// Shows nothing: these summaries are not to be counted by the xtask that runs this test.
    fn run(command: &mut Command) -> anyhow::Result<Tally> {
        run_showing(command, &mut std::io::sink())
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let dies = run(Command::new("sh").args(["-c", "echo 'test a ... ok'; exit 101"])).expect("a tally");
        assert_eq!(dies, tally(0, 1));
        let one_failed = "echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101";
        let counted = run(Command::new("sh").args(["-c", one_failed])).expect("a tally");
        assert_eq!(counted, tally(1, 1));
        assert!(run(&mut Command::new("/nonexistent")).is_err());
    }
}

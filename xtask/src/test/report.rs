//! The verdicts of all layers, told at the end.

use super::libtest::Tally;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How a layer ended, if it came to its end.
pub enum Done {
    Tested(Tally),
    /// It passed, and has no tests to count.
    Checked,
    /// Why it did not run.
    Skipped(String),
}

struct Layer {
    name: String,
    outcome: Result<Done>,
    took: Duration,
}

/// The layers that have run.
#[derive(Default)]
pub struct Report {
    layers: Vec<Layer>,
}

impl Report {
    /// Runs a layer under its heading.
    pub fn layer(&mut self, name: &str, run: impl FnOnce() -> Result<Done>) {
        println!("\n=== {name} ===");
        let started = Instant::now();
        let outcome = run();
        match &outcome {
            Err(error) => eprintln!("error: {error:#}"),
            Ok(Done::Skipped(reason)) => println!("skipped: {reason}"),
            Ok(Done::Tested(_) | Done::Checked) => {}
        }
        self.layers.push(Layer { name: name.to_owned(), outcome, took: started.elapsed() });
    }

    /// Tells all verdicts; the last line is for machines.
    pub fn finish(self) -> Result<()> {
        println!("\n=== summary ===");
        let mut sum = Tally::default();
        for layer in &self.layers {
            sum += layer.tally();
            println!("{}", layer.line());
        }
        println!("{} passed, {} failed", sum.passed, sum.failed);
        if sum.failed > 0 {
            let names: Vec<&str> = self
                .layers
                .iter()
                .filter(|layer| layer.tally().failed > 0)
                .map(|layer| &*layer.name)
                .collect();
            bail!("failed: {}", names.join("; "));
        }
        Ok(())
    }
}

impl Layer {
    fn tally(&self) -> Tally {
        match &self.outcome {
            Ok(Done::Tested(tally)) => *tally,
            Ok(Done::Checked) => Tally::check(true),
            Ok(Done::Skipped(_)) => Tally::default(),
            Err(_) => Tally::check(false),
        }
    }

    fn line(&self) -> String {
        let Self { name, outcome, took } = self;
        let (verdict, detail) = match outcome {
            Ok(Done::Tested(Tally { passed, failed: 0 })) => ("ok", format!("{passed} passed")),
            Ok(Done::Tested(Tally { passed, failed })) => {
                ("FAILED", format!("{passed} passed, {failed} failed"))
            }
            Ok(Done::Checked) => ("ok", String::new()),
            Ok(Done::Skipped(reason)) => ("skipped", reason.clone()),
            Err(error) => ("FAILED", error.to_string()),
        };
        format!("{verdict:<8} {name:<28} {:>6.1} s  {detail}", took.as_secs_f64()).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Done, Report, Tally};
    use anyhow::bail;

    #[test]
    fn any_failure_fails_the_whole_and_names_the_layer() {
        let mut report = Report::default();
        report.layer("good", || Ok(Done::Tested(Tally { passed: 3, failed: 0 })));
        report.layer("broken", || bail!("it does not compile"));
        report.layer("bad", || Ok(Done::Tested(Tally { passed: 3, failed: 2 })));
        let error = report.finish().expect_err("a failure");
        assert_eq!(error.to_string(), "failed: broken; bad");
    }

    #[test]
    fn skipping_is_no_failure() {
        let mut report = Report::default();
        report.layer("good", || Ok(Done::Checked));
        report.layer("skipped", || Ok(Done::Skipped("no root".to_owned())));
        assert!(report.layers.iter().any(|layer| layer.line().contains("no root")));
        report.finish().expect("no failure");
    }
}

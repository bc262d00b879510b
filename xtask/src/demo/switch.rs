//! Changing the routes under traffic: when the first request reaches the new instance, and whether one was lost.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testbed::{Proc, wait_until};

use super::ask::instances;
use super::stage::{Cart, Stage};

/// How many answers there must be before, and again after the change.
const ENOUGH: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// One request of `hop load`; times in microseconds since 1970.
#[derive(Debug, Deserialize)]
struct Sample {
    started_us: u64,
    answer: Option<String>,
    error: Option<String>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Switch {
    pub requests: usize,
    pub failed: usize,
    pub first_failure: Option<String>,
    /// Served by the first and by the second cart.
    pub by_old: usize,
    pub by_new: usize,
    /// From the change of the file to the start of the first request that the second cart served.
    pub first_new_ms: f64,
    /// From the change of the file to the start of the last request that the first cart served; negative if before.
    pub last_old_ms: f64,
    /// From the change of the file until the agent said that it is in effect.
    pub in_effect_ms: f64,
}

/// Changes the routes while pr-1's client keeps asking.
pub fn observe(stage: &Stage) -> Result<Switch> {
    let pod = stage.pod("client-pr-1")?;
    let mut command = pod.hop(["load", "--to", &stage.frontend.to_string()])?;
    command.stdin(Stdio::piped());
    let mut load = pod.spawn("load", command)?;
    wait_until("the first answers", PATIENCE, || (count(&load, Cart::First) >= ENOUGH).then_some(()))?;

    let (changed_us, changed) = (unix_micros()?, Instant::now());
    stage.put(Cart::Second)?;
    let in_effect = changed.elapsed();

    wait_until("answers of the new cart", PATIENCE, || (count(&load, Cart::Second) >= ENOUGH).then_some(()))?;
    // The end of its input ends it, after the requests under way.
    drop(load.take_stdin());
    load.wait(PATIENCE)?;
    let samples = samples(&load.stdout())?;
    let mut switch = summarise(&samples, changed_us)?;
    switch.in_effect_ms = in_effect.as_secs_f64() * 1000.0;
    Ok(switch)
}

impl Switch {
    /// Whether the change was as it must be: seen, and at nobody's cost.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} of {} requests failed, the first with: {}",
            self.failed,
            self.requests,
            self.first_failure.as_deref().unwrap_or("no reason")
        );
        ensure!(self.by_old >= ENOUGH && self.by_new >= ENOUGH, "too few answers: {self:?}");
        ensure!(self.by_old + self.by_new == self.requests, "somebody else served: {self:?}");
        // A request that starts after the agent has said so goes by the new table. One that starts just before may be
        // decided on either side.
        ensure!(self.last_old_ms <= self.in_effect_ms, "the old cart served after the change: {self:?}");
        Ok(())
    }
}

fn summarise(samples: &[Sample], changed_us: u64) -> Result<Switch> {
    let mut switch = Switch { requests: samples.len(), ..Switch::default() };
    let (mut first_new, mut last_old) = (u64::MAX, 0);
    for sample in samples {
        let Some(answer) = &sample.answer else {
            switch.failed += 1;
            switch.first_failure.get_or_insert_with(|| sample.error.clone().unwrap_or_default());
            continue;
        };
        let cart = instances(answer)?.into_iter().nth(1).with_context(|| format!("no cart in {answer}"))?;
        if cart == Cart::First.name() {
            switch.by_old += 1;
            last_old = last_old.max(sample.started_us);
        } else if cart == Cart::Second.name() {
            switch.by_new += 1;
            first_new = first_new.min(sample.started_us);
        }
    }
    switch.first_new_ms = millis_since(changed_us, first_new);
    switch.last_old_ms = millis_since(changed_us, last_old);
    Ok(switch)
}

fn millis_since(start_us: u64, us: u64) -> f64 {
    let signed = i64::try_from(us).unwrap_or(i64::MAX).saturating_sub_unsigned(start_us);
    let micros = i32::try_from(signed).unwrap_or(if signed < 0 { i32::MIN } else { i32::MAX });
    f64::from(micros) / 1000.0
}

fn count(load: &Proc, cart: Cart) -> usize {
    // The whole name, quoted as it is within the answer's own JSON.
    load.stdout().matches(&format!("\\\"{}\\\"", cart.name())).count()
}

fn samples(output: &str) -> Result<Vec<Sample>> {
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("the load's line {line:?}"));
    output.lines().map(parse).collect()
}

fn unix_micros() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(u64::try_from(now.as_micros())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(started_us: u64, cart: Option<&str>) -> Sample {
        let answer = cart.map(|cart| format!(r#"["frontend-base","{cart}",{{"redis":"db-base"}}]"#));
        Sample { started_us, answer, error: cart.is_none().then(|| "refused".into()) }
    }

    #[test]
    fn the_change_is_dated_by_the_requests_around_it() {
        let (old, new) = (Some(Cart::First.name()), Some(Cart::Second.name()));
        let samples = [
            sample(1_000, old),
            sample(9_000, old),
            sample(8_500, new),
            sample(12_000, new),
            sample(13_000, None),
        ];
        let switch = summarise(&samples, 8_000).expect("answers");
        assert_eq!((switch.requests, switch.by_old, switch.by_new, switch.failed), (5, 2, 2, 1));
        assert_eq!((switch.first_new_ms, switch.last_old_ms), (0.5, 1.0));
        assert!(switch.check().is_err(), "a request failed");
    }
}

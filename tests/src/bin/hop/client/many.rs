//! Many connections of the client, and the sum of their reports.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testbed::{ClientReport, ClientSummary};

use super::{Args, exchange};

/// What a connection does needs little; thousands of them must fit.
const STACK: usize = 128 * 1024;

pub fn run(args: &Args, opening: &[u8]) -> Result<ClientSummary> {
    let start = Instant::now();
    let workers = args.concurrency.clamp(1, args.count);
    let barrier = Arc::new(Barrier::new(workers));
    let next = Arc::new(AtomicUsize::new(0));
    let (reports, collected) = mpsc::channel();
    for _ in 0..workers {
        let (args, opening, barrier) = (args.clone(), opening.to_vec(), barrier.clone());
        let (next, reports) = (next.clone(), reports.clone());
        let job = move || {
            let mut first = true;
            while next.fetch_add(1, Ordering::Relaxed) < args.count {
                let together = args.together && std::mem::take(&mut first);
                let report = exchange::report(&args, &opening, || {
                    if together {
                        barrier.wait();
                    }
                });
                if reports.send(report).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().stack_size(STACK).spawn(job).context("starting a thread")?;
    }
    drop(reports);
    // It is over when the last report has come.
    let reports: Vec<_> = collected.iter().collect();
    Ok(summarise(reports.into_iter(), start.elapsed()))
}

pub fn summarise(reports: impl Iterator<Item = ClientReport>, elapsed: Duration) -> ClientSummary {
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let mut summary = ClientSummary { elapsed_us, ..ClientSummary::default() };
    let mut times = Vec::new();
    for report in reports {
        times.push(report.elapsed_us);
        summary.bytes += report.bytes;
        if report.ok {
            summary.succeeded += 1;
            continue;
        }
        summary.failed += 1;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        *summary.errors.entry(format!("{} {}", part(&report.stage), part(&report.error))).or_default() += 1;
        summary.first_failure.get_or_insert(report);
    }
    times.sort_unstable();
    let quantile =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    summary.p50_us = quantile(50).copied().unwrap_or(0);
    summary.p99_us = quantile(99).copied().unwrap_or(0);
    summary.max_us = times.last().copied().unwrap_or(0);
    summary.ok = summary.failed == 0 && summary.succeeded > 0;
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_kind() {
        let fine = ClientReport { ok: true, bytes: 3, elapsed_us: 10, ..ClientReport::default() };
        let text = |t: &str| Some(t.to_owned());
        let reset =
            ClientReport { stage: text("read"), error: text("ConnectionReset"), ..ClientReport::default() };
        let summary = summarise([fine.clone(), reset.clone(), fine, reset].into_iter(), Duration::ZERO);
        assert_eq!((summary.succeeded, summary.failed, summary.bytes), (2, 2, 6));
        assert_eq!(summary.errors["read ConnectionReset"], 2);
        assert!(!summary.ok);
        assert!(!summarise([].into_iter(), Duration::ZERO).ok, "nothing done is not success");
    }
}

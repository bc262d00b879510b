//! `cargo xtask soak connect`: connections through the direct path.
//!
//! Seventeen pods, one in each of sixteen environments and one in an environment without variants, each with a client
//! process that connects to three services by IPv4, IPv6 and v4-mapped; the agent's programs are pinned, as on a node. Of each connection the client
//! checks which server answered, and every byte that the server saw ahead of the request: the workload's header, or
//! nothing.

mod stage;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use testbed::Ledger;
use testbed::soak::Progress;

use crate::bench::machine;
use crate::build::{self, Programs};
use crate::exec;
use crate::memory::Memory;
use crate::setup::{self, Purpose};
use stage::Stage;

/// Make connections through the direct path, a million unless told otherwise; check each one, and what is left of them.
#[derive(clap::Args)]
pub struct Args {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    connections: u64,

    /// End with one line of JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Connections ahead of the first reading: caches, slabs and the agent's heap are then as they are in use.
const WARM_UP: u64 = 5_000;
/// By how much the agent may have grown at the end, in kB. It sees none of the connections.
const GROWTH_MAX: u64 = 4 * 1024;
/// How often progress is shown.
const TICK: Duration = Duration::from_secs(2);
/// So long without a connection, and something hangs.
const STALL: Duration = Duration::from_secs(60);
/// How long sockets in TIME_WAIT may take to go; the kernel gives them a minute.
const TIME_WAIT: Duration = Duration::from_secs(75);

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.connections > 0, "no connection is no soak");
    setup::ensure(&[Purpose::Demo])?;
    let Programs { picop, hop } = build::agent(build::PROFILE)?;
    testbed::set_programs(picop, hop)?;
    for id in testbed::sweep()? {
        exec::announce(&format!("removed what a killed run had left: {id}"));
    }
    exec::announce("making a cluster of 19 pods, and starting picop in it");
    let stage = Stage::build()?;
    let report = soak(&stage, args.connections)?;
    stage.remove()?;
    report.print();
    if args.json {
        println!("{}", report.json()?);
    }
    ensure!(report.faults.is_empty(), "{} things are not as they should be", report.faults.len());
    Ok(())
}

/// What came of it.
struct Report {
    made: Progress,
    elapsed: Duration,
    before: (Ledger, Memory),
    at_end: Memory,
    after: (Ledger, Memory),
    faults: Vec<String>,
}

fn soak(stage: &Stage, connections: u64) -> Result<Report> {
    let warm = drive(stage, WARM_UP)?;
    ensure!(warm.failed == 0, "connections fail: {}", warm.errors.join("; "));
    let before = (Ledger::at_rest(&stage.pin_dir())?, Memory::read(stage.agent())?);
    exec::announce(&format!("making {connections} connections"));
    let start = Instant::now();
    let made = drive(stage, connections)?;
    let elapsed = start.elapsed();
    let at_end = Memory::read(stage.agent())?;
    exec::announce("waiting until the last sockets are gone");
    stage.wait_for_time_wait(TIME_WAIT)?;
    let after = (Ledger::at_rest(&stage.pin_dir())?, Memory::read(stage.agent())?);

    let mut faults = after.0.faults_since(&before.0, made.with_header, made.silent);
    let expected = stage.expected(connections);
    for (what, got, wanted) in [
        ("connections that were right", made.done, expected.done),
        ("connections with a header", made.with_header, expected.with_header),
        ("silent connections", made.silent, expected.silent),
    ] {
        if got != wanted {
            faults.push(format!("{what}: {got}, not {wanted}"));
        }
    }
    if after.1.agent_rss > before.1.agent_rss + GROWTH_MAX {
        faults.push(format!("the agent grew by {} kB", after.1.agent_rss - before.1.agent_rss));
    }
    faults.extend(made.errors.iter().cloned());
    faults.extend(stage.complaints());
    Ok(Report { made, elapsed, before, at_end, after, faults })
}

/// Has all clients make their share of connections, and shows how far they are.
fn drive(stage: &Stage, connections: u64) -> Result<Progress> {
    let mut clients = stage.start_clients(connections)?;
    let start = Instant::now();
    let (mut moved, mut shown) = ((Instant::now(), 0), (Instant::now(), 0));
    loop {
        let each = clients.iter_mut().map(testbed::soak::SoakClient::progress).collect::<Result<Vec<_>>>()?;
        let all = each.iter().fold(Progress::default(), Progress::plus);
        let made = all.done + all.failed;
        if each.iter().all(|progress| progress.ended) {
            for client in clients {
                client.wait(STALL)?;
            }
            return Ok(all);
        }
        if made > moved.1 {
            moved = (Instant::now(), made);
        }
        if moved.0.elapsed() > STALL {
            bail!("no connection for {STALL:?}, after {made}");
        }
        if shown.0.elapsed() >= TICK {
            let rate = per_second(made - shown.1, shown.0.elapsed());
            eprintln!("    {:>4} s  {made} of {connections}, {rate}/s", start.elapsed().as_secs());
            shown = (Instant::now(), made);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / millis
}

impl Report {
    fn per_second(&self) -> u64 {
        per_second(self.made.done + self.made.failed, self.elapsed)
    }

    fn print(&self) {
        let Progress { done, with_header, silent, failed, .. } = &self.made;
        println!(
            "{done} connections were right, {with_header} of them with a header, {silent} closed before they would have \
             sent one; {failed} failed"
        );
        println!("{:.1} s, {} connections a second", self.elapsed.as_secs_f64(), self.per_second());
        println!();
        println!("{:<22} {:>12}", "events", "");
        for event in self.after.0.events.keys() {
            let count = self.after.0.events_since(&self.before.0, event);
            println!("  {event:<20} {count:>12}");
        }
        println!();
        println!("{:<22} {:>12} {:>12} {:>12}", "memory (kB)", "before", "at the end", "settled");
        let line = |name: &str, of: fn(&Memory) -> u64| {
            println!(
                "  {name:<20} {:>12} {:>12} {:>12}",
                of(&self.before.1),
                of(&self.at_end),
                of(&self.after.1)
            );
        };
        line("agent", |memory| memory.agent_rss);
        line("maps", |memory| memory.maps);
        line("slab (machine)", |memory| memory.slab);
        line("  not reclaimable", |memory| memory.slab_unreclaimable);
        println!();
        if self.faults.is_empty() {
            println!("It all adds up: nothing was lost, and nothing is left.");
        }
        for fault in &self.faults {
            println!("wrong: {fault}");
        }
    }

    fn json(&self) -> Result<String> {
        let Progress { done, with_header, silent, failed, .. } = &self.made;
        let (before, after) = (&self.before.0, &self.after.0);
        let events: serde_json::Map<_, _> = after
            .events
            .keys()
            .map(|event| (event.clone(), after.events_since(before, event).into()))
            .collect();
        let object = json!({
            "suite": "soak-connect",
            "commit": machine::commit(),
            "kernel": machine::kernel()?,
            "ok": self.faults.is_empty(),
            "connections": done + failed,
            "right": done,
            "with_header": with_header,
            "silent": silent,
            "failed": failed,
            "seconds": self.elapsed.as_secs_f64(),
            "per_second": self.per_second(),
            "events": events,
            "entries": after.entries,
            "memory_kb": { "before": self.before.1, "at_end": self.at_end, "settled": self.after.1 },
            "faults": self.faults,
        });
        serde_json::to_string(&object).context("writing JSON")
    }
}

//! Readers that do not read: neither the agent's CPU nor the memory of their connections grows.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use picop_common::graft::{BUDGET, PASS_WINDOW, RELAY_HIGH};
use testbed::stream::StreamReport;
use testbed::{Agent, require_privilege, wait_until};

use super::super::graft::Grafted;
use crate::common::{Result, scaled};

/// How long all are watched.
const WINDOW: Duration = Duration::from_secs(2);
/// Clock ticks (hundredths of a second) that the agent may use meanwhile.
const TICKS: u64 = 20;
/// Memory of the agent for each connection: two buffers of the relay, and its own.
const AGENT_BYTES: u64 = 200 << 10;

#[test]
fn two_hundred_stalled_readers() -> Result {
    require_privilege!(Ok(()));
    let count = scaled(200);
    let it = Grafted::new("torture-stalled")?;
    let plain = held(&it, it.at, count, false)?;
    let before = resident(&it.agent)?;
    let grafted = held(&it, it.vip, count, true)?;
    let after = resident(&it.agent)?;
    eprintln!(
        "{count} stalled: plain TCP {plain:?}, grafted {grafted:?}; agent {before} to {after} bytes of its own"
    );
    let more = (BUDGET + RELAY_HIGH + 2 * PASS_WINDOW) * count as u64;
    assert!(grafted.sent < 2 * plain.sent + more, "{grafted:?}, plain TCP {plain:?}");
    // The kernel's own count, of the whole machine: buffers, not bytes. What they need besides is in the budget as well.
    assert!(grafted.memory < 2 * plain.memory + more, "{grafted:?}, plain TCP {plain:?}");
    assert!(after < before + AGENT_BYTES * count as u64, "agent {before} to {after} bytes");
    Ok(())
}

/// What connections hold that nobody reads from.
#[derive(Debug)]
struct Held {
    /// Bytes that their clients are rid of.
    sent: u64,
    /// Memory that TCP took for them, at its most, as far as can be told: other tests take some as well.
    memory: u64,
}

/// Has so many clients write to a server that does not read.
fn held(it: &Grafted, to: SocketAddr, count: usize, agent: bool) -> Result<Held> {
    const SEND: u64 = 100_000_000;
    let before = tcp_memory()?;
    let mut memory = 0;
    let mut look = || memory = memory.max(tcp_memory().unwrap_or(0).saturating_sub(before));
    let server = it.serve(&format!("--expect {SEND} --end late --stall-ms 600000 --rcvbuf 100000"))?;
    let args =
        format!("stream --to {to} --send {SEND} --mode edge --max-write 65536 --watchdog-ms 6000 --plain");
    let clients = (0..count)
        .map(|_| Ok(it.scene.client.spawn("stream", it.scene.client.hop(args.split_whitespace())?)?))
        .collect::<Result<Vec<_>>>()?;
    if agent {
        wait_until("the agent comes to rest", Duration::from_secs(60), || {
            let before = ticks(&it.agent).ok()?;
            std::thread::sleep(WINDOW);
            let used = ticks(&it.agent).ok()? - before;
            look();
            (used <= TICKS).then_some(())
        })?;
    }
    let mut sum = 0;
    for client in clients {
        let report: StreamReport = wait_until("a client's report", Duration::from_secs(60), || {
            look();
            serde_json::from_str(client.stdout().lines().next()?).ok()
        })?;
        assert!(report.error.as_deref().is_some_and(|e| e.starts_with("Stalled")), "{report:?}");
        sum += report.sent;
    }
    drop(server);
    Ok(Held { sent: sum, memory })
}

/// Memory of all TCP sockets of the machine, in bytes.
fn tcp_memory() -> Result<u64> {
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: ")).context("a line of TCP")?;
    let (_, pages) = line.rsplit_once("mem ").context("its memory")?;
    Ok(pages.trim().parse::<u64>()? * rustix::param::page_size() as u64)
}

/// CPU time of the agent, in clock ticks.
fn ticks(agent: &Agent) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid()))?;
    let (_, rest) = stat.rsplit_once(") ").context("a process has a name")?;
    Ok(rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Memory of the agent, in bytes.
fn resident(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kb: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kb << 10)
}

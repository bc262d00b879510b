//! What connections take that do nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::wait_until;

use super::stage::Stage;
use super::variant::Variant;

/// How long a program may go on moving memory about.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many readings in a row must be the same, some 20 ms apart.
const READINGS: u32 = 15;
/// Connections before the first reading: what a program makes at its first connections is no connection's.
const FIRST: usize = 50;

/// Bytes of memory of a variant's processes for each of its connections.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub connections: usize,
    /// Resident.
    pub rss: f64,
    /// The same without what other processes share.
    pub pss: f64,
}

/// Holds connections open.
pub fn measure(stage: &mut Stage, variant: Variant, connections: usize) -> Result<Memory> {
    let (client, way) = stage.client(variant)?;
    client.hold(&way, FIRST)?;
    client.release(&way)?;
    let before = settled(stage, variant)?;
    let (client, way) = stage.client(variant)?;
    client.hold(&way, connections)?;
    let after = settled(stage, variant)?;
    let (client, way) = stage.client(variant)?;
    client.release(&way)?;
    stage.count(variant, FIRST + connections);
    let each = |of: fn(&Sizes) -> i64| per(of(&after) - of(&before), connections);
    Ok(Memory { connections, rss: each(|sizes| sizes.rss), pss: each(|sizes| sizes.pss) })
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sizes {
    rss: i64,
    pss: i64,
}

/// The sizes when they have stayed the same for a while.
fn settled(stage: &Stage, variant: Variant) -> Result<Sizes> {
    let (mut last, mut same) = (Sizes::default(), 0);
    wait_until("its memory to settle", PATIENCE, || match read(stage, variant) {
        Ok(sizes) => {
            same = if sizes == last { same + 1 } else { 0 };
            last = sizes;
            (same == READINGS).then_some(Ok(sizes))
        }
        Err(error) => Some(Err(error)),
    })
    .with_context(|| format!("{} goes on changing", variant.name()))?
}

fn read(stage: &Stage, variant: Variant) -> Result<Sizes> {
    let mut sum = Sizes::default();
    for process in stage.proxies(variant)? {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let field = |name| field(&text, name).with_context(|| format!("{path} has no {name}"));
        sum.rss += field("Rss:")?;
        sum.pss += field("Pss:")?;
    }
    Ok(sum)
}

/// A size of `smaps_rollup`, in bytes.
fn field(text: &str, name: &str) -> Option<i64> {
    let kilobytes = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    Some(kilobytes?.parse::<i64>().ok()? * 1024)
}

fn per(bytes: i64, connections: usize) -> f64 {
    let float = |n: i64| f64::from(i32::try_from(n / 1024).unwrap_or(i32::MAX)) * 1024.0;
    float(bytes) / f64::from(u32::try_from(connections).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_bytes() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:            1024 kB\nPss:             512 kB\n\
                    Pss_Dirty: 1 kB\n";
        assert_eq!(field(text, "Rss:"), Some(1 << 20));
        assert_eq!(field(text, "Pss:"), Some(1 << 19));
        assert_eq!(field(text, "Swap:"), None);
        assert!((per(20 << 20, 10_240) - 2048.0).abs() < 1e-9);
        assert!((per(-(20 << 20), 10_240) + 2048.0).abs() < 1e-9);
    }
}

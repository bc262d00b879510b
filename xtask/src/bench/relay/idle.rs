//! What connections take that do nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::wait_until;

use super::stage::Stage;
use super::variant::Variant;
use crate::memory::Sizes;

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
    let each = |of: fn(&Sizes) -> u64| per(of(&before), of(&after), connections);
    Ok(Memory { connections, rss: each(|sizes| sizes.rss), pss: each(|sizes| sizes.pss) })
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
    Sizes::of(&stage.proxies(variant)?)
}

/// Bytes for each of so many connections, from what there was before and after.
fn per(before: u64, after: u64, connections: usize) -> f64 {
    let float = |bytes: u64| f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0;
    (float(after) - float(before)) / f64::from(u32::try_from(connections).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_may_also_be_given_back() {
        assert!((per(1 << 20, 21 << 20, 10_240) - 2048.0).abs() < 1e-9);
        assert!((per(21 << 20, 1 << 20, 10_240) + 2048.0).abs() < 1e-9);
    }
}

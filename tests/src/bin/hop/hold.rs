//! A cluster in a process of its own, for the test of what happens when that process is killed.

use std::io::{self, Read as _};

use anyhow::Result;
use testbed::Cluster;

pub fn run() -> Result<()> {
    let cluster = Cluster::new("held")?;
    let _pod = cluster.pod("pod")?;
    println!("{}", cluster.id());
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

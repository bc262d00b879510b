//! Many ends of connections in one process, each as a line of standard input says: a number, and the arguments of `stream`.
//! The answer is a line with the same number and the end's report, when it has ended.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::{io, thread};

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::{server, stream};

#[derive(clap::Args)]
pub struct Args {
    /// Listens here from the start on, for lines with the same address
    #[arg(long)]
    listen: Vec<SocketAddr>,
}

#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Line {
    number: u64,
    #[command(flatten)]
    stream: stream::Args,
}

pub fn run(args: &Args) -> Result<()> {
    // Who sees the first of them listen knows that all do.
    let listeners: HashMap<_, _> = args
        .listen
        .iter()
        .rev()
        .map(|at| Ok((*at, Arc::new(server::listen(*at)?))))
        .collect::<Result<_>>()?;
    for line in io::stdin().lines() {
        let line = line.context("reading standard input")?;
        let Line { number, stream } = Line::try_parse_from(line.split_whitespace())?;
        let listener: Option<Arc<TcpListener>> =
            stream.listens_at().and_then(|at| listeners.get(&at)).cloned();
        let job = move || {
            let report = stream::once(&stream, listener.as_deref());
            match serde_json::to_string(&report) {
                Ok(report) => println!("{number} {report}"),
                Err(error) => eprintln!("{number}: {error}"),
            }
        };
        thread::Builder::new().spawn(job).context("starting a thread")?;
    }
    Ok(())
}

//! A client that never stops asking: one connection, one line sent and one line read at a time. For each it prints one line
//! of JSON, so that a change in who answers can be dated to the request.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::conn::{Conn, How};

#[derive(clap::Args, Clone)]
pub struct Args {
    /// Where to connect to
    #[arg(long)]
    to: SocketAddr,
    /// How many ask at the same time
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Bound on each single wait
    #[arg(long, default_value_t = 5_000)]
    timeout_ms: u64,
}

pub fn run(args: &Args) -> Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let (lines, printed) = mpsc::channel();
    for _ in 0..args.concurrency {
        let (args, over, lines) = (args.clone(), over.clone(), lines.clone());
        let job = move || {
            while !over.load(Ordering::Relaxed) && lines.send(ask(&args)).is_ok() {}
        };
        thread::Builder::new().spawn(job).context("starting a thread")?;
    }
    drop(lines);
    thread::Builder::new().spawn(move || {
        // Whoever started this closes its standard input to end it, or is gone: then too.
        io::stdin().read_to_end(&mut Vec::new()).ok();
        over.store(true, Ordering::Relaxed);
    })?;
    let mut out = io::stdout().lock();
    for line in printed {
        writeln!(out, "{line}").context("printing a result")?;
    }
    Ok(())
}

fn ask(args: &Args) -> String {
    let how = How {
        to: args.to,
        bind: None,
        mapped: false,
        nonblocking: false,
        timeout: Duration::from_millis(args.timeout_ms),
    };
    let started = unix_micros();
    let answer = Conn::connect(&how).and_then(|conn| {
        (&conn).write_all(b"who\n")?;
        let mut line = String::new();
        BufReader::new(&conn).read_line(&mut line)?;
        Ok(line)
    });
    let ended = unix_micros();
    let (answer, error) = match answer {
        Ok(line) if line.ends_with('\n') => (Some(line.trim_end().to_owned()), None),
        Ok(line) => (None, Some(format!("an answer cut short: {line:?}"))),
        Err(error) => (None, Some(error.to_string())),
    };
    json!({ "started_us": started, "ended_us": ended, "answer": answer, "error": error }).to_string()
}

/// The wall clock, which the process that reads this shares.
fn unix_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

//! A client that makes a connection for each line of standard input, several at once, and says in the same order what became
//! of them: the address that `tell` says it was met at, or `refused`, `reset`, `unreachable`, or another error.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::hex;

/// Bounds each wait.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct Args {
    /// Connections at once
    #[arg(long, default_value_t = 8)]
    at_once: usize,
}

/// A line: where to, and what to send, in hexadecimal.
struct Ask {
    to: SocketAddr,
    say: Vec<u8>,
}

pub fn run(args: &Args) -> Result<()> {
    let asks: Vec<Ask> = io::stdin().lock().lines().map(|line| parse(&line?)).collect::<Result<_>>()?;
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); asks.len()]));
    thread::scope(|scope| {
        for _ in 0..args.at_once {
            scope.spawn(|| {
                while let Some((number, ask)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    asks.get(number).map(|ask| (number, ask))
                } {
                    let answer = made(ask).unwrap_or_else(|error| word(&error));
                    answers.lock().expect("nobody panics")[number] = answer;
                }
            });
        }
    });
    let mut out = io::stdout().lock();
    for answer in answers.into_inner().expect("nobody panics") {
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn parse(line: &str) -> Result<Ask> {
    let (to, say) = line.split_once(' ').context("an address and bytes")?;
    Ok(Ask { to: to.parse()?, say: hex::decode(say)? })
}

fn made(ask: &Ask) -> io::Result<String> {
    let mut stream = TcpStream::connect(ask.to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&ask.say)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

fn word(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => "reset",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "unreachable",
        _ => return error.to_string(),
    }
    .to_owned()
}

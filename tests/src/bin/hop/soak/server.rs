//! The soak's server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testbed::soak::End;

use super::{ANSWER, BEFORE_MAX, REQUEST, split, step_back};
use crate::server;

/// Bounds each wait.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    /// The first port to listen at, for server number 0; the next ones have the next
    #[arg(long)]
    first_port: u16,
    /// How many numbers there are
    #[arg(long)]
    numbers: u16,
    /// Threads of each, which serve one connection at a time
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

pub fn run(args: &Args) -> Result<()> {
    step_back()?;
    for number in 0..args.numbers {
        let listener =
            server::listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), args.first_port + number))?;
        for _ in 0..args.threads {
            let listener = listener.try_clone()?;
            thread::Builder::new().spawn(move || serve(&listener, number)).context("starting a thread")?;
        }
    }
    loop {
        thread::park();
    }
}

fn serve(listener: &TcpListener, own: u16) {
    loop {
        // Whatever is said here fails the soak.
        let served = listener.accept().context("accepting").and_then(|(stream, _)| exchange(&stream, own));
        if let Err(error) = served {
            eprintln!("server {own}: {error:#}");
        }
    }
}

fn exchange(mut stream: &TcpStream, own: u16) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buf = [0; BEFORE_MAX + REQUEST];
    let mut filled = 0;
    let (before, request) = loop {
        match stream.read(&mut buf[filled..]).context("reading a request")? {
            // A silent one. That nothing else came of it the client's side knows.
            0 if filled == 0 => return Ok(()),
            0 => bail!("no request in {filled} bytes"),
            count => filled += count,
        }
        if let Some(found) = split(&buf[..filled]) {
            break found;
        }
    };
    let mut answer = Vec::with_capacity(ANSWER + before.len());
    answer.extend_from_slice(&own.to_be_bytes());
    answer.extend_from_slice(&u16::try_from(before.len())?.to_be_bytes());
    answer.extend_from_slice(&request.to_be_bytes());
    answer.extend_from_slice(before);
    stream.write_all(&answer).context("answering")?;
    let end = End::of(request);
    if end == End::Server {
        return Ok(());
    }
    match stream.read(&mut [0; 1]) {
        Ok(0) => ensure!(end == End::Client, "it ended in order, and was to be reset"),
        Ok(_) => bail!("more than the request came"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            ensure!(end == End::Reset, "it was reset, and was to end in order");
        }
        Err(error) => return Err(error).context("waiting for the client's end"),
    }
    Ok(())
}

//! The benchmarks' server: the same work for every connection, whoever routed it, one at a time.
//!
//! A connection's work: read 1 kB, and a PiCoP header before it if there is one; answer 1 kB; wait for the client's end of
//! stream; close. A listener has a thread of its own, which serves one connection at a time. `--serve` is for `bench relay`:
//! see [`many`]; `--web` for `bench gateway`: see [`web`].

mod many;
pub mod web;

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use picop_common::header::{Detected, MAX_LEN, detect};
use serde_json::json;

use crate::bench_client::{Place, REQUEST, RESPONSE};
use crate::server;

#[derive(clap::Args)]
pub struct Args {
    /// Listen on this address with a socket of this cgroup; may be repeated
    #[arg(long, value_name = "CGROUP@ADDRESS", value_parser = listen_at)]
    listen: Vec<(PathBuf, SocketAddr)>,
    /// The same, for any number of connections at once with any number of requests
    #[arg(long, value_name = "CGROUP@ADDRESS", value_parser = listen_at)]
    serve: Vec<(PathBuf, SocketAddr)>,
    /// The same, for HTTP; answers begin with the name, unless a connection's header has another environment
    #[arg(long, value_name = "NAME=CGROUP@ADDRESS", value_parser = web::at)]
    web: Vec<web::At>,
    /// A Unix socket to connect to: each line from there is answered with the counts so far
    #[arg(long)]
    control: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// What one listener has served.
#[derive(Debug, Default)]
struct Counts {
    with_header: AtomicU64,
    without: AtomicU64,
    /// What was served by `--serve` and was no connection of the benchmark's.
    bad: AtomicU64,
}

pub fn run(args: &Args) -> Result<()> {
    args.place.take()?;
    let mut counts = Vec::new();
    // A socket belongs to the cgroup its maker is in at that moment, and an accepted one to its listener's.
    let mut listen = |(cgroup, address): &(PathBuf, SocketAddr)| -> Result<_> {
        join(cgroup)?;
        let own = Arc::new(Counts::default());
        counts.push((address.port(), Arc::clone(&own)));
        Ok((server::listen(*address)?, address.port(), own))
    };
    for at in &args.listen {
        let (listener, _, own) = listen(at)?;
        thread::Builder::new().spawn(move || serve(&listener, &own)).context("starting a thread")?;
    }
    let listeners = args.serve.iter().map(&mut listen).collect::<Result<Vec<_>>>()?;
    let web = args.web.iter().map(|(name, cgroup, address)| {
        let (listener, _, counts) = listen(&(cgroup.clone(), *address))?;
        Ok(web::Listening { listener, name: name.clone(), counts })
    });
    let web = web.collect::<Result<Vec<_>>>()?;
    in_background(move || many::serve(listeners))?;
    in_background(move || web::serve(web))?;
    let control = UnixStream::connect(&args.control).context("connecting to the benchmark")?;
    let mut lines = BufReader::new(&control).lines();
    while lines.next().transpose().context("reading from the benchmark")?.is_some() {
        let of = |counts: &Counts| {
            let count = |n: &AtomicU64| n.load(Ordering::SeqCst);
            json!({
                "with_header": count(&counts.with_header),
                "without": count(&counts.without),
                "bad": count(&counts.bad),
            })
        };
        let all: serde_json::Map<_, _> =
            counts.iter().map(|(port, own)| (port.to_string(), of(own))).collect();
        writeln!(&control, "{}", serde_json::Value::from(all)).context("answering the benchmark")?;
    }
    Ok(())
}

fn in_background(serve: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let serving = move || {
        if let Err(error) = serve() {
            // Without a server every connection fails, and the benchmark shows this.
            eprintln!("{error:#}");
            process::exit(1);
        }
    };
    thread::Builder::new().spawn(serving).map(drop).context("starting a thread")
}

/// Joins a cgroup.
pub fn join(cgroup: &Path) -> Result<()> {
    // 0 stands for the writing process.
    fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("joining cgroup {}", cgroup.display()))
}

fn serve(listener: &TcpListener, counts: &Counts) {
    loop {
        let served = listener.accept().context("accepting").and_then(|(stream, _)| exchange(&stream));
        match served {
            Ok(true) => counts.with_header.fetch_add(1, Ordering::SeqCst),
            Ok(false) => counts.without.fetch_add(1, Ordering::SeqCst),
            Err(error) => {
                eprintln!("{:?}: {error:#}", listener.local_addr());
                continue;
            }
        };
    }
}

/// Serves one connection; says whether it began with a header.
fn exchange(mut stream: &TcpStream) -> Result<bool> {
    let with_header = read_request(stream)?;
    stream.write_all(&[b'a'; RESPONSE]).context("answering")?;
    match stream.read(&mut [0; 1]).context("waiting for the client's end")? {
        0 => Ok(with_header),
        _ => bail!("more than the request came"),
    }
}

/// Reads one request however it is cut up; says whether a header was before it.
fn read_request(mut stream: impl Read) -> Result<bool> {
    let mut buf = [0; MAX_LEN + REQUEST];
    let mut filled = 0;
    loop {
        let header = match detect(&buf[..filled]) {
            Detected::Header(header) => Some(header.wire_len()),
            Detected::Other(_) => Some(0),
            Detected::Partial { .. } => None,
        };
        let wanted = header.map_or(buf.len(), |len| len + REQUEST);
        if filled == wanted {
            return Ok(header != Some(0));
        }
        match stream.read(&mut buf[filled..wanted]).context("reading the request")? {
            0 => bail!("the request ended after {filled} of {wanted} bytes"),
            count => filled += count,
        }
    }
}

fn listen_at(text: &str) -> Result<(PathBuf, SocketAddr), String> {
    let (cgroup, address) = text.rsplit_once('@').ok_or("expected CGROUP@ADDRESS")?;
    Ok((cgroup.into(), address.parse().map_err(|e| format!("{address}: {e}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_and_without_header_at_any_cut() {
        let entry = ("Env-Id".to_owned(), "pr-1".to_owned());
        let header = crate::payload::header(&[entry]).expect("a short header");
        for header in [&header[..], b""] {
            let bytes = [header, &[b'q'; REQUEST]].concat();
            for at in 0..=bytes.len() {
                let told = read_request(bytes[..at].chain(&bytes[at..])).expect("a request");
                assert_eq!(told, !header.is_empty(), "cut at {at}");
            }
            assert!(read_request(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}

//! The demo's service. It does what an application with a PiCoP library does: reads the header of a connection if there is
//! one, and sends the same context on when it calls others for that request. Which instance of them answers is none of
//! its business.
//!
//! A request is one line. The answer is one line of JSON: the instances that took part, in the order of the calls, e.g.
//! `["frontend-base","cart-pr-1",{"redis":"db-base"}]`, or what a database has: `["a-base",{"mariadb":["thing"]}]`.

mod mariadb;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use picop_common::header::{Detected, detect};
use serde_json::{Value, json};

use crate::server;

/// Bounds each wait for a peer.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_LINE: u64 = 4096;
/// What asks redis for its key `who`.
const GET_WHO: &[u8] = b"*2\r\n$3\r\nGET\r\n$3\r\nwho\r\n";

#[derive(clap::Args, Clone)]
pub struct Args {
    /// This instance's name
    #[arg(long)]
    name: String,
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// The service to call next, if any
    #[arg(long)]
    next: Option<SocketAddr>,
    /// The redis to ask for its key `who`, if any
    #[arg(long)]
    redis: Option<SocketAddr>,
    /// The MariaDB to ask what it has, and to add to if the request is `add THING`, if any
    #[arg(long)]
    mariadb: Option<SocketAddr>,
}

pub fn run(args: Args) -> Result<()> {
    let listener = server::listen(args.listen)?;
    server::serve(&listener, move |stream, _| serve(&args, &stream))
}

fn serve(args: &Args, mut stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let Some(request) = read_request(stream)? else { return Ok(()) };
    let mut path = vec![json!(args.name)];
    if let Some(next) = args.next {
        path.extend(call(next, &request)?);
    }
    if let Some(redis) = args.redis {
        path.push(json!({ "redis": ask_redis(redis, &request.context)? }));
    }
    if let Some(database) = args.mariadb {
        path.push(json!({ "mariadb": mariadb::ask(database, &request.context, &request.line)? }));
    }
    let answer = Value::from(path).to_string() + "\n";
    stream.write_all(answer.as_bytes()).context("answering")
}

struct Request {
    /// The header's bytes as they came; empty when there was none.
    context: Vec<u8>,
    line: Vec<u8>,
}

/// Reads a header, if there is one, and a line, however they are cut up. `None` when the client left without a word.
fn read_request(mut stream: impl std::io::Read) -> Result<Option<Request>> {
    let mut seen = Vec::new();
    let mut buf = [0; 1024];
    loop {
        let header_len = match detect(&seen) {
            Detected::Header(header) => Some(header.wire_len()),
            Detected::Other(_) => Some(0),
            Detected::Partial { .. } => None,
        };
        if let Some(len) = header_len
            && let Some(end) = seen[len..].iter().position(|b| *b == b'\n')
        {
            let line = seen[len..=len + end].to_vec();
            seen.truncate(len);
            return Ok(Some(Request { context: seen, line }));
        }
        ensure!(seen.len() < 4096, "no end of line in {} bytes", seen.len());
        match stream.read(&mut buf).context("reading the request")? {
            0 if seen.is_empty() => return Ok(None),
            0 => bail!("the request ended after {} bytes", seen.len()),
            count => seen.extend(&buf[..count]),
        }
    }
}

/// Calls a service with the request's context in front of its line.
fn call(to: SocketAddr, request: &Request) -> Result<Vec<Value>> {
    let stream = connect(to, &[&request.context[..], &request.line].concat())?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_LINE))
        .read_line(&mut answer)
        .with_context(|| format!("the answer of {to}"))?;
    serde_json::from_str(&answer).with_context(|| format!("{to} answered {answer:?}"))
}

/// Asks redis by its own protocol, with the context in front, as PiCoP has it for any protocol. The node agent keeps it
/// from redis, which would not understand it.
fn ask_redis(to: SocketAddr, context: &[u8]) -> Result<String> {
    let stream = connect(to, &[context, GET_WHO].concat())?;
    let mut reader = BufReader::new(stream.take(MAX_LINE));
    let mut read = || -> Result<String> {
        let mut line = String::new();
        reader.read_line(&mut line).with_context(|| format!("the answer of redis at {to}"))?;
        Ok(line.trim_end().to_owned())
    };
    let length = read()?;
    ensure!(length.starts_with('$') && length != "$-1", "redis at {to} answered {length:?}");
    read()
}

fn connect(to: SocketAddr, opening: &[u8]) -> Result<TcpStream> {
    let mut stream =
        TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(opening).with_context(|| format!("writing to {to}"))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one read at a time, cut at `at`.
    fn read_cut(bytes: &[u8], at: usize) -> Option<Request> {
        let cut = bytes[..at].chain(&bytes[at..]);
        read_request(cut).expect("a whole request")
    }

    #[test]
    fn a_request_is_read_with_and_without_header_at_any_cut() {
        let entry = ("Env-Id".to_owned(), "pr-1".to_owned());
        let header = crate::payload::header(&[entry]).expect("a short header");
        for context in [&header[..], b""] {
            let bytes = [context, b"who\n"].concat();
            for at in 0..=bytes.len() {
                let request = read_cut(&bytes, at).expect("a request");
                assert_eq!(
                    (&request.context[..], &request.line[..]),
                    (context, &b"who\n"[..]),
                    "cut at {at}"
                );
            }
        }
    }

    #[test]
    fn a_probe_is_no_request_and_a_cut_one_is_an_error() {
        assert!(read_request(&b""[..]).expect("nothing wrong with silence").is_none());
        assert!(read_request(&b"wh"[..]).is_err());
    }
}

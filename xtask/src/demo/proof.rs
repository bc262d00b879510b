//! The proof that redis got no header: it counts the bytes it is sent, and they are exactly those of the commands.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::Pod;

use super::ask::request;
use super::stage::{CLIENTS, Stage};

/// Requests of each client.
const REQUESTS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(5);
/// What the cart asks redis, as it is on the wire.
const GET_WHO: &[u8] = b"*2\r\n$3\r\nGET\r\n$3\r\nwho\r\n";
/// A PiCoP header, `Env-Id:pr-1`, for the counter-check.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x01\x0bEnv-Id:pr-1";

/// What one redis counted.
#[derive(Debug)]
pub struct Counted {
    pub instance: &'static str,
    pub commands: u64,
    pub bytes: u64,
    /// What the commands alone come to.
    pub expected: u64,
}

/// What came out.
#[derive(Debug)]
pub struct Proof {
    pub counted: Vec<Counted>,
    /// Bytes that a connection with a header, past picop, makes redis count.
    pub control_bytes: u64,
}

/// Sends requests in every environment, and compares what the two redis counted with what the carts' commands come to.
pub fn prove(stage: &Stage) -> Result<Proof> {
    // Of every three requests two go to the base's db, one to that of pr-2.
    let shares = [("db-base", 2 * REQUESTS), ("db-pr-2", REQUESTS)];
    for (instance, _) in shares {
        redis(stage, instance)?.expect_ok(&["CONFIG", "RESETSTAT"])?;
    }
    for (client, _) in CLIENTS {
        let pod = stage.pod(client)?;
        for _ in 0..REQUESTS {
            request(stage, pod)?;
        }
    }
    let mut counted = Vec::new();
    for (instance, commands) in shares {
        let (stats, own) = redis(stage, instance)?.info()?;
        let bytes = stats.get("total_net_input_bytes")?;
        let expected = commands * GET_WHO.len() as u64 + own;
        ensure!(
            bytes == expected && stats.get("keyspace_hits")? == commands,
            "{instance} counted {bytes} bytes where its commands come to {expected}:\n{}",
            stats.0
        );
        ensure!(
            stats.get("total_error_replies")? == 0,
            "{instance} was asked something it does not understand"
        );
        counted.push(Counted { instance, commands, bytes, expected });
    }
    Ok(Proof { counted, control_bytes: control(stage)? })
}

/// The counter does see a header: the same command with one in front, straight to redis. Nor does redis answer it.
fn control(stage: &Stage) -> Result<u64> {
    let instance = "db-base";
    redis(stage, instance)?.expect_ok(&["CONFIG", "RESETSTAT"])?;
    let mut direct = redis(stage, instance)?;
    let socket = direct.stream.get_mut();
    socket.write_all(&[HEADER, GET_WHO].concat()).context("writing to redis")?;
    // Redis finds no end of a line in it and would wait for one for ever.
    socket.shutdown(Shutdown::Write).context("shutting down the connection to redis")?;
    let mut answer = Vec::new();
    direct.stream.read_to_end(&mut answer).context("reading from redis")?;
    let understood = String::from_utf8_lossy(&answer).contains(instance);
    ensure!(!understood, "redis understands the header, so that its answers prove nothing");
    let (stats, own) = redis(stage, instance)?.info()?;
    let bytes = stats.get("total_net_input_bytes")? - own;
    ensure!(
        bytes > GET_WHO.len() as u64,
        "redis does not count a header's bytes, so that its counter proves nothing"
    );
    Ok(bytes)
}

fn redis(stage: &Stage, instance: &str) -> Result<Redis> {
    Redis::connect(stage.pod(instance)?, stage.redis_at(instance)?)
}

/// A connection to a redis from within its own pod: the agent is not on its way.
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Connects from `pod`'s network namespace.
    pub fn connect(pod: &Pod, to: SocketAddr) -> Result<Self> {
        let stream = pod.in_netns(|| TcpStream::connect_timeout(&to, PATIENCE));
        let stream =
            stream.and_then(|stream| stream).with_context(|| format!("connecting to redis at {to}"))?;
        stream.set_read_timeout(Some(PATIENCE)).context("setting a timeout")?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command that answers OK.
    pub fn expect_ok(&mut self, words: &[&str]) -> Result<()> {
        self.send(words)?;
        let answer = self.line()?;
        ensure!(answer == "+OK", "redis answered {words:?} with {answer:?}");
        Ok(())
    }

    /// Asks for its statistics, and says how many bytes that took to ask.
    fn info(&mut self) -> Result<(Stats, u64)> {
        let sent = self.send(&["INFO", "stats"])?;
        let length = self.line()?;
        let length = length.strip_prefix('$').and_then(|n| n.parse().ok());
        let mut text = vec![0; length.context("redis answered INFO with something else")?];
        self.stream.read_exact(&mut text).context("reading from redis")?;
        Ok((Stats(String::from_utf8(text).context("statistics are text")?), sent))
    }

    fn send(&mut self, words: &[&str]) -> Result<u64> {
        let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let bytes = format!("*{}\r\n{}", words.len(), words.collect::<String>());
        self.stream.get_mut().write_all(bytes.as_bytes()).context("writing to redis")?;
        Ok(bytes.len() as u64)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).context("reading from redis")?;
        Ok(line.trim_end().to_owned())
    }
}

struct Stats(String);

impl Stats {
    fn get(&self, key: &str) -> Result<u64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value
            .and_then(|v| v.trim().parse().ok())
            .with_context(|| format!("redis tells no {key}:\n{}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let stats = Stats("# Stats\r\ntotal_net_input_bytes_x:1\r\ntotal_net_input_bytes:42\r\n".into());
        assert_eq!(stats.get("total_net_input_bytes").expect("it is there"), 42);
        assert!(stats.get("total_net").is_err());
    }
}

//! Whoever watches an agent: a scraper that fetches its metrics every second, and a collector that takes its traces.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::{Agent, AgentOptions};

/// How often metrics are fetched: fifteen times as often as Prometheus does by default.
const INTERVAL: Duration = Duration::from_secs(1);

/// Takes traces, and throws them away.
pub struct Collector {
    at: SocketAddr,
    taken: Arc<AtomicU64>,
}

impl Collector {
    /// Starts one, which ends with this process.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening for traces")?;
        let (at, taken) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // What is not understood is not counted, and shows at the end.
                if take(stream).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { at, taken })
    }

    /// Has an agent tell it.
    pub fn have_it_told(&self, options: &mut AgentOptions) {
        let args = ["--metrics", "127.0.0.1:0", "--trace-direct", "0.01"];
        options.args.extend(args.map(str::to_owned));
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.at)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ];
        options.env.extend(env.map(|(name, value)| (name.to_owned(), value)));
    }
}

fn take(stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0_u64);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?;
            }
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close";
    write!(stream.get_mut(), "{head}\r\n\r\n")?;
    Ok(())
}

/// Fetches metrics until it is told to end.
pub struct Watcher {
    collector: Collector,
    stop: Arc<AtomicBool>,
    fetching: JoinHandle<Result<u64>>,
}

impl Watcher {
    /// Starts fetching an agent's.
    pub fn start(collector: Collector, agent: &Agent) -> Result<Self> {
        let lines = agent.log_lines();
        let line = lines.iter().find(|line| line["message"] == "--metrics is served");
        let at: SocketAddr =
            line.and_then(|line| line["address"].as_str()).context("the agent serves no metrics")?.parse()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let fetching = thread::spawn(move || {
            let mut fetched = 0;
            while !stopped.load(Ordering::Relaxed) {
                fetch(at)?;
                fetched += 1;
                thread::sleep(INTERVAL);
            }
            Ok(fetched)
        });
        Ok(Self { collector, stop, fetching })
    }

    /// Ends, and makes sure that there was something to watch.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let fetched = self.fetching.join().expect("it does not panic").context("fetching metrics")?;
        let taken = self.collector.taken.load(Ordering::Relaxed);
        ensure!(fetched > 0 && taken > 0, "watched by nobody: {fetched} times metrics, {taken} times traces");
        Ok(())
    }
}

fn fetch(at: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(at)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "{at} answers {}", text.lines().next().unwrap_or_default());
    Ok(())
}

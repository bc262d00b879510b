//! One end of a connection on which both sides stream at once, in sizes and with pauses that a seed decides, and check every
//! byte that comes. An end that makes no progress for a while says so: a hang is a result, not a wait.

mod events;
mod threads;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use testbed::blob;
use testbed::stream::{Dice, StreamReport};

use crate::server;

#[derive(clap::Args, Clone)]
pub struct Args {
    /// Where to listen
    #[arg(long, conflicts_with = "to", required_unless_present = "to")]
    listen: Option<SocketAddr>,
    /// Where to connect
    #[arg(long)]
    to: Option<SocketAddr>,
    /// How many bytes to send
    #[arg(long, default_value_t = 0)]
    send: u64,
    /// How many bytes to get before the end of the stream
    #[arg(long, default_value_t = 0)]
    expect: u64,
    /// How to wait
    #[arg(long, value_enum, default_value_t = Mode::Blocking)]
    mode: Mode,
    /// How to end
    #[arg(long, value_enum, default_value_t = End::Fin)]
    end: End,
    /// Decides sizes and pauses
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Largest write
    #[arg(long, default_value_t = 64 * 1024)]
    max_write: usize,
    /// Largest read
    #[arg(long, default_value_t = 64 * 1024)]
    max_read: usize,
    /// Longest pause before a write, in microseconds
    #[arg(long, default_value_t = 0)]
    write_pause_us: u64,
    /// Longest pause before a read, in microseconds
    #[arg(long, default_value_t = 0)]
    read_pause_us: u64,
    /// Sleep so long before the first read, in milliseconds
    #[arg(long, default_value_t = 0)]
    stall_ms: u64,
    /// How long may pass without progress, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    watchdog_ms: u64,
    /// Always the largest write, and no look at what comes: for measurements
    #[arg(long)]
    plain: bool,
    /// Size of the receive buffer in bytes: set before connecting, or after accepting; 0 leaves it to the kernel
    #[arg(long, default_value_t = 0)]
    rcvbuf: usize,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A thread that writes and one that reads, blocking
    Blocking,
    /// One blocking thread that sends everything first, half-closes and reads then
    Sequential,
    /// Non-blocking, level-triggered epoll
    Level,
    /// Non-blocking, edge-triggered epoll
    Edge,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Shut down the write side when all is sent; go on reading
    Fin,
    /// Close when all is sent and the peer's stream has ended
    Late,
    /// Close as soon as all is sent, whatever may come
    Close,
    /// Reset as soon as all is sent
    Reset,
}

impl End {
    fn reads(self) -> bool {
        matches!(self, Self::Fin | Self::Late)
    }
}

impl Args {
    /// Where it listens, if it does not connect.
    pub fn listens_at(&self) -> Option<SocketAddr> {
        self.listen
    }
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(to) = args.to {
        return tell(&exchange(connect(to, args)?, args, args.seed));
    }
    let listener = server::listen(args.listen.context("an address to listen at")?)?;
    let args = args.clone();
    server::serve(&listener, move |stream, number| {
        tell(&exchange(stream, &args, args.seed.wrapping_add(number as u64)))
    })
}

fn tell(report: &StreamReport) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

/// The whole of one connection: made to `--to`, or taken from the listener.
pub fn once(args: &Args, listener: Option<&TcpListener>) -> StreamReport {
    let stream = match (args.to, listener) {
        (Some(to), _) => connect(to, args),
        (None, Some(listener)) => accept(listener, args),
        (None, None) => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    match stream {
        Ok(stream) => exchange(stream, args, args.seed),
        Err(error) => StreamReport {
            error: Some(format!("NoConnection({:?})", error.kind())),
            ..StreamReport::default()
        },
    }
}

fn connect(to: SocketAddr, args: &Args) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if args.rcvbuf > 0 {
        socket.set_recv_buffer_size(args.rcvbuf)?;
    }
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener, args: &Args) -> std::io::Result<TcpStream> {
    let patience = Timespec::try_from(Duration::from_millis(args.watchdog_ms))
        .map_err(|_| std::io::ErrorKind::InvalidInput)?;
    if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience))? == 0 {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    if args.rcvbuf > 0 {
        SockRef::from(&stream).set_recv_buffer_size(args.rcvbuf)?;
    }
    Ok(stream)
}

fn exchange(stream: TcpStream, args: &Args, seed: u64) -> StreamReport {
    let start = Instant::now();
    let mut report = StreamReport { local: stream.local_addr().ok(), ..StreamReport::default() };
    let outcome = match args.mode {
        Mode::Blocking => threads::duplex(&stream, args, seed, &mut report),
        Mode::Sequential => threads::sequential(&stream, args, seed, &mut report),
        Mode::Level | Mode::Edge => events::run(&stream, args, seed, &mut report),
    };
    if let Err(error) = outcome {
        report.error = Some(format!("{error:?}"));
    }
    if args.end == End::Reset
        && let Err(error) = server::reset(stream)
    {
        report.error.get_or_insert(format!("{error:#}"));
    }
    report.elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let reads = args.end.reads();
    let all = report.sent == args.send && (!reads || report.received == args.expect);
    report.ok = report.error.is_none() && all && (!reads || report.eof);
    report
}

/// Why an end stopped early.
#[derive(Debug)]
#[expect(dead_code, reason = "told by Debug")]
enum Failure {
    Io(std::io::ErrorKind),
    Stalled { sent: u64, received: u64 },
    Mismatch { at: u64 },
    TooMuch { at: u64 },
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// Now and then a pause.
fn pause(dice: &mut Dice, max_us: u64) {
    if max_us > 0 && dice.roll(4) == 0 {
        thread::sleep(Duration::from_micros(dice.roll(max_us)));
    }
}

/// What there is to write next.
struct Source<'a> {
    args: &'a Args,
    dice: Dice,
    buffer: Vec<u8>,
}

impl<'a> Source<'a> {
    fn new(args: &'a Args, seed: u64) -> Self {
        Self { args, dice: Dice::new(seed), buffer: vec![0; args.max_write] }
    }

    fn next(&mut self, sent: u64) -> &[u8] {
        let left = usize::try_from(self.args.send - sent).unwrap_or(usize::MAX);
        if self.args.plain {
            return &self.buffer[..left.min(self.args.max_write)];
        }
        pause(&mut self.dice, self.args.write_pause_us);
        let size = self.dice.size(self.args.max_write).min(left);
        blob::fill(sent, &mut self.buffer[..size]);
        &self.buffer[..size]
    }
}

/// Where what comes goes.
struct Sink<'a> {
    args: &'a Args,
    dice: Dice,
    buffer: Vec<u8>,
}

impl<'a> Sink<'a> {
    fn new(args: &'a Args, seed: u64) -> Self {
        Self { args, dice: Dice::new(!seed), buffer: vec![0; args.max_read] }
    }

    fn room(&mut self) -> &mut [u8] {
        if self.args.plain {
            return &mut self.buffer;
        }
        pause(&mut self.dice, self.args.read_pause_us);
        let size = self.dice.size(self.args.max_read);
        &mut self.buffer[..size]
    }

    fn take(&self, count: usize, received: &mut u64) -> Result<(), Failure> {
        let at = *received;
        if !self.args.plain
            && let Some(at) = blob::mismatch(at, &self.buffer[..count])
        {
            return Err(Failure::Mismatch { at });
        }
        *received += count as u64;
        if *received > self.args.expect { Err(Failure::TooMuch { at }) } else { Ok(()) }
    }
}

fn finish(stream: &TcpStream, end: End) -> Result<(), Failure> {
    if end != End::Fin {
        return Ok(());
    }
    match stream.shutdown(Shutdown::Write) {
        // The peer has reset the connection: a read tells.
        Err(e) if e.kind() == std::io::ErrorKind::NotConnected => Ok(()),
        other => Ok(other?),
    }
}

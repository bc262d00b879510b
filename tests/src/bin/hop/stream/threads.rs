//! Blocking.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use testbed::stream::StreamReport;

use super::{Args, Failure, Sink, Source, finish};

/// Two threads.
pub fn duplex(stream: &TcpStream, args: &Args, seed: u64, report: &mut StreamReport) -> Result<(), Failure> {
    set_watchdog(stream, args)?;
    let (mut sent, mut writing) = (0, Ok(()));
    let mut reading = Ok(());
    thread::scope(|scope| {
        scope.spawn(|| writing = write(stream, args, seed, &mut sent));
        if args.end.reads() {
            reading = read(stream, args, seed, report);
        }
    });
    report.sent = sent;
    writing.and(reading)
}

/// One thread, which says all it has to say first.
pub fn sequential(
    stream: &TcpStream,
    args: &Args,
    seed: u64,
    report: &mut StreamReport,
) -> Result<(), Failure> {
    set_watchdog(stream, args)?;
    write(stream, args, seed, &mut report.sent)?;
    if args.end.reads() { read(stream, args, seed, report) } else { Ok(()) }
}

fn set_watchdog(stream: &TcpStream, args: &Args) -> Result<(), Failure> {
    let patience = Some(Duration::from_millis(args.watchdog_ms));
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)?;
    Ok(())
}

fn write(mut stream: &TcpStream, args: &Args, seed: u64, sent: &mut u64) -> Result<(), Failure> {
    let mut source = Source::new(args, seed);
    while *sent < args.send {
        match stream.write(source.next(*sent)) {
            Ok(count) => *sent += count as u64,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return Err(Failure::Stalled { sent: *sent, received: 0 });
            }
            Err(e) => return Err(e.into()),
        }
    }
    finish(stream, args.end)
}

fn read(mut stream: &TcpStream, args: &Args, seed: u64, report: &mut StreamReport) -> Result<(), Failure> {
    thread::sleep(Duration::from_millis(args.stall_ms));
    let mut sink = Sink::new(args, seed);
    loop {
        let since = Instant::now();
        match stream.read(sink.room()) {
            Ok(0) => {
                report.eof = true;
                return Ok(());
            }
            Ok(count) => sink.take(count, &mut report.received)?,
            // A blocking read on a socket in a sockmap may answer this out of turn.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if since.elapsed() >= Duration::from_millis(args.watchdog_ms) {
                    return Err(Failure::Stalled { sent: 0, received: report.received });
                }
                report.out_of_turn += 1;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

//! One connection of the client: connect, send, read, close.

use std::io::{self, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use testbed::{ClientReport, blob, hex};

use super::Args;
use crate::conn::Conn;

const CHUNK: usize = 64 * 1024;
pub const TEXT_MAX: usize = 4096;
pub const HEX_MAX: usize = 64;

/// What ended a connection before it did all it was asked to.
pub struct Fault {
    stage: &'static str,
    kind: String,
    detail: String,
}

impl Fault {
    pub fn io(stage: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self { stage, kind: format!("{:?}", error.kind()), detail: error.to_string() }
    }

    /// What is wrong with what was read, now that nothing more will be.
    pub fn of_content(args: &Args, report: &ClientReport) -> Option<Self> {
        let (kind, detail) = if let Some(at) = report.mismatch_at {
            ("Mismatch", format!("byte {at} is not that of the computable stream"))
        } else if args.expect_bytes.is_some_and(|count| report.bytes < count) {
            ("Short", format!("the stream ended after {} bytes", report.bytes))
        } else {
            return None;
        };
        Some(Self { stage: "check", kind: kind.to_owned(), detail })
    }

    /// Says so in a report.
    pub fn tell(self, report: &mut ClientReport) {
        report.stage = Some(self.stage.to_owned());
        (report.error, report.detail) = (Some(self.kind), Some(self.detail));
    }
}

/// Makes one connection; `connected` is called once it stands or has failed.
pub fn report(args: &Args, opening: &[u8], connected: impl FnOnce()) -> ClientReport {
    let start = Instant::now();
    let mut report = ClientReport::default();
    let conn = Conn::connect(&args.how()).map_err(Fault::io("connect"));
    report.connect_us = micros(start);
    connected();
    let outcome = conn.and_then(|conn| {
        (report.local, report.peer) = (conn.local(), conn.peer());
        exchange(args, opening, &conn, start, &mut report)
    });
    report.elapsed_us = micros(start);
    report.ok = outcome.is_ok();
    if let Err(fault) = outcome {
        fault.tell(&mut report);
    }
    report
}

fn exchange(
    args: &Args,
    opening: &[u8],
    conn: &Conn,
    start: Instant,
    report: &mut ClientReport,
) -> Result<(), Fault> {
    if args.upload == 0 {
        report.sent = send(args, opening, conn)?;
        receive(args, conn, start, report)?;
    } else {
        // An echo would fill both directions if nobody read meanwhile.
        let (sent, received) = thread::scope(|scope| {
            let sender = scope.spawn(|| send(args, opening, conn));
            let received = receive(args, conn, start, report);
            (sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), received)
        });
        report.sent = sent?;
        received?;
    }
    thread::sleep(Duration::from_millis(args.hold_ms));
    if args.reset {
        conn.reset_on_close().map_err(Fault::io("shutdown"))?;
    }
    Ok(())
}

fn send(args: &Args, opening: &[u8], mut conn: &Conn) -> Result<u64, Fault> {
    thread::sleep(Duration::from_millis(args.delay_ms));
    let step = if args.split_every_byte { 1 } else { opening.len().max(1) };
    let (first, rest) = opening.split_at(args.split_at.unwrap_or(0).min(opening.len()));
    let pieces = [first].into_iter().chain(rest.chunks(step)).filter(|piece| !piece.is_empty());
    for (number, piece) in pieces.enumerate() {
        if number > 0 {
            thread::sleep(Duration::from_millis(args.split_ms));
        }
        conn.write_all(piece).map_err(Fault::io("write"))?;
    }
    let (mut at, mut buf) = (0, vec![0; if args.upload == 0 { 0 } else { CHUNK }]);
    while at < args.upload {
        let count = CHUNK.min(usize::try_from(args.upload - at).unwrap_or(CHUNK));
        blob::fill(at, &mut buf[..count]);
        conn.write_all(&buf[..count]).map_err(Fault::io("write"))?;
        at += count as u64;
    }
    if args.half_close {
        conn.half_close().map_err(Fault::io("shutdown"))?;
    }
    Ok(opening.len() as u64 + args.upload)
}

fn receive(args: &Args, mut conn: &Conn, start: Instant, report: &mut ClientReport) -> Result<(), Fault> {
    let wanted = args.wanted();
    let mut buf = vec![0; if wanted == 0 { 0 } else { CHUNK }];
    let mut head = Vec::new();
    let mut fault = None;
    while report.bytes < wanted {
        thread::sleep(Duration::from_millis(args.read_pause_ms));
        let room = CHUNK.min(usize::try_from(wanted - report.bytes).unwrap_or(CHUNK));
        match conn.read(&mut buf[..room]) {
            Ok(0) => {
                report.eof = true;
                break;
            }
            Ok(count) => {
                report.first_byte_us.get_or_insert_with(|| micros(start));
                head.extend(&buf[..count.min(TEXT_MAX - head.len())]);
                if args.expect_blob && report.mismatch_at.is_none() {
                    report.mismatch_at = blob::mismatch(report.bytes, &buf[..count]);
                }
                report.bytes += count as u64;
            }
            Err(error) => {
                fault = Some(Fault::io("read")(error));
                break;
            }
        }
    }
    report.first_hex = hex::encode(&head[..head.len().min(HEX_MAX)]);
    report.text = String::from_utf8_lossy(&head).into_owned();
    if let Some(fault) = fault {
        return Err(fault);
    }
    Fault::of_content(args, report).map_or(Ok(()), Err)
}

pub fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

//! The header codec, again and again: for a program that counts instructions (`valgrind --tool=callgrind`). What one time
//! takes is the difference between two numbers of times.

use std::hint::black_box;

use anyhow::{Result, ensure};
use picop_common::header::{Detected, Field, MAX_LEN, detect, encode};

#[derive(clap::Args)]
pub struct Args {
    /// What to do
    #[arg(long, value_enum)]
    what: What,
    /// How often
    #[arg(long)]
    times: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Nothing, but all that is around it
    Nothing,
    /// Find a header of one short entry, and its environment
    Read,
    /// Find a header of four entries that fill it, and its environment
    ReadLong,
    /// See that an HTTP request begins with none
    ReadNone,
    /// Write a header of one short entry
    Write,
    /// Write one of four entries that fill it
    WriteLong,
}

/// As a pod's.
const SHORT: [(&str, &str); 1] = [("Env-Id", "pr-1234")];
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub fn run(args: &Args) -> Result<()> {
    let filler =
        "x".repeat(255 - "Baggage:\r\nEnv-Id:pr-1234\r\nTenant:acme\r\nTraceparent:".len() - TRACE.len());
    let long = [("env-id", "pr-1234"), ("traceparent", TRACE), ("tenant", "acme"), ("baggage", &*filler)];
    let request = b"GET /payload HTTP/1.1\r\nHost: bench\r\n\r\n";
    let mut out = [0; MAX_LEN];
    let mut found = 0_u64;
    let entries: &[(&str, &str)] = match args.what {
        What::Read | What::Write => &SHORT,
        _ => &long,
    };
    let length = write(entries, &mut out)?;
    let wire = [&out[..length], request].concat();
    for _ in 0..args.times {
        match args.what {
            What::Nothing => found += u64::from(black_box(true)),
            What::Read | What::ReadLong => found += u64::from(reads(black_box(&wire))),
            What::ReadNone => found += u64::from(matches!(detect(black_box(request)), Detected::Other(_))),
            What::Write | What::WriteLong => {
                found += u64::from(write(black_box(entries), &mut out)? == length);
            }
        }
    }
    ensure!(
        found == u64::from(args.times),
        "{:?} came out otherwise {} times",
        args.what,
        u64::from(args.times) - found
    );
    Ok(())
}

fn reads(wire: &[u8]) -> bool {
    matches!(detect(wire), Detected::Header(header) if header.env_id() == Some(&b"pr-1234"[..]))
}

fn write(entries: &[(&str, &str)], out: &mut [u8; MAX_LEN]) -> Result<usize> {
    let mut fields = [Field::new("", ""); 4];
    for (field, (key, value)) in fields.iter_mut().zip(entries) {
        *field = Field::new(key, value);
    }
    encode(&mut fields[..entries.len()], out).map_err(|error| anyhow::anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_out_as_it_should() {
        for what in [What::Nothing, What::Read, What::ReadLong, What::ReadNone, What::Write, What::WriteLong]
        {
            run(&Args { what, times: 3 }).expect("as it should");
        }
    }
}

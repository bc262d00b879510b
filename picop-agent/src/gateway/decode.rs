//! `picop decode`: the PiCoP headers in a capture, or in bytes written in hexadecimal.

mod frame;
mod hex;
mod pcap;
mod pcapng;
mod report;
mod streams;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use self::streams::Streams;
use super::args::DecodeArgs;

/// The most bytes that are read: a capture is held in memory.
const MAX_FILE: u64 = 1024 * 1024 * 1024;

/// There is nothing to decode.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is too large.
    #[error("{0} is over 1 GiB; cut it (editcap -c, tcpdump -C), headers are at the start of connections")]
    TooLarge(PathBuf),
    /// It is neither a capture nor hexadecimal.
    #[error("this is no capture (pcap, pcapng), and no text of hexadecimal digits: {0}")]
    Unknown(#[source] HexError),
    /// The argument of `--hex`.
    #[error("--hex")]
    Hex(#[source] HexError),
    /// The capture is damaged.
    #[error("the capture is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What is there.
        what: &'static str,
    },
    /// Its packets are of a kind that is not read here.
    #[error(
        "the capture's link type is {0}; Ethernet, Linux cooked (SLL, SLL2), raw IP and loopback are read here"
    )]
    LinkType(u32),
    /// There is no header.
    #[error("no PiCoP header: {0}")]
    None(String),
    /// The report cannot be written.
    #[error("writing to standard output failed")]
    Output(#[source] io::Error),
}

/// Why a text is no bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// Neither a digit nor what may stand between.
    #[error("{found:?} at character {at} is no hexadecimal digit")]
    Digit {
        /// What.
        found: char,
        /// Where, from 1.
        at: usize,
    },
    /// Half a byte is left.
    #[error("it has an odd number of digits, {0}; is one missing?")]
    Odd(usize),
    /// No digit at all.
    #[error("there are no digits")]
    Empty,
}

/// Prints what is found.
///
/// # Errors
/// When there is no header in it, or it cannot be read.
pub fn run(args: &DecodeArgs) -> Result<(), DecodeError> {
    let report = match (&args.hex, &args.file) {
        (Some(text), _) => of_bytes(&hex::decode(text).map_err(DecodeError::Hex)?)?,
        (None, Some(path)) => of_file(&read(path)?)?,
        (None, None) => of_file(&read(&PathBuf::from("-"))?)?,
    };
    io::stdout().write_all(report.as_bytes()).map_err(DecodeError::Output)
}

fn read(path: &PathBuf) -> Result<Vec<u8>, DecodeError> {
    let mut content = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut content)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content))
    };
    let count = read.map_err(|source| DecodeError::Read { path: path.clone(), source })?;
    if u64::try_from(count).is_ok_and(|count| count > MAX_FILE) {
        return Err(DecodeError::TooLarge(path.clone()));
    }
    Ok(content)
}

fn of_file(content: &[u8]) -> Result<String, DecodeError> {
    let mut streams = Streams::default();
    if pcapng::is(content) {
        pcapng::read(content, |link, packet| streams.packet(link, packet))?;
    } else if pcap::is(content) {
        pcap::read(content, |link, packet| streams.packet(link, packet))?;
    } else {
        let text = String::from_utf8_lossy(content);
        return of_bytes(&hex::decode(&text).map_err(DecodeError::Unknown)?);
    }
    report::of_streams(&streams)
}

fn of_bytes(bytes: &[u8]) -> Result<String, DecodeError> {
    report::of_bytes(bytes)
}

#[cfg(test)]
mod tests;

//! What the client and the server of `bench relay` say to each other: requests of one size, the first byte of which says what
//! is wanted, and a stream of bytes that both ends know.

use anyhow::{Context as _, Result, ensure};
use testbed::blob;

use crate::bench_client::{REQUEST, RESPONSE};

/// Bytes of a single `read(2)` or `write(2)` of a stream.
pub const CHUNK: usize = 64 * 1024;
/// After so many bytes the stream repeats. A prime, so that no cut at a round number falls on a repetition.
const PERIOD: usize = 65_521;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A response.
    Exchange,
    /// To send so many bytes, and a response when they were all read.
    Upload(u64),
    /// To be sent so many bytes.
    Download(u64),
}

impl Request {
    /// As sent.
    pub fn bytes(self) -> [u8; REQUEST] {
        let (letter, length) = match self {
            Self::Exchange => (b'q', 0),
            Self::Upload(length) => (b'u', length),
            Self::Download(length) => (b'd', length),
        };
        let mut bytes = [b'q'; REQUEST];
        bytes[0] = letter;
        bytes[1..9].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// As read.
    pub fn of(bytes: &[u8; REQUEST]) -> Option<Self> {
        let length = u64::from_be_bytes(bytes[1..9].try_into().ok()?);
        match (bytes[0], length) {
            (b'q', 0) => Some(Self::Exchange),
            (b'u', length) => Some(Self::Upload(length)),
            (b'd', length) => Some(Self::Download(length)),
            _ => None,
        }
    }
}

/// A response: which of the server's ports sent it.
pub fn response(port: u16) -> [u8; RESPONSE] {
    let mut bytes = [b'a'; RESPONSE];
    bytes[..2].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// That a whole response came, and from that port.
pub fn check_response(bytes: &[u8], port: u16) -> Result<()> {
    ensure!(bytes.len() == RESPONSE, "a response of {} bytes, not {RESPONSE}", bytes.len());
    let from = u16::from_be_bytes([bytes[0], bytes[1]]);
    ensure!(from == port, "the response is of the server at port {from}, not {port}: it went the wrong way");
    ensure!(bytes[2..].iter().all(|byte| *byte == b'a'), "the response is not what the server sent");
    Ok(())
}

/// The stream, ready to be sent from and compared with at the speed of memory.
pub struct Stream(Vec<u8>);

impl Stream {
    /// Computes it.
    pub fn new() -> Self {
        let mut period = vec![0; PERIOD];
        blob::fill(0, &mut period);
        let bytes = period.iter().copied().cycle().take(PERIOD + CHUNK).collect();
        Self(bytes)
    }

    /// The bytes at `offset`: [`CHUNK`] of them, or as many as there are to `end`.
    pub fn chunk(&self, offset: u64, end: u64) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).expect("less than a period");
        let length = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
        &self.0[start..start + length]
    }

    /// That `bytes` are the stream's at `offset`.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let expected = self.chunk(offset, offset + bytes.len() as u64);
        if expected == bytes {
            return Ok(());
        }
        let at = expected.iter().zip(bytes).position(|(a, b)| a != b);
        at.map_or(Ok(()), |at| Err(anyhow::anyhow!("byte {} of the stream is wrong", offset + at as u64)))
    }

    /// Sends `length` bytes.
    pub fn send(&self, mut to: impl std::io::Write, length: u64) -> Result<()> {
        let mut offset = 0;
        while offset < length {
            let sent = to.write(self.chunk(offset, length)).context("sending the stream")?;
            ensure!(sent > 0, "nothing more could be sent after {offset} bytes");
            offset += sent as u64;
        }
        Ok(())
    }

    /// Reads `length` bytes, and compares each.
    pub fn receive(&self, mut from: impl std::io::Read, length: u64) -> Result<()> {
        let mut buf = vec![0; CHUNK];
        let mut offset = 0;
        while offset < length {
            let room = usize::try_from(length - offset).unwrap_or(CHUNK).min(CHUNK);
            let count = from.read(&mut buf[..room]).context("reading the stream")?;
            ensure!(count > 0, "the stream ended after {offset} of {length} bytes");
            self.check(offset, &buf[..count])?;
            offset += count as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_are_read_as_they_were_meant() {
        for request in [Request::Exchange, Request::Upload(0), Request::Upload(1 << 40), Request::Download(7)]
        {
            assert_eq!(Request::of(&request.bytes()), Some(request));
        }
        assert_eq!(Request::of(&[b'\r'; REQUEST]), None);
        check_response(&response(7001), 7001).expect("its own");
        assert!(check_response(&response(7001), 7002).is_err());
        assert!(check_response(&response(7001)[1..], 7001).is_err());
        let mut damaged = response(7001);
        damaged[1000] = b'b';
        assert!(check_response(&damaged, 7001).is_err());
    }

    #[test]
    fn damage_to_a_stream_shows_and_its_absence_does_not() {
        let stream = Stream::new();
        let length = 300_001;
        let mut sent = Vec::new();
        stream.send(&mut sent, length).expect("a vector takes all");
        assert_eq!(sent.len() as u64, length);
        stream.receive(&sent[..], length).expect("as it was sent");
        assert!(stream.receive(&sent[..sent.len() - 1], length).is_err(), "cut short");
        for at in [0, 65_520, 65_521, 65_536, 200_000] {
            let mut lost = sent.clone();
            lost.remove(at);
            lost.push(0);
            assert!(stream.receive(&lost[..], length).is_err(), "lost {at}");
        }
        let mut swapped = sent.clone();
        swapped[..CHUNK * 2].rotate_left(CHUNK);
        assert!(stream.receive(&swapped[..], length).is_err(), "out of order");
    }
}

//! The soak's client and server: connections as many as possible, of which each one is checked by the client against what
//! the server saw.
//!
//! A request is [`REQUEST`] bytes, marked at both ends; what comes before it, a header or nothing, the server sends back as
//! it came, with its own number and the request's. How each connection ends is `testbed::soak::End`'s to say.

pub mod client;
pub mod server;

use anyhow::Context as _;

/// Bytes of a request.
const REQUEST: usize = 32;
/// How a request begins and ends.
const MARKS: (&[u8; 4], &[u8; 4]) = (b"SOAK", b"KAOS");
/// Most bytes before a request that are sent back.
const BEFORE_MAX: usize = 512;
/// Bytes of an answer ahead of those that came before the request: the server's number (2), how many those are (2), the
/// request's number (8).
const ANSWER: usize = 12;

/// Behind everybody else who wants a CPU: what the soak loads is to be looked at, not starved.
fn step_back() -> anyhow::Result<()> {
    rustix::process::nice(10).map(drop).context("asking for less priority")
}

/// The request of a number.
fn request(number: u64) -> [u8; REQUEST] {
    let mut request = [b'.'; REQUEST];
    request[..4].copy_from_slice(MARKS.0);
    request[4..12].copy_from_slice(&number.to_be_bytes());
    request[REQUEST - 4..].copy_from_slice(MARKS.1);
    request
}

/// The request at the end of what was read, and what came before it; none if it is not whole.
fn split(read: &[u8]) -> Option<(&[u8], u64)> {
    let (before, request) = read.split_at_checked(read.len().checked_sub(REQUEST)?)?;
    let number = u64::from_be_bytes(request[4..12].try_into().ok()?);
    (request == self::request(number)).then_some((before, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_found_at_the_end_only() {
        let bytes = [b"header".as_slice(), &request(7)].concat();
        assert_eq!(split(&bytes), Some((b"header".as_slice(), 7)));
        assert_eq!(split(&request(8)), Some((b"".as_slice(), 8)));
        for cut in 0..bytes.len() {
            assert_eq!(split(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(split(&[&request(7)[..], b"."].concat()), None);
    }
}

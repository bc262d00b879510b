//! Whether a stream begins with one header, the right one, and has no other.

use std::{error, fmt, io};

use picop_common::header::{Detected, SIGNATURE, detect};
use testbed::Verdict;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(Verdict);

impl Violation {
    pub fn verdict(self) -> Verdict {
        self.0
    }

    /// The violation that an error stands for.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl error::Error for Violation {}

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        Self::new(io::ErrorKind::InvalidData, violation)
    }
}

/// Looks at a client's stream as it comes.
pub struct Inspector {
    expected: Vec<(String, String)>,
    /// What has come until the header was whole: the header, and then what came with its end.
    head: Vec<u8>,
    /// Bytes of `head` that are dealt with; 0 until the header is whole.
    given: usize,
    /// The last bytes of the payload, in which another header may have begun.
    tail: Vec<u8>,
}

impl Inspector {
    /// Expects just these entries, in this order.
    pub fn new(expected: &[(String, String)]) -> Self {
        Self { expected: expected.to_vec(), head: Vec::new(), given: 0, tail: Vec::new() }
    }

    pub fn has_header(&self) -> bool {
        self.given > 0
    }

    /// Takes in the next bytes of a stream whose header is not whole yet; none are its end.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if bytes.is_empty() {
            return Err(Violation(if self.head.is_empty() { Verdict::Silent } else { Verdict::HalfHeader }));
        }
        self.head.extend_from_slice(bytes);
        let header = match detect(&self.head) {
            Detected::Partial { .. } => return Ok(()),
            Detected::Other(_) => return Err(Violation(Verdict::NoHeader)),
            Detected::Header(header) => header,
        };
        let expected = self.expected.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        if !header.fields().map(|field| (field.key, field.value)).eq(expected) {
            return Err(Violation(Verdict::WrongHeader));
        }
        self.given = header.wire_len();
        let rest = self.head[self.given..].to_vec();
        self.look(&rest)
    }

    /// Gives payload that came together with the header.
    pub fn early(&mut self, buf: &mut [u8]) -> usize {
        let rest = &self.head[self.given..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        count
    }

    /// Looks for another header in the next bytes of the payload.
    pub fn look(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let keep = SIGNATURE.len() - 1;
        self.tail.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        if has_signature(&self.tail) || has_signature(bytes) {
            return Err(Violation(Verdict::SecondHeader));
        }
        if bytes.len() >= keep {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            let excess = self.tail.len().saturating_sub(keep);
            self.tail.drain(..excess);
        }
        Ok(())
    }
}

/// By its NUL, which few payloads have many of: a plain search costs more than all the rest of this program.
fn has_signature(bytes: &[u8]) -> bool {
    let nul = SIGNATURE.iter().position(|byte| *byte == 0).unwrap_or(0);
    let mut nuls = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
    nuls.any(|at| at >= nul && bytes[at - nul..].starts_with(&SIGNATURE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Vec<(String, String)> {
        vec![("Env-Id".to_owned(), "pr-1".to_owned())]
    }

    fn header(entries: &[(&str, &str)]) -> Vec<u8> {
        let entries: Vec<_> = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        crate::payload::header(&entries).expect("a short header")
    }

    /// What a server gets of a stream that comes in these pieces and then ends.
    fn inspect<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, Verdict> {
        let mut inspector = Inspector::new(&expected());
        let mut got = Vec::new();
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            if inspector.has_header() {
                inspector.look(piece).map_err(Violation::verdict)?;
                got.extend_from_slice(piece);
            } else {
                inspector.take(piece).map_err(Violation::verdict)?;
                let mut buf = [0; 64];
                let count = if inspector.has_header() { inspector.early(&mut buf) } else { 0 };
                got.extend_from_slice(&buf[..count]);
            }
        }
        if !inspector.has_header() {
            inspector.take(b"").map_err(Violation::verdict)?;
        }
        Ok(got)
    }

    #[test]
    fn streams_are_judged_the_same_at_any_cut() {
        let (right, other) = (header(&[("Env-Id", "pr-1")]), header(&[("Env-Id", "pr-2")]));
        let more = header(&[("Env-Id", "pr-1"), ("Traceparent", "00")]);
        let cases = [
            (right.clone(), Ok(&b""[..])),
            ([&right[..], b"hello"].concat(), Ok(&b"hello"[..])),
            (b"hello".to_vec(), Err(Verdict::NoHeader)),
            (right[..right.len() - 1].to_vec(), Err(Verdict::HalfHeader)),
            ([&other[..], b"hello"].concat(), Err(Verdict::WrongHeader)),
            (more, Err(Verdict::WrongHeader)),
            ([&right[..], &right, b"hello"].concat(), Err(Verdict::SecondHeader)),
            ([&right[..], b"hello", &right].concat(), Err(Verdict::SecondHeader)),
            ([&right[..], b"hello, world, hello", &other, b"x"].concat(), Err(Verdict::SecondHeader)),
        ];
        for (stream, wanted) in cases {
            let wanted = wanted.map(<[u8]>::to_vec);
            for cut in 0..=stream.len() {
                let (first, second) = stream.split_at(cut);
                assert_eq!(inspect([first, second]), wanted, "{} cut at {cut}", stream.escape_ascii());
            }
            assert_eq!(inspect(stream.chunks(1)), wanted, "{} byte by byte", stream.escape_ascii());
        }
        assert_eq!(inspect([]), Err(Verdict::Silent));
    }
}

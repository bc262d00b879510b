//! The beginnings of a capture's TCP streams, put together.

use std::{collections::HashMap, net::SocketAddr};

use picop_common::header::{MAX_LEN, SIGNATURE};

use super::frame::{Link, Segment, segment};

/// One direction of a connection.
#[derive(Debug)]
pub struct Stream {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The number of its first byte. Without the SYN in the capture, what begins with a signature is taken for the beginning.
    start: u32,
    saw_syn: bool,
    /// Its first bytes; those that have not come are none.
    bytes: Vec<Option<u8>>,
}

impl Stream {
    fn new(segment: &Segment<'_>) -> Self {
        Self {
            from: segment.from,
            to: segment.to,
            start: first_byte(segment),
            saw_syn: segment.syn,
            bytes: Vec::new(),
        }
    }

    /// The bytes from the beginning up to the first that is missing.
    pub fn beginning(&self) -> Vec<u8> {
        self.bytes.iter().map_while(|byte| *byte).collect()
    }

    fn add(&mut self, segment: &Segment<'_>) {
        let offset = usize::try_from(first_byte(segment).wrapping_sub(self.start)).unwrap_or(usize::MAX);
        for (at, byte) in segment.payload.iter().enumerate() {
            let Some(at) = offset.checked_add(at).filter(|at| *at < MAX_LEN) else { return };
            if self.bytes.len() <= at {
                self.bytes.resize(at + 1, None);
            }
            // What came first counts; a retransmission says the same.
            self.bytes[at].get_or_insert(*byte);
        }
    }
}

fn first_byte(segment: &Segment<'_>) -> u32 {
    segment.sequence.wrapping_add(u32::from(segment.syn))
}

/// All of them, in the order in which they began.
#[derive(Debug, Default)]
pub struct Streams {
    all: Vec<Stream>,
    /// The last one between two addresses.
    latest: HashMap<(SocketAddr, SocketAddr), usize>,
    /// TCP segments seen.
    pub segments: u64,
    /// Packets that were something else.
    pub others: u64,
}

impl Streams {
    /// The next packet of the capture.
    pub fn packet(&mut self, link: Link, frame: &[u8]) {
        let Some(segment) = segment(link, frame) else {
            self.others += 1;
            return;
        };
        self.segments += 1;
        let ends = (segment.from, segment.to);
        let latest = self.latest.get(&ends).copied();
        let begins_another = |stream: &Stream| {
            let is_new_syn = segment.syn && (!stream.saw_syn || stream.start != first_byte(&segment));
            is_new_syn || (!stream.saw_syn && segment.payload.starts_with(&SIGNATURE))
        };
        match latest {
            Some(at) if !begins_another(&self.all[at]) => self.all[at].add(&segment),
            _ => {
                let mut stream = Stream::new(&segment);
                stream.add(&segment);
                self.latest.insert(ends, self.all.len());
                self.all.push(stream);
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.all.iter()
    }
}

//! Classic captures (<https://ietf-opsawg-wg.github.io/draft-ietf-opsawg-pcap/draft-ietf-opsawg-pcap.html>).

use super::{DecodeError, frame::Link};

/// Magic numbers, of microseconds and of nanoseconds, as bytes of a file in the order of a big machine.
const MAGICS: [[u8; 4]; 2] = [[0xa1, 0xb2, 0xc3, 0xd4], [0xa1, 0xb2, 0x3c, 0x4d]];
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;

/// The order of bytes of the machine that wrote a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Big,
    Little,
}

impl Order {
    pub fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(if self == Self::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    pub fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self == Self::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A length, which is to be no larger than the file.
    pub fn len(self, bytes: &[u8], at: usize) -> Option<usize> {
        self.u32(bytes, at).and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= bytes.len())
    }
}

fn order(content: &[u8]) -> Option<Order> {
    let mut magic: [u8; 4] = content.get(..4)?.try_into().ok()?;
    if MAGICS.contains(&magic) {
        return Some(Order::Big);
    }
    magic.reverse();
    MAGICS.contains(&magic).then_some(Order::Little)
}

/// Whether this is one.
pub fn is(content: &[u8]) -> bool {
    order(content).is_some()
}

/// Hands over each packet. One that is cut off at the end (the capture was stopped) is left out.
pub fn read(content: &[u8], mut packet: impl FnMut(Link, &[u8])) -> Result<(), DecodeError> {
    let damaged = |what| DecodeError::Damaged { at: 0, what };
    let order = order(content).ok_or_else(|| damaged("no magic number"))?;
    let link = order.u32(content, 20).ok_or_else(|| damaged("it ends within its header"))?;
    // The upper bits say how long checksums of frames are.
    let link = Link::new(link & 0x0fff_ffff)?;
    let mut at = FILE_HEADER;
    while at < content.len() {
        let Some(len) = order.u32(content, at + 8) else { break };
        let from = at + PACKET_HEADER;
        let Some(to) = usize::try_from(len).ok().and_then(|len| from.checked_add(len)) else {
            return Err(DecodeError::Damaged { at, what: "a packet of an impossible length" });
        };
        let Some(bytes) = content.get(from..to) else { break };
        packet(link, bytes);
        at = to;
    }
    Ok(())
}

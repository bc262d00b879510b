//! Captured frames, down to the TCP segments in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::DecodeError;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The family of addresses, in some byte order: BSD's loopback.
    Null,
    Ethernet,
    /// IP at once.
    Raw,
    /// Linux's `any` interface.
    Cooked,
    /// The same, newer.
    Cooked2,
}

impl Link {
    /// By the number that captures have for it.
    pub fn new(number: u32) -> Result<Self, DecodeError> {
        Ok(match number {
            0 | 108 => Self::Null,
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::Raw,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            other => return Err(DecodeError::LinkType(other)),
        })
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The number of its first byte, or of its SYN.
    pub sequence: u32,
    pub syn: bool,
    pub payload: &'a [u8],
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The segment in a frame; none if it is something else, or a fragment.
pub fn segment(link: Link, frame: &[u8]) -> Option<Segment<'_>> {
    let packet = match link {
        Link::Raw => frame,
        Link::Null => frame.get(4..)?,
        Link::Ethernet => tagged(frame, 12)?,
        Link::Cooked => tagged(frame, 14)?,
        Link::Cooked2 => {
            is_ip(u16_at(frame, 0)?).then_some(())?;
            frame.get(20..)?
        }
    };
    match packet.first()? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => None,
    }
}

fn is_ip(protocol: u16) -> bool {
    matches!(protocol, IPV4 | IPV6)
}

/// What follows the protocol's number at `at`, and the tags of VLANs before it.
fn tagged(frame: &[u8], mut at: usize) -> Option<&[u8]> {
    while matches!(u16_at(frame, at)?, 0x8100 | 0x88a8 | 0x9100) {
        at += 4;
    }
    is_ip(u16_at(frame, at)?).then(|| frame.get(at + 2..))?
}

fn ipv4(packet: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    let is_fragment = u16_at(packet, 6)? & 0x3fff != 0;
    if packet.get(9) != Some(&TCP) || is_fragment || header < 20 {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    // Short frames are padded; and a length of 0 stands for a large one that a network card is to cut.
    let end = if total == 0 { packet.len() } else { total.min(packet.len()) };
    tcp(address(12)?, address(16)?, packet.get(header..end)?)
}

fn ipv6(packet: &[u8]) -> Option<Segment<'_>> {
    let payload = usize::from(u16_at(packet, 4)?);
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let (mut next, mut at) = (*packet.get(6)?, 40);
    // Hop-by-hop, routing, destination options.
    while matches!(next, 0 | 43 | 60) {
        next = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    let end = if payload == 0 { packet.len() } else { packet.len().min(40 + payload) };
    (next == TCP).then(|| tcp(address(8)?, address(24)?, packet.get(at..end)?))?
}

fn tcp(from: IpAddr, to: IpAddr, segment: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let sequence = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    Some(Segment {
        from: SocketAddr::new(from, u16_at(segment, 0)?),
        to: SocketAddr::new(to, u16_at(segment, 2)?),
        sequence,
        syn: segment.get(13)? & 2 != 0,
        payload: segment.get(header.max(20)..)?,
    })
}

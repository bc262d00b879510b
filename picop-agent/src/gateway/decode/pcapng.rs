//! Captures of the next generation (<https://ietf-opsawg-wg.github.io/draft-ietf-opsawg-pcap/draft-ietf-opsawg-pcapng.html>),
//! which Wireshark writes.

use super::{DecodeError, frame::Link, pcap::Order};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// In a section's header; its order is the order of all that follows.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Type and length before a block's body, and the length again behind it.
const AROUND: usize = 12;

/// Whether this is one.
pub fn is(content: &[u8]) -> bool {
    content.starts_with(&SECTION.to_be_bytes())
}

/// Hands over each packet. A block that is cut off at the end is left out, and so are blocks of other types.
pub fn read(content: &[u8], mut packet: impl FnMut(Link, &[u8])) -> Result<(), DecodeError> {
    let (mut at, mut order, mut links) = (0, Order::Little, Vec::new());
    while at + AROUND <= content.len() {
        let damaged = |what| DecodeError::Damaged { at, what };
        let is_section = content[at..].starts_with(&SECTION.to_be_bytes());
        if is_section {
            order = section_order(&content[at..]).ok_or_else(|| damaged("a section without a byte order"))?;
            links.clear();
        }
        let kind = order.u32(content, at).ok_or_else(|| damaged("no type of a block"))?;
        let len = order.u32(content, at + 4).and_then(|len| usize::try_from(len).ok());
        let len =
            len.filter(|len| *len >= AROUND && len % 4 == 0).ok_or_else(|| damaged("a block's length"))?;
        let Some(block) = content.get(at..at.saturating_add(len)) else { break };
        let body = &block[8..len - 4];
        match kind {
            INTERFACE => {
                let link = order.u16(body, 0).ok_or_else(|| damaged("an interface without a link type"))?;
                links.push(u32::from(link));
            }
            ENHANCED_PACKET => {
                let interface = order.u32(body, 0).and_then(|number| usize::try_from(number).ok());
                let link = interface.and_then(|number| links.get(number));
                let link = *link.ok_or_else(|| damaged("a packet of an interface that is not described"))?;
                let bytes = order.len(body, 12).and_then(|len| body.get(20..20 + len));
                packet(Link::new(link)?, bytes.ok_or_else(|| damaged("a packet longer than its block"))?);
            }
            SIMPLE_PACKET => {
                let link = *links.first().ok_or_else(|| damaged("a packet of no interface"))?;
                // Its own length is the original one, which may be more than was captured.
                let original =
                    order.u32(body, 0).and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
                packet(
                    Link::new(link)?,
                    &body[4.min(body.len())..body.len().min(4_usize.saturating_add(original))],
                );
            }
            _ => {}
        }
        at += len;
    }
    Ok(())
}

fn section_order(section: &[u8]) -> Option<Order> {
    [Order::Big, Order::Little].into_iter().find(|order| order.u32(section, 8) == Some(BYTE_ORDER))
}

//! Where the running kernel keeps what: a reader of BTF, the kernel's description of its own types.
//!
//! Only as much of it as tells where a member of a struct is. (aya-obj reads all of it, and shows neither members nor
//! their offsets.) The format: `Documentation/bpf/btf.rst` in the kernel's sources.

use std::{fs, io};

use picop_common::fastopen::FastOpenLayout;

/// The kernel's own.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Depth to which nameless structs inside each other are looked into.
const DEPTH_MAX: u32 = 8;

/// What is wrong with a description.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel has none to read.
    #[error("cannot read the kernel's type information in {VMLINUX}")]
    Read(#[source] io::Error),
    /// It cannot be understood.
    #[error("the kernel's type information is of a form that this build does not know")]
    Malformed,
    /// A member is not where it was in all kernels so far.
    #[error("this kernel's struct {structure} has no {member}")]
    NoMember {
        /// The struct.
        structure: &'static str,
        /// The member.
        member: &'static str,
    },
}

/// Where the running kernel keeps that a socket is about to use TCP Fast Open.
pub fn fast_open() -> Result<FastOpenLayout, BtfError> {
    fast_open_in(&fs::read(VMLINUX).map_err(BtfError::Read)?)
}

/// Where the running kernel keeps what tells whether a message may be redirected.
pub fn graft() -> Result<GraftLayout, BtfError> {
    graft_in(&fs::read(VMLINUX).map_err(BtfError::Read)?)
}

/// Where the running kernel keeps a socket's cookie, in bytes: `skc_cookie` of the `sock_common` that every socket begins
/// with.
pub fn cookie() -> Result<u32, BtfError> {
    cookie_in(&fs::read(VMLINUX).map_err(BtfError::Read)?)
}

fn cookie_in(bytes: &[u8]) -> Result<u32, BtfError> {
    word_of(&Btf::parse(bytes).ok_or(BtfError::Malformed)?, "sock_common", "skc_cookie", 64)
}

/// The place of a member that is a whole word, and not the first: anything else is not what the programs read.
fn word_of(btf: &Btf<'_>, structure: &'static str, member: &'static str, bits: u32) -> Result<u32, BtfError> {
    let found = btf.member(structure, member).ok_or(BtfError::NoMember { structure, member })?;
    let as_read = found.bit != 0 && found.bit.is_multiple_of(bits) && found.bits == 0;
    as_read.then_some(found.bit / 8).ok_or(BtfError::Malformed)
}

/// Places of members in bytes; 0 where unknown (neither is its struct's first).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraftLayout {
    /// `write_seq` of `tcp_sock`.
    pub write_seq: u32,
    /// `icsk_ulp_ops` of the `inet_connection_sock` that `tcp_sock` begins with.
    pub ulp_ops: u32,
}

fn graft_in(bytes: &[u8]) -> Result<GraftLayout, BtfError> {
    let btf = Btf::parse(bytes).ok_or(BtfError::Malformed)?;
    let find = |structure, member, bits| word_of(&btf, structure, member, bits);
    Ok(GraftLayout {
        write_seq: find("tcp_sock", "write_seq", 32)?,
        ulp_ops: find("inet_connection_sock", "icsk_ulp_ops", 64)?,
    })
}

fn fast_open_in(bytes: &[u8]) -> Result<FastOpenLayout, BtfError> {
    const STRUCTURE: &str = "tcp_sock";
    let btf = Btf::parse(bytes).ok_or(BtfError::Malformed)?;
    let find =
        |member| btf.member(STRUCTURE, member).ok_or(BtfError::NoMember { structure: STRUCTURE, member });
    let (request, connect) = (find("fastopen_req")?, find("fastopen_connect")?);
    let layout = FastOpenLayout {
        request: request.bit / 8,
        connect: connect.bit / 8,
        // Little-endian machines number a byte's bits from its low end.
        connect_mask: 1 << (connect.bit % 8),
    };
    // A pointer in a whole word, and one bit: anything else is not what the programs read.
    let as_read = request.bit % 64 == 0 && request.bits == 0 && connect.bits == 1 && layout.is_known();
    as_read.then_some(layout).ok_or(BtfError::Malformed)
}

/// A member's place in its struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    /// Offset, in bits.
    bit: u32,
    /// Size in bits of a bit field; 0 for a member that is none.
    bits: u32,
}

/// A parsed description: where each type begins, and the names.
struct Btf<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    info: u32,
    /// What follows the three common words.
    rest: &'a [u8],
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn has_members(&self) -> bool {
        matches!(self.kind(), KIND_STRUCT | KIND_UNION)
    }

    /// Whether offsets of members hold the size of a bit field as well.
    fn has_bit_fields(&self) -> bool {
        self.info >> 31 != 0
    }
}

impl<'a> Btf<'a> {
    /// None if it is not BTF of this machine's byte order, or has a kind of type whose length is not known.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let header = word(bytes, 4)?;
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = header.checked_add(word(bytes, at)?)? as usize;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let (mut rest, strings) = (section(8)?, section(16)?);
        // Type 0 is void, and is not written.
        let mut types = vec![Type { name: 0, info: 0, rest: &[] }];
        while !rest.is_empty() {
            let (name, info) = (word(rest, 0)?, word(rest, 4)?);
            let (count, kind) = (info & 0xffff, info >> 24 & 0x1f);
            let own = 12_usize.checked_add(length(kind, count)?)?;
            types.push(Type { name, info, rest: rest.get(12..own)? });
            rest = rest.get(own..)?;
        }
        Some(Self { types, strings })
    }

    /// The place of a member of the first struct of that name which has it.
    fn member(&self, structure: &str, member: &str) -> Option<Member> {
        let mut named = self
            .types
            .iter()
            .filter(|t| t.kind() == KIND_STRUCT && self.name(t.name) == Some(structure.as_bytes()));
        named.find_map(|t| self.find(t, member.as_bytes(), DEPTH_MAX))
    }

    fn find(&self, of: &Type<'_>, wanted: &[u8], depth: u32) -> Option<Member> {
        of.rest.chunks_exact(12).find_map(|entry| {
            let (name, kind, place) = (word(entry, 0)?, word(entry, 4)?, word(entry, 8)?);
            let at = if of.has_bit_fields() {
                Member { bit: place & 0x00ff_ffff, bits: place >> 24 }
            } else {
                Member { bit: place, bits: 0 }
            };
            if name != 0 {
                return (self.name(name)? == wanted).then_some(at);
            }
            // Members of a nameless struct or union are members of the one around it.
            let inner = self.types.get(kind as usize).filter(|t| depth > 0 && t.has_members())?;
            let found = self.find(inner, wanted, depth - 1)?;
            Some(Member { bit: found.bit.checked_add(at.bit)?, ..found })
        })
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        self.strings.get(offset as usize..)?.split(|byte| *byte == 0).next()
    }
}

/// Bytes of a type behind its three common words, by kind and number of entries.
fn length(kind: u32, count: u32) -> Option<usize> {
    let count = count as usize;
    Some(match kind {
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Enumerations, parameters.
        6 | 13 => count * 8,
        // Structs and unions, sections, enumerations of 64 bits.
        KIND_STRUCT | KIND_UNION | 15 | 19 => count * 12,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;

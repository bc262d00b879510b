//! The kernel's copy of the route table: one hash map per version, replaced whole.
//!
//! | key | value |
//! | --- | --- |
//! | ([`BASE`], service address, 0) | the service: its flags, how many base endpoints, the heaviest of them |
//! | ([`BASE`], service address, n) | its base endpoint n |
//! | (environment, service address, 0) | its variant there: how many endpoints, the heaviest of them |
//! | (environment, service address, n) | the variant's endpoint n |
//! | ([`REVERSE`], endpoint, 0) | the address of the one service whose base this endpoint is |
//!
//! A connection takes all its entries out of one map, so it sees one version.
//!
//! # Weights
//!
//! An endpoint has one entry, whatever its weight: a table of repeated slots would take a hundred for a canary of one
//! percent. Slot 0 has the heaviest endpoint, and says what share of the connections it takes. The other connections draw
//! one of the other slots evenly; that slot says what share of them it keeps, and which slot gets those it does not (the
//! alias method: Vose, <https://doi.org/10.1109/32.92917>). So a connection looks at one entry besides slot 0, at two if
//! that one passes it on, and leaving out the heaviest endpoint leaves the shares of the others among each other as they
//! are.
//!
//! # Clients that stay
//!
//! A group [by client](ROUTE_BY_CLIENT) has more slots than endpoints, and nothing is drawn: which slot is a client's follows
//! from its id, and which endpoint a slot has is settled where the table is made.

use crate::addr::Endpoint;

/// Environment of a service's own entries.
pub const BASE: u64 = 0;
/// Environment of entries that lead from a base endpoint to its service.
pub const REVERSE: u64 = u64::MAX;

/// Key of a [`Route`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RouteKey {
    /// [`environment_key`], [`BASE`] or [`REVERSE`].
    pub environment: u64,
    /// The service's address.
    pub address: Endpoint,
    /// Which endpoint.
    pub slot: u32,
}

impl RouteKey {
    /// Puts one together.
    pub const fn new(environment: u64, address: Endpoint, slot: u32) -> Self {
        Self { environment, address, slot }
    }
}

/// A service, a variant or an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Route {
    /// The endpoint; of slot 0 the heaviest, if there is any.
    pub endpoint: Endpoint,
    /// Of slot 0: how many endpoints there are.
    pub count: u16,
    /// Of a service: bits `ROUTE_*`.
    pub flags: u16,
    /// Of slot 0: how many of 2^32 connections are for its endpoint, where there are others. Of the others: how many of
    /// 2^32 that drew this slot are for its endpoint; the rest goes to `alias`.
    pub share: u32,
    /// Of the slots after 0: the slot, also after 0, that gets the rest. A slot with no rest has its own number. In a group
    /// [by client](ROUTE_BY_CLIENT), of all slots: the one whose endpoint this slot's clients try next.
    pub alias: u16,
    /// Always zero.
    pub pad: u16,
}

/// [`Route::flags`]: servers are sent the header.
pub const ROUTE_PROPAGATE: u16 = 1;
/// [`Route::flags`]: a variant with no endpoint is refused, not replaced by the base.
pub const ROUTE_REFUSE: u16 = 2;
/// [`Route::flags`]: the server speaks first, so a header cannot wait for the client's first bytes.
pub const ROUTE_SERVER_FIRST: u16 = 4;
/// [`Route::flags`]: the base is the address itself.
pub const ROUTE_ITSELF: u16 = 8;
/// [`Route::flags`]: have the kernel write the header even if that is not proven: this is the proof.
pub const ROUTE_PROOF: u16 = 16;
/// [`Route::flags`]: graft relayed connections, whether or not an application can tell.
pub const ROUTE_GRAFT_ALWAYS: u16 = 32;
/// [`Route::flags`]: never graft.
pub const ROUTE_GRAFT_NEVER: u16 = 64;
/// [`Route::flags`]: a connection whose variant has no endpoint waits at the agent until it has one.
pub const ROUTE_WAIT: u16 = 128;

/// [`Route::flags`], of the first slot of any group: a client belongs to one slot ([`client_slot`]), and that slot's endpoint is
/// its. Several slots have the same one.
pub const ROUTE_BY_CLIENT: u16 = 256;

const _: () = assert!(size_of::<RouteKey>() == 32);
const _: () = assert!(size_of::<Route>() == 32);

/// An environment's name as a key: FNV-1a, 64 bits. The same in every build, so that a restarted agent finds its
/// predecessor's tables true. Whoever builds a table refuses two names with one key ([`BASE`] and [`REVERSE`] included).
pub fn environment_key(name: &[u8]) -> u64 {
    fnv1a(name)
}

/// A short form of an [`environment_key`], for counting by it: 0 for none. Of a thousand environments two have the same one in
/// one of ten thousand cases, and are counted as one of them.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a BPF call is dearer")]
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub const fn environment_tag(key: u64) -> u32 {
    match (key, key as u32) {
        (BASE, _) => 0,
        (_, 0) => 1,
        (_, low) => low,
    }
}

/// Which of `slots` a client belongs to: the same wherever it is asked for, and even over clients.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a BPF call is dearer")]
pub const fn client_slot(client: u64, slots: u32) -> u32 {
    // Ids of cgroups are near each other; `SplitMix64`'s last steps part them.
    let mut mixed = client.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (((mixed >> 32) * slots as u64) >> 32) as u32
}

/// Key of a header in the map of headers: 48 bits of its hash, and its length ([`header_len`]), so that who wants to know no
/// more than that need not look it up. Never 0, which means no header.
///
/// # Panics
///
/// If there are 65,536 bytes or more: nothing that the codec makes.
pub fn header_key(wire: &[u8]) -> u64 {
    fnv1a(wire) << 16 | u64::from(u16::try_from(wire.len()).expect("no header is as long"))
}

/// How many bytes the header of that key has; 0 for none.
pub const fn header_len(key: u64) -> u64 {
    key & 0xffff
}

/// FNV-1a, 64 bits: <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_published_vectors() {
        assert_eq!(environment_key(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(environment_key(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(environment_key(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_headers_key_has_its_length() {
        for wire in [&b"a"[..], b"ab", &[7; crate::header::MAX_LEN]] {
            assert_eq!(header_len(header_key(wire)), wire.len() as u64);
        }
        assert_ne!(header_key(b"ab"), header_key(b"ba"));
        assert_eq!(header_len(0), 0);
    }

    #[test]
    fn only_no_environment_has_no_tag() {
        assert_eq!(environment_tag(BASE), 0);
        assert_eq!(environment_tag(environment_key(b"a")), 0x8601_ec8c);
        assert_eq!(environment_tag(7 << 32), 1);
    }
}

//! Addresses as the kernel's hooks see them: words and ports in network byte order.
//!
//! IPv4 is kept as its v4-mapped form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2). A dual-stack socket's connect to a
//! v4-mapped address arrives at `connect6`, a plain one's at `connect4`: with one representation both are the same key.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP port in network byte order. [`PortBe::NONE`] (0) is "no port": nothing listens on 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PortBe(u16);

impl PortBe {
    /// No port.
    pub const NONE: Self = Self(0);

    /// From a port in host byte order.
    pub const fn from_host(port: u16) -> Self {
        Self(port.to_be())
    }

    /// From `bpf_sock_addr.user_port`, which holds the 16 network-order bits in a 32-bit word.
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is zero by the hook's contract")]
    pub const fn from_user_port(user_port: u32) -> Self {
        Self(user_port as u16)
    }

    /// As `bpf_sock_addr.user_port` wants it.
    pub const fn to_user_port(self) -> u32 {
        self.0 as u32
    }

    /// In host byte order.
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// Whether there is a port at all.
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// An IP address: four words as `bpf_sock_addr.user_ip6` holds them (network byte order), IPv4 as v4-mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ip([u32; 4]);

/// The third word of every v4-mapped address.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Ip {
    /// From `bpf_sock_addr.user_ip4` (network byte order).
    pub const fn from_v4_be(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From `bpf_sock_addr.user_ip6` (network byte order).
    pub const fn from_v6_be(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The words, for `user_ip6`.
    pub const fn words_be(self) -> [u32; 4] {
        self.0
    }

    /// The IPv4 word (network byte order), for `user_ip4`; meaningful if [`Self::is_v4`].
    pub const fn v4_be(self) -> u32 {
        self.0[3]
    }

    /// Whether this is an IPv4 (v4-mapped) address.
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// `127.0.0.1`.
    pub const LOOPBACK_V4: Self = Self::from_v4_be(0x7f00_0001_u32.to_be());
    /// `::1`.
    pub const LOOPBACK_V6: Self = Self([0, 0, 0, 1_u32.to_be()]);
}

impl From<IpAddr> for Ip {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        if ip.is_v4() {
            return Self::V4(Ipv4Addr::from(u32::from_be(ip.v4_be())));
        }
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(ip.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::V6(Ipv6Addr::from(octets))
    }
}

/// An address and a port: where a connection goes, or comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Endpoint {
    /// The address.
    pub ip: Ip,
    /// The port.
    pub port: PortBe,
    /// Always zero: the struct is a map key, compared byte by byte.
    pub pad: u16,
}

impl Endpoint {
    /// No endpoint: its port is [`PortBe::NONE`].
    pub const NONE: Self = Self::new(Ip([0; 4]), PortBe::NONE);

    /// Puts an address and a port together.
    pub const fn new(ip: Ip, port: PortBe) -> Self {
        Self { ip, port, pad: 0 }
    }

    /// Whether there is an endpoint at all.
    pub const fn is_some(&self) -> bool {
        self.port.is_some()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip().into(), PortBe::from_host(addr.port()))
    }
}

impl From<Endpoint> for SocketAddr {
    /// v4-mapped addresses come out as IPv4.
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.ip.into(), endpoint.port.to_host())
    }
}

const _: () = assert!(size_of::<Endpoint>() == 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_and_v4_mapped_are_one_key() {
        let plain: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(Endpoint::from(plain), Endpoint::from(mapped));
        assert_eq!(SocketAddr::from(Endpoint::from(mapped)), plain);
        assert!(Endpoint::from(plain).ip.is_v4());
    }

    #[test]
    fn words_and_ports_are_in_network_order() {
        let e = Endpoint::from("[fd00:10::1]:443".parse::<SocketAddr>().unwrap());
        assert_eq!(e.ip.words_be()[0].to_ne_bytes(), [0xfd, 0x00, 0x00, 0x10]);
        assert_eq!(e.ip.words_be()[3].to_ne_bytes(), [0, 0, 0, 1]);
        assert_eq!(e.port.to_user_port().to_ne_bytes()[..2], [0x01, 0xbb]);
        assert!(!e.ip.is_v4());
        assert_eq!(SocketAddr::from(e).to_string(), "[fd00:10::1]:443");
        let v4 = Endpoint::from("127.0.0.1:1".parse::<SocketAddr>().unwrap());
        assert_eq!(v4.ip, Ip::LOOPBACK_V4);
        assert_eq!(v4.ip.v4_be().to_ne_bytes(), [127, 0, 0, 1]);
        assert_eq!(IpAddr::from(Ip::LOOPBACK_V6).to_string(), "::1");
    }

    #[test]
    fn user_port_round_trips() {
        for port in [1_u16, 80, 443, 32768, 65535] {
            let be = PortBe::from_host(port);
            assert_eq!(PortBe::from_user_port(be.to_user_port()), be);
            assert_eq!(be.to_host(), port);
        }
        assert!(!PortBe::NONE.is_some());
    }
}

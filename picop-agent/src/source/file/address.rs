//! `IP:port`, and what people write instead.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::problem::AddressError;

/// Reads an address that one host can have, v4-mapped ones as IPv4.
pub fn parse(text: &str) -> Result<SocketAddr, AddressError> {
    let address: SocketAddr = text.parse().map_err(|_| reason(text))?;
    if text.contains('%') {
        return Err(AddressError::Zone);
    }
    if address.port() == 0 {
        return Err(AddressError::Port);
    }
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    if is_host(address) { Ok(address) } else { Err(AddressError::NotAHost) }
}

/// Whether one host can have the address, and listen there.
pub fn is_host(address: SocketAddr) -> bool {
    let ip = address.ip();
    let none = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    !none && address.port() != 0
}

/// What is wrong with a text that is no socket address.
fn reason(text: &str) -> AddressError {
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if bare(text) {
        return AddressError::NoPort;
    }
    match text.rsplit_once(':') {
        Some((host, _)) if bare(host) => AddressError::Port,
        _ if text.contains('%') => AddressError::Zone,
        _ => AddressError::NotAnIp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("10.96.0.10:80", "10.96.0.10:80"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("[fd00::10]:80", "[fd00::10]:80"),
            ("[::ffff:10.96.0.10]:80", "10.96.0.10:80"),
        ] {
            assert_eq!(parse(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for (text, why) in [
            ("", AddressError::NotAnIp),
            ("cart:80", AddressError::NotAnIp),
            ("cart", AddressError::NotAnIp),
            ("10.96.0.256:80", AddressError::NotAnIp),
            ("10.96.0.10/24:80", AddressError::NotAnIp),
            (" 10.96.0.10:80", AddressError::NotAnIp),
            ("10.96.0.10", AddressError::NoPort),
            ("fd00::10", AddressError::NoPort),
            ("[fd00::10]", AddressError::NoPort),
            ("10.96.0.10:", AddressError::Port),
            ("10.96.0.10:0", AddressError::Port),
            ("10.96.0.10:65536", AddressError::Port),
            ("10.96.0.10:http", AddressError::Port),
            ("[fd00::10]:99999", AddressError::Port),
            ("[fe80::1%2]:80", AddressError::Zone),
            ("[fe80::1%eth0]:80", AddressError::Zone),
            ("0.0.0.0:80", AddressError::NotAHost),
            ("[::]:80", AddressError::NotAHost),
            ("[::ffff:0.0.0.0]:80", AddressError::NotAHost),
            ("224.0.0.1:80", AddressError::NotAHost),
            ("[ff02::1]:80", AddressError::NotAHost),
            ("255.255.255.255:80", AddressError::NotAHost),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}

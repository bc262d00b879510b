//! Listening at an address, or at all of them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// All addresses, of both families where there are two.
pub const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// An address to listen at, as people write it on a command line; `:8080` is that port everywhere.
///
/// # Errors
/// In words, when it is none.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok((EVERYWHERE, port).into());
    }
    text.parse().map_err(|_| {
        format!(
            "{text:?} is no address to listen at: write 127.0.0.1:8080, [::1]:8080, or :8080 for all of them"
        )
    })
}

/// Listens. [`EVERYWHERE`] is all addresses of IPv4 where Linux has no IPv6.
///
/// # Errors
/// When the address is not to be had.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == EVERYWHERE && lacks_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, wanted) in
            [("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80"), (":80", "[::]:80"), (":0", "[::]:0")]
        {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(wanted));
        }
        for bad in ["", ":", "8080", "localhost:80", "127.0.0.1", "::1:80x", ":65536"] {
            let error = address(bad).expect_err(bad);
            assert!(error.contains("127.0.0.1:8080"), "{error}");
        }
    }
}

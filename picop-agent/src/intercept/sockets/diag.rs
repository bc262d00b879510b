//! sock_diag(7): TCP sockets of the network namespace a netlink socket was made in, with their socket storage. Numbers are
//! those of linux/{netlink,sock_diag,inet_diag}.h.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{OwnedFd, RawFd},
};

use picop_common::maps::Flow;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const INET_DIAG_CGROUP_ID: u16 = 21;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
/// The two upper bits of an attribute's type are flags.
const NLA_TYPE: u16 = 0x3fff;
const NLA_NESTED: u16 = 0x8000;

/// `TCP_ESTABLISHED`.
pub const ESTABLISHED: u8 = 1;
/// `TCP_SYN_SENT`.
pub const SYN_SENT: u8 = 2;
/// States that a client's connection may be in, as bits: not LISTEN, not TIME_WAIT, which has no socket any more.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Bytes of `struct nlmsghdr`, `struct inet_diag_msg`.
const HEADER: usize = 16;
const MESSAGE: usize = 72;

/// IPv4 or IPv6 sockets. A dual-stack one is an IPv6 socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    V4 = 2,
    /// `AF_INET6`.
    V6 = 10,
}

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// TCP's state.
    pub state: u8,
    /// Its own address; v4-mapped ones as IPv4.
    pub local: SocketAddr,
    /// Its peer's.
    pub remote: SocketAddr,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// The cgroup of the process that made it.
    pub cgroup: u64,
    /// What the connect hook left with it.
    pub flow: Option<Flow>,
    /// Smoothed round-trip time.
    pub rtt_us: u32,
    /// Bytes acknowledged by its peer, without the SYN.
    pub bytes_acked: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

/// A netlink socket of the calling thread's network namespace.
pub fn open() -> io::Result<OwnedFd> {
    let protocol = Some(netlink::SOCK_DIAG);
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

/// Lists sockets, with their storage in the map `flows`.
pub fn dump(socket: &OwnedFd, family: Family, flows: RawFd, mut tell: impl FnMut(Found)) -> io::Result<()> {
    send(socket, &request(family, flows), SendFlags::empty())?;
    // A dump comes in datagrams of at most 32 kB.
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let (got, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        if !messages(&buffer[..got], &mut tell)? {
            return Ok(());
        }
    }
}

fn request(family: Family, flows: RawFd) -> Vec<u8> {
    let mut body = vec![family as u8, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
    body.extend(STATES.to_ne_bytes());
    body.resize(56, 0); // Any addresses.
    body.extend(12_u16.to_ne_bytes());
    body.extend((INET_DIAG_REQ_SK_BPF_STORAGES | NLA_NESTED).to_ne_bytes());
    body.extend(8_u16.to_ne_bytes());
    body.extend(SK_DIAG_BPF_STORAGE_REQ_MAP_FD.to_ne_bytes());
    body.extend(flows.to_ne_bytes());
    let length = u32::try_from(HEADER + body.len()).expect("a few bytes");
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// Reads a datagram. Whether more are to come.
fn messages(mut bytes: &[u8], tell: &mut impl FnMut(Found)) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { return Err(io::ErrorKind::InvalidData.into()) };
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let errno = word(body, 0).map_or(0, u32::cast_signed);
                return Err(io::Error::from_raw_os_error(-errno));
            }
            SOCK_DIAG_BY_FAMILY => {
                if let Some(found) = found(body) {
                    tell(found);
                }
            }
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(true)
}

fn found(body: &[u8]) -> Option<Found> {
    let v4 = *body.first()? == Family::V4 as u8;
    let mut found = Found {
        state: *body.get(1)?,
        local: address(body, v4, 4, 8)?,
        remote: address(body, v4, 6, 24)?,
        cookie: long(body, 44)?,
        cgroup: 0,
        flow: None,
        rtt_us: 0,
        bytes_acked: 0,
        bytes_received: 0,
    };
    for (kind, value) in attributes(body.get(MESSAGE..)?) {
        match kind {
            // `struct tcp_info`; its beginning is the same in every kernel.
            INET_DIAG_INFO => {
                found.rtt_us = word(value, 68).unwrap_or_default();
                found.bytes_acked = long(value, 120).unwrap_or_default().saturating_sub(1);
                found.bytes_received = long(value, 128).unwrap_or_default();
            }
            INET_DIAG_CGROUP_ID => found.cgroup = long(value, 0).unwrap_or_default(),
            INET_DIAG_SK_BPF_STORAGES => found.flow = flow(value),
            _ => {}
        }
    }
    Some(found)
}

/// The value of the one map that was asked for.
fn flow(storages: &[u8]) -> Option<Flow> {
    let (_, storage) = attributes(storages).find(|(kind, _)| *kind == SK_DIAG_BPF_STORAGE)?;
    let (_, value) = attributes(storage).find(|(kind, _)| *kind == SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    Flow::from_bytes(value)
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & NLA_TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn address(body: &[u8], v4: bool, port_at: usize, ip_at: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(body.get(port_at..port_at + 2)?.try_into().ok()?);
    let octets: [u8; 16] = body.get(ip_at..ip_at + 16)?.try_into().ok()?;
    let ip = if v4 {
        IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    };
    Some(SocketAddr::new(ip, port))
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Of this very process, without a map: an attribute less, and nothing else different.
    #[test]
    fn the_kernel_lists_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let mut plain = request(Family::V4, 0);
        plain.truncate(HEADER + 56);
        plain[..4].copy_from_slice(&u32::try_from(HEADER + 56).unwrap().to_ne_bytes());
        let socket = open().unwrap();
        send(&socket, &plain, SendFlags::empty()).unwrap();
        let (mut buffer, mut all) = (vec![0_u8; 64 * 1024], Vec::new());
        loop {
            let (got, _) = recv(&socket, &mut buffer[..], RecvFlags::empty()).unwrap();
            if !messages(&buffer[..got], &mut |found| all.push(found)).unwrap() {
                break;
            }
        }
        let found = all.iter().find(|found| found.local == local).expect("it is open");
        assert_eq!((found.remote, found.state, found.bytes_received), (remote, ESTABLISHED, 0));
        assert_eq!(found.flow, None);
    }

    #[test]
    fn nonsense_is_no_answer() {
        assert!(messages(&[255; 20], &mut |_| panic!("none")).is_err());
        assert!(messages(&[1, 2], &mut |_| panic!("none")).unwrap());
        let mut refused = 36_u32.to_ne_bytes().to_vec();
        refused.extend(NLMSG_ERROR.to_ne_bytes());
        refused.extend([0; 10]);
        refused.extend((-1_i32).to_ne_bytes());
        refused.extend([0; 16]);
        let error = messages(&refused, &mut |_| panic!("none")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
    }
}

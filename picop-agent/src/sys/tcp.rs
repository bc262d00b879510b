//! What TCP tells of a socket, and what it is told.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// A part of `struct tcp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// `TCP_*` of the kernel: 1 is ESTABLISHED, 7 CLOSE.
    pub state: u8,
    /// Bytes that the peer has acknowledged; the SYN of an active socket counts as one.
    pub bytes_acked: u64,
    /// Bytes received, in order.
    pub bytes_received: u64,
    /// The window that the peer offers.
    pub send_window: u32,
}

/// The places of these fields (and of what a listener has in `tcpi_unacked`) in `struct tcp_info` (uapi, so they never change).
const WAITING: usize = 24;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
const SEND_WINDOW: usize = 228;
const SIZE: usize = 232;

/// `TCP_INFO`.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let bytes = raw_info::<SIZE>(socket)?;
    let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    Ok(TcpInfo {
        state: bytes[0],
        bytes_acked: long(BYTES_ACKED),
        bytes_received: long(BYTES_RECEIVED),
        send_window: u32::from_ne_bytes(bytes[SEND_WINDOW..SIZE].try_into().expect("4 bytes")),
    })
}

/// `TCP_INFO` of a listener: how many connections wait there to be accepted. The kernel does not lock for that.
pub fn waiting(listener: BorrowedFd<'_>) -> io::Result<u32> {
    let bytes = raw_info::<{ WAITING + 4 }>(listener)?;
    Ok(u32::from_ne_bytes(bytes[WAITING..].try_into().expect("4 bytes")))
}

fn raw_info<const N: usize>(socket: BorrowedFd<'_>) -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    let mut len = libc::socklen_t::try_from(N).expect("fits");
    // SAFETY: the kernel writes at most `len` bytes to `bytes` and the length to `len`; both outlive the call.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if rc == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// `SIOCOUTQ`: bytes in the send queue that the peer has not acknowledged.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which outlives the call.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    u64::try_from(count).map_err(io::Error::other)
}

/// `SO_SNDBUFFORCE`: the send buffer, past `net.core.wmem_max` and not to be tuned by the kernel any more. In the kernel's
/// count, which is twice what the option is given.
pub fn set_send_buffer(socket: BorrowedFd<'_>, kernel_bytes: u64) -> io::Result<()> {
    let half = libc::c_int::try_from(kernel_bytes / 2).map_err(io::Error::other)?;
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, half)
}

/// `TCP_NOTSENT_LOWAT`: no limit, whatever `net.ipv4.tcp_notsent_lowat` says.
pub fn lift_unsent_limit(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, libc::c_int::MAX)
}

/// `TCP_WINDOW_CLAMP`: the most that the peer is offered. Unlike a smaller `SO_RCVBUF` on a connection that exists, it takes
/// nothing from what the kernel may hold: a queue of many small segments over that limit is dropped from, acknowledgements of
/// the other direction included.
pub fn clamp_window(socket: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    set(
        socket,
        libc::IPPROTO_TCP,
        libc::TCP_WINDOW_CLAMP,
        libc::c_int::try_from(bytes).map_err(io::Error::other)?,
    )
}

/// Whether a socket that is going to connect leaves the third packet of the handshake to the first data it sends, which
/// carries the same acknowledgement. A server on the same node is then woken once, with its first bytes there, and not once
/// to accept and once to read. (`TCP_DEFER_ACCEPT`, which on a connecting socket means this, and nothing once it is connected.)
///
/// Not for a connection on which nothing is sent at once: the server would know of it only 200 ms later.
pub fn acknowledge_with_data(socket: BorrowedFd<'_>, yes: bool) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, libc::c_int::from(yes))
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("fits");
    // SAFETY: the kernel reads one int, which outlives the call.
    let rc = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

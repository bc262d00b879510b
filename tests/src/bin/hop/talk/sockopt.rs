//! Socket options that neither socket2 nor rustix has.

use std::io;
use std::os::fd::AsRawFd as _;

use socket2::Socket;

/// `SO_ZEROCOPY`.
pub fn zerocopy(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)
}

/// `TCP_FASTOPEN_CONNECT`.
pub fn fast_open_connect(socket: &Socket) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)
}

/// `TCP_SYNCNT`.
pub fn syn_retries(socket: &Socket, count: u32) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, i32::try_from(count).unwrap_or(1))
}

/// The state in `TCP_INFO`, its first byte.
pub fn tcp_state(socket: &Socket) -> io::Result<u8> {
    let mut info = [0_u8; 8];
    let mut len = libc::socklen_t::try_from(info.len()).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes, which is how many there are.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if answer == 0 { Ok(info[0]) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    // SAFETY: the kernel reads `len` bytes, an i32, from a value that outlives the call.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! A client's TCP connection: blocking or not, with a bound on every wait.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// How to connect.
#[derive(Clone, Debug)]
pub struct How {
    pub to: SocketAddr,
    pub bind: Option<IpAddr>,
    /// Reach an IPv4 address through an IPv6 socket.
    pub mapped: bool,
    pub nonblocking: bool,
    /// Bounds each single wait.
    pub timeout: Duration,
}

#[derive(Debug)]
pub struct Conn {
    socket: Socket,
    nonblocking: bool,
    timeout: Duration,
}

impl Conn {
    pub fn connect(how: &How) -> io::Result<Self> {
        let to = if how.mapped { map(how.to) } else { how.to };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if how.mapped {
            socket.set_only_v6(false)?;
        }
        socket.set_tcp_nodelay(true)?;
        if let Some(ip) = how.bind {
            let local = SocketAddr::new(ip, 0);
            socket.bind(&(if how.mapped { map(local) } else { local }).into())?;
        }
        let conn = Self { socket, nonblocking: how.nonblocking, timeout: how.timeout };
        if how.nonblocking {
            conn.socket.set_nonblocking(true)?;
            conn.connect_nonblocking(to)?;
        } else {
            // The write timeout bounds connect as well.
            conn.socket.set_write_timeout(Some(how.timeout))?;
            conn.socket.set_read_timeout(Some(how.timeout))?;
            conn.socket.connect(&to.into()).map_err(timed_out)?;
        }
        Ok(conn)
    }

    fn connect_nonblocking(&self, to: SocketAddr) -> io::Result<()> {
        match self.socket.connect(&to.into()) {
            Ok(()) => return Ok(()),
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        self.wait(PollFlags::OUT)?;
        self.socket.take_error()?.map_or(Ok(()), Err)
    }

    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()?.as_socket()
    }

    pub fn half_close(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Makes the close a reset.
    pub fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }

    fn wait(&self, what: PollFlags) -> io::Result<()> {
        let timeout = Timespec::try_from(self.timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.socket, what)], Some(&timeout))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn retry(
        &self,
        what: PollFlags,
        mut attempt: impl FnMut(&Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match attempt(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.nonblocking => {
                    self.wait(what)?;
                }
                result => return result.map_err(timed_out),
            }
        }
    }
}

impl Read for &Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::IN, |mut socket| socket.read(buf))
    }
}

impl Write for &Conn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, |mut socket| socket.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blocking socket's timeout comes as `EAGAIN` (or, from connect, `EINPROGRESS`).
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock || in_progress(&error) {
        return io::Error::new(io::ErrorKind::TimedOut, error);
    }
    error
}

pub fn in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error())
}

pub fn map(addr: SocketAddr) -> SocketAddr {
    let mapped = |ip: Ipv4Addr| IpAddr::V6(ip.to_ipv6_mapped());
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(mapped(ip), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

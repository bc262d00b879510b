//! A connection of the doctor to itself, every wait on it bounded.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd as _},
    time::{Duration, Instant},
};

use aya::maps::{MapData, SockHash};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::telemetry::chain;

/// How long anything on loopback may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The end that is enrolled, and the other one.
pub struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    /// Connects over 127.0.0.1.
    pub fn open() -> Result<Self, String> {
        open().map_err(|error| format!("no connection over 127.0.0.1 (is lo up?): {error}"))
    }

    /// Puts the near end into a map.
    pub fn enrol(&self, map: &mut SockHash<MapData, u32>, key: u32) -> Result<(), String> {
        map.insert(key, self.near.as_raw_fd(), 0)
            .map_err(|error| format!("a socket cannot be enrolled: {}", chain(&error)))
    }

    /// Takes it out again.
    pub fn leave(map: &mut SockHash<MapData, u32>, key: u32) -> Result<(), String> {
        map.remove(&key).map_err(|error| format!("a socket cannot leave the map: {}", chain(&error)))
    }

    /// Sends from the near end.
    pub fn send(&self, message: &[u8]) -> Result<(), String> {
        (&self.near).write_all(message).map_err(|error| format!("cannot send: {error}"))
    }

    /// Ends the near end's stream, and returns all of it.
    pub fn finish(&self) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        self.near.shutdown(Shutdown::Write).map_err(|error| format!("cannot shut down: {error}"))?;
        (&self.far)
            .read_to_end(&mut all)
            .map_err(|error| format!("what was sent did not arrive: {error}"))?;
        Ok(all)
    }

    /// Has bytes waiting at the near end, asks FIONREAD how many there are, and reads them.
    pub fn waiting(&self, bytes: &[u8]) -> Result<u64, String> {
        let attempt = || -> io::Result<u64> {
            (&self.far).write_all(bytes)?;
            let mut peeked = vec![0; bytes.len()];
            let deadline = Instant::now() + PATIENCE;
            // Neither FIONREAD, which is what is examined, nor one wake-up tells that all is there: an enrolled socket
            // may wake without data.
            loop {
                readable(&self.near, deadline)?;
                match self.near.peek(&mut peeked) {
                    Ok(n) if n == bytes.len() => break,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ if Instant::now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
                    _ => {}
                }
            }
            let told = rustix::io::ioctl_fionread(&self.near)?;
            (&self.near).read_exact(&mut peeked)?;
            if peeked == bytes {
                Ok(told)
            } else {
                Err(io::Error::other("other bytes arrived than were sent"))
            }
        };
        attempt().map_err(|error| format!("cannot have bytes wait on the socket: {error}"))
    }
}

fn open() -> io::Result<Connection> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let near = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let deadline = Instant::now() + PATIENCE;
    let far = loop {
        readable(&listener, deadline)?;
        // Anybody may connect to a port on loopback.
        let (stream, from) = listener.accept()?;
        if from == near.local_addr()? {
            break stream;
        }
    };
    far.set_nonblocking(false)?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_write_timeout(Some(PATIENCE))?;
    }
    Ok(Connection { near, far })
}

fn readable(fd: impl AsFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

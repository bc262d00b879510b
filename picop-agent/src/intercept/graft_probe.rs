//! Whether this kernel can graft, and whether an application could tell: tried at start, with real sockets on loopback.
//! What cannot be found out counts as broken.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use picop_common::maps::{AGENT_GRAFT, AGENT_GRAFT_AUTO};

use super::{btf, grafts::Grafts};
use crate::{sys, telemetry::chain};

/// How long anything on loopback may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a thread that has been woken may take to run.
const WOKEN: Duration = Duration::from_millis(100);
/// How often a read is tried: a wake-up may come together with the data, and nothing is seen of it.
const ATTEMPTS: usize = 3;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The programs know what they must of the kernel's structs.
    pub places: bool,
    /// FIONREAD answers the truth on an enrolled socket.
    pub fionread: bool,
    /// A read that blocks on an enrolled socket goes on when it is woken without data.
    pub blocking_read: bool,
}

impl Found {
    /// Bits `AGENT_GRAFT*`.
    pub const fn flags(self) -> u32 {
        match self {
            Self { places: false, .. } => 0,
            Self { fionread: true, blocking_read: true, .. } => AGENT_GRAFT | AGENT_GRAFT_AUTO,
            _ => AGENT_GRAFT,
        }
    }
}

/// Tries, tells in the log, and answers the flags.
pub fn flags(grafts: &Grafts) -> u32 {
    let places = btf::graft();
    if let Err(error) = &places {
        tracing::warn!(error = chain(error), "relayed connections cannot be grafted on this kernel");
    }
    let found = Found {
        places: places.is_ok(),
        fionread: told("FIONREAD", fionread(grafts)),
        blocking_read: told("a blocking read", blocking_reads(|socket| enrol(grafts, socket))),
    };
    let Found { places, fionread, blocking_read } = found;
    tracing::info!(places, fionread, blocking_read, "what this kernel does to sockets in a graft");
    if found.flags() & AGENT_GRAFT_AUTO == 0 {
        tracing::info!("`graft: auto` grafts nothing on this kernel: applications could tell");
    }
    found.flags()
}

fn told(what: &str, result: io::Result<bool>) -> bool {
    result.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot find out how {what} fares in a graft, which counts as badly");
        false
    })
}

fn enrol(grafts: &Grafts, socket: BorrowedFd<'_>) -> io::Result<()> {
    let cookie = sys::socket_cookie(socket)?;
    grafts.sources().insert(cookie, socket.as_raw_fd(), 0).map_err(io::Error::other)
}

/// A connection whose first end is enrolled, until it is closed.
fn connection(enrol: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let far = loop {
        // Anybody may connect.
        let (far, from) = listener.accept()?;
        if from == near.local_addr()? {
            break far;
        }
    };
    for end in [&near, &far] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_write_timeout(Some(PATIENCE))?;
    }
    enrol(near.as_fd())?;
    Ok((near, far))
}

fn fionread(grafts: &Grafts) -> io::Result<bool> {
    let (near, mut far) = connection(|socket| enrol(grafts, socket))?;
    far.write_all(b"picop!")?;
    // It has arrived when it can be peeked at.
    let mut peeked = [0; 6];
    while near.peek(&mut peeked)? < peeked.len() {}
    Ok(rustix::io::ioctl_fionread(&near)? == 6)
}

/// Whether reads that block on a socket in a map with an `sk_msg` program go on when they are woken without data. `enrol` puts
/// one there; it leaves when it is closed.
pub fn blocking_reads(mut enrol: impl FnMut(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<bool> {
    for _ in 0..ATTEMPTS {
        if !blocking_read(&mut enrol)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A thread reads; another one fills the send buffer, and the peer empties it: the reader is woken for the writer's sake.
fn blocking_read(enrol: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<bool> {
    let (near, mut far) = connection(enrol)?;
    let mut reading = near.try_clone()?;
    let (ready_tx, ready_rx) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        // Whoever hears of it finds this thread in its read, or on its way there. If nobody does, nobody waits for it.
        let _ = ready_tx.send(rustix::thread::gettid());
        reading.read(&mut [0; 1])
    });
    let tid = ready_rx.recv_timeout(PATIENCE).map_err(io::Error::other)?;
    until_asleep(tid)?;
    let full = vec![0; 1 << 20];
    let mut sent = 0;
    loop {
        match rustix::net::send(&near, &full, rustix::net::SendFlags::DONTWAIT) {
            Ok(n) => sent += n,
            Err(rustix::io::Errno::AGAIN) => break,
            Err(e) => return Err(e.into()),
        }
    }
    let mut taken = vec![0; 1 << 20];
    while sent > 0 {
        sent -= far.read(&mut taken)?.min(sent);
    }
    // It was woken by now, or will be in a moment. One that goes on waiting takes the byte.
    let since = Instant::now();
    while since.elapsed() < WOKEN && !reader.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    far.write_all(b"!")?;
    match reader.join() {
        Ok(Ok(1)) => Ok(true),
        // EAGAIN; or, where something else was wrong, not to be called well either.
        Ok(_) => Ok(false),
        Err(_) => Err(io::Error::other("the reading thread panicked")),
    }
}

/// Waits until a thread of this process sleeps.
fn until_asleep(tid: rustix::thread::Pid) -> io::Result<()> {
    let path = format!("/proc/self/task/{}/stat", tid.as_raw_nonzero());
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let stat = std::fs::read_to_string(&path)?;
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
            return Ok(());
        }
        thread::yield_now();
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_proven_is_not_done() {
        let all = Found { places: true, fionread: true, blocking_read: true };
        assert_eq!(all.flags(), AGENT_GRAFT | AGENT_GRAFT_AUTO);
        assert_eq!(Found { places: false, ..all }.flags(), 0);
        assert_eq!(Found { fionread: false, ..all }.flags(), AGENT_GRAFT);
        assert_eq!(Found { blocking_read: false, ..all }.flags(), AGENT_GRAFT);
    }
}

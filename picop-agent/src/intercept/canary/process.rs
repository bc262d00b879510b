//! The canary process.

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use super::{DIRECT, RELAYED};

/// What the agent answers.
pub const ANSWER: &[u8; 5] = b"picop";
/// What the process sends first on a direct connection.
pub const FIRST: &[u8; 4] = b"ping";
/// What it sends after the first answer.
pub const SECOND: &[u8; 4] = b"pong";

/// One step may take this long: the rounds' steps together stay below what the agent bears.
const STEP: Duration = Duration::from_millis(400);

type Attempt = fn(SocketAddr) -> Result<(), Failure>;

/// How a line begins that tells of a step that took too long: on a busy machine that proves nothing.
pub const SLOW: &str = "slow: ";

/// An attempt was not what it should be.
enum Failure {
    /// Something else happened.
    Wrong(String),
    /// Nothing happened in time.
    Slow(String),
}

/// Makes a round of attempts at each line on standard input, until that ends: a line for the relayed ones, a line for the
/// direct ones.
pub fn process(cgroup: &Path, home: &Path) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        line?;
        for (attempt, to) in [(relayed as Attempt, RELAYED), (direct, DIRECT)] {
            match attempt(to).and_then(|()| attempt(mapped(to))) {
                Ok(()) => writeln!(stdout, "ok")?,
                Err(Failure::Wrong(why)) => writeln!(stdout, "{why}")?,
                Err(Failure::Slow(why)) => writeln!(stdout, "{SLOW}{why}")?,
            }
        }
        stdout.flush()?;
    }
    // The agent is gone, perhaps killed: leave nothing behind. This fails where home is gone too, or holds controllers;
    // the next agent then sweeps.
    fs::write(home.join("cgroup.procs"), std::process::id().to_string())?;
    fs::remove_dir(cgroup)
}

/// The same address by way of a dual-stack socket.
fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(v4) => SocketAddr::from((v4.to_ipv6_mapped(), to.port())),
        IpAddr::V6(_) => to,
    }
}

fn relayed(to: SocketAddr) -> Result<(), Failure> {
    let attempt = || -> io::Result<SocketAddr> {
        let mut stream = connect(to)?;
        answer(&mut stream)?;
        stream.peer_addr()
    };
    verdict(to, attempt())
}

fn direct(to: SocketAddr) -> Result<(), Failure> {
    let attempt = || -> io::Result<SocketAddr> {
        let mut stream = connect(to)?;
        stream.write_all(FIRST)?;
        // By now the header is acknowledged, and this must be a plain socket again, which FIONREAD tells.
        stream.peek(&mut [0])?;
        let waiting = rustix::io::ioctl_fionread(&stream)?;
        answer(&mut stream)?;
        if waiting != ANSWER.len() as u64 {
            return Err(io::Error::other(format!("FIONREAD says {waiting} of {} bytes wait", ANSWER.len())));
        }
        stream.write_all(SECOND)?;
        answer(&mut stream)?;
        stream.peer_addr()
    };
    verdict(to, attempt())
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, STEP)?;
    stream.set_read_timeout(Some(STEP))?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer)?;
    if answer == *ANSWER { Ok(()) } else { Err(io::Error::other("somebody else answers there")) }
}

fn verdict(to: SocketAddr, peer: io::Result<SocketAddr>) -> Result<(), Failure> {
    match peer {
        Ok(peer) if peer != to => {
            Err(Failure::Wrong(format!("connected to {to}, but getpeername says {peer}")))
        }
        Ok(_) => Ok(()),
        Err(error) => {
            let why = format!("a connection to {to} from the canary's cgroup failed: {error}");
            // A read that took too long is EAGAIN.
            Err(match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::Slow(why),
                _ => Failure::Wrong(why),
            })
        }
    }
}

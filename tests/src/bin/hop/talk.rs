//! Sockets under remote control: a line of JSON on standard input says what to do, one on standard output what came of it.

mod deeds;
mod sockopt;

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};
use testbed::hex;
use testbed::talk::{Ask, Said, Target};

/// Bounds every wait of a socket that was accepted.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run() -> Result<()> {
    let mut sockets = Vec::new();
    for line in io::stdin().lock().lines() {
        let ask = serde_json::from_str(&line?).context("no step of this program")?;
        let mut said = Said::default();
        if let Err(error) = act(&ask, &mut sockets, &mut said) {
            said.error = Some(format!("{:?}", timed_out(&error)));
            said.errno = error.raw_os_error();
        }
        println!("{}", serde_json::to_string(&said)?);
    }
    Ok(())
}

fn act(ask: &Ask, sockets: &mut Vec<Option<Socket>>, said: &mut Said) -> io::Result<()> {
    match ask {
        Ask::Open(target) => made(open(target)?, sockets, said),
        Ask::Listen(at) => {
            let socket = Socket::new(Domain::for_address(*at), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&(*at).into())?;
            socket.listen(128)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            made(socket, sockets, said)
        }
        Ask::Accept(listener) => {
            let (socket, _) = get(sockets, *listener)?.accept()?;
            socket.set_tcp_nodelay(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            made(socket, sockets, said)
        }
        Ask::Names(at) => names(get(sockets, *at)?, said),
        Ask::Send(at, digits) => {
            let bytes = hex::decode(digits).map_err(|_| io::ErrorKind::InvalidInput)?;
            get(sockets, *at)?.write_all(&bytes)
        }
        Ask::Receive(at, count) => receive(get(sockets, *at)?, *count, said),
        Ask::Finish(at) => get(sockets, *at)?.shutdown(Shutdown::Write),
        Ask::Close(at) => take(sockets, *at).map(drop),
        Ask::Reset(at) => take(sockets, *at)?.set_linger(Some(Duration::ZERO)),
        Ask::Raw(v6) => {
            let socket = Socket::new(if *v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::STREAM, None)?;
            socket.set_tcp_nodelay(true)?;
            made(socket, sockets, said)
        }
        Ask::Do(at, deed) => deeds::act(deed, get(sockets, *at)?, said),
    }
}

fn open(target: &Target) -> io::Result<Socket> {
    let to = match target.to {
        SocketAddr::V4(v4) if target.mapped => {
            SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port())
        }
        to => to,
    };
    let kind = if target.udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    let timeout = Some(Duration::from_millis(target.timeout_ms));
    // The write timeout bounds connect as well.
    socket.set_write_timeout(timeout)?;
    socket.set_read_timeout(timeout)?;
    if !target.udp {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(name) = &target.device {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    socket.connect(&to.into())?;
    Ok(socket)
}

fn made(socket: Socket, sockets: &mut Vec<Option<Socket>>, said: &mut Said) -> io::Result<()> {
    said.socket = Some(sockets.len());
    said.local = socket.local_addr()?.as_socket();
    // A listener has no peer; nor has a socket that was reset meanwhile.
    said.peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
    sockets.push(Some(socket));
    Ok(())
}

fn names(socket: &Socket, said: &mut Said) -> io::Result<()> {
    said.local = socket.local_addr()?.as_socket();
    said.peer = socket.peer_addr()?.as_socket();
    Ok(())
}

fn receive(mut socket: &Socket, count: usize, said: &mut Said) -> io::Result<()> {
    let mut got = Vec::new();
    let mut buf = vec![0; 64 * 1024];
    let outcome = loop {
        let room = buf.len().min(count - got.len());
        if room == 0 {
            break Ok(());
        }
        match socket.read(&mut buf[..room]) {
            Ok(0) => {
                said.eof = true;
                break Ok(());
            }
            Ok(read) => got.extend(&buf[..read]),
            Err(error) => break Err(error),
        }
    };
    said.hex = hex::encode(&got);
    outcome
}

fn get(sockets: &mut [Option<Socket>], at: usize) -> io::Result<&mut Socket> {
    sockets.get_mut(at).and_then(Option::as_mut).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn take(sockets: &mut [Option<Socket>], at: usize) -> io::Result<Socket> {
    sockets.get_mut(at).and_then(Option::take).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A blocking socket's timeout comes as `EAGAIN` or, from connect, as `EINPROGRESS`.
fn timed_out(error: &io::Error) -> io::ErrorKind {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut,
        _ if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            io::ErrorKind::TimedOut
        }
        kind => kind,
    }
}

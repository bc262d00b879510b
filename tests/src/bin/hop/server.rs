//! What the test servers share: a listener, and a thread for each connection.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// How long a queue of connections not accepted yet may become (the system's own bound may be lower).
const BACKLOG: i32 = 4096;
/// Thousands of threads fit in memory with this; what the servers do is shallow.
const STACK: usize = 256 * 1024;

/// Listens on an address; the IPv6 wildcard takes IPv4 as well.
pub fn listen(at: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(at.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.bind(&at.into()).with_context(|| format!("binding to {at}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves every connection on a thread of its own; a connection's error is told and ends only that connection.
pub fn serve<F>(listener: &TcpListener, handle: F) -> Result<()>
where
    F: Fn(TcpStream, usize) -> Result<()> + Send + Sync + 'static,
{
    let handle = std::sync::Arc::new(handle);
    for number in 0.. {
        let (stream, from) = listener.accept().context("accepting a connection")?;
        stream.set_nodelay(true)?;
        let handle = handle.clone();
        let job = move || {
            if let Err(error) = handle(stream, number) {
                eprintln!("connection {number} from {from}: {error:#}");
            }
        };
        thread::Builder::new().stack_size(STACK).spawn(job).context("starting a thread")?;
    }
    Ok(())
}

/// Closes with a reset instead of an end of stream.
pub fn reset(stream: TcpStream) -> Result<()> {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
    drop(stream);
    Ok(())
}

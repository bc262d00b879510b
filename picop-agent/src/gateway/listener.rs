//! A listener that is not asked in vain.
//!
//! An accept(2) that finds nobody has made a socket and a file by then, and throws them away: 3.6 us of CPU time here, of the 60 that a
//! connection with one request takes (`do_accept` of net/socket.c; 6.18). A runtime that accepts until there is nobody left pays that for
//! each connection where they do not come in crowds. To ask whether there is another one takes 0.3.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd as _,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SocketFlags, acceptfrom_with},
};
use tokio::net::TcpStream;

use crate::sys::Watched;

/// It belongs to the runtime that it was made in.
#[derive(Debug)]
pub struct Listener {
    watched: Watched,
    /// Whether others accept from the same socket: all of them are woken for each connection.
    is_shared: bool,
}

impl Listener {
    /// Of a socket that listens, and does not block.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(listener: TcpListener, is_shared: bool) -> io::Result<Self> {
        Ok(Self { watched: Watched::new(listener)?, is_shared })
    }

    /// The next connection.
    ///
    /// # Errors
    /// As accept(2) has them. One that has ended meanwhile is no error.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let mut ready = self.watched.readable().await?;
            let listener = self.watched.listener();
            let taken =
                if self.is_shared && is_nobody_there(listener) { Err(Errno::AGAIN) } else { take(listener) };
            match taken {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
                Ok((stream, client)) => {
                    // What comes after this look has the runtime told of it anew, whatever is cleared here.
                    if is_nobody_there(listener) {
                        ready.clear_ready();
                    }
                    return Ok((TcpStream::from_std(stream)?, client));
                }
            }
        }
    }
}

fn take(listener: &TcpListener) -> Result<(std::net::TcpStream, SocketAddr), Errno> {
    let (socket, from) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let from = from.and_then(|from| from.try_into().ok()).ok_or(Errno::CONNABORTED)?;
    Ok((socket.into(), from))
}

/// Whether an accept would find nobody. If that cannot be told, it would not.
fn is_nobody_there(listener: &TcpListener) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    poll(&mut asked, Some(&Timespec::default())) == Ok(0)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::Ipv4Addr, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn listener() -> (Listener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("an address");
        listener.set_nonblocking(true).expect("set");
        let address = listener.local_addr().expect("bound");
        (Listener::new(listener, false).expect("watched"), address)
    }

    /// Those that wait together, and those that come one at a time.
    #[tokio::test]
    async fn all_are_taken() {
        let (listener, address) = listener();
        for crowd in [3, 1, 1, 40, 1] {
            let mut clients = Vec::new();
            for _ in 0..crowd {
                clients.push(std::net::TcpStream::connect(address).expect("connected"));
            }
            let mut came = HashSet::new();
            for _ in 0..crowd {
                came.insert(timeout(SOON, listener.accept()).await.expect("in time").expect("taken").1);
            }
            assert_eq!(came, clients.iter().map(|client| client.local_addr().expect("its own")).collect());
        }
    }

    /// Whoever comes while somebody waits for it wakes him, with nothing left over from the one before.
    #[tokio::test]
    async fn who_waits_is_woken() {
        let (listener, address) = listener();
        for _ in 0..100 {
            let connecting = tokio::task::spawn_blocking(move || std::net::TcpStream::connect(address));
            let (stream, client) = timeout(SOON, listener.accept()).await.expect("in time").expect("taken");
            assert_eq!(stream.peer_addr().expect("there"), client);
            drop(connecting.await.expect("no panic").expect("connected"));
        }
    }

    /// Several share one socket: who finds nobody waits on.
    #[tokio::test]
    async fn one_of_several_has_it() {
        let (first, address) = listener();
        let second = first.watched.listener().try_clone().expect("another");
        let second = Listener::new(second, true).expect("watched");
        let (both, mut taken) = ([first, second], [0, 0]);
        for _ in 0..50 {
            let client = TcpStream::connect(address).await.expect("connected");
            let (number, accepted) = timeout(SOON, async {
                tokio::select! {
                    accepted = both[0].accept() => (0, accepted),
                    accepted = both[1].accept() => (1, accepted),
                }
            })
            .await
            .expect("in time");
            assert_eq!(accepted.expect("taken").1, client.local_addr().expect("its own"));
            taken[number] += 1;
        }
        assert_eq!(taken[0] + taken[1], 50);
    }
}

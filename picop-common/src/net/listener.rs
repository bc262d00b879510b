//! A TCP listener whose connections come with their context.
use std::{fmt, io, net::SocketAddr};

use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::JoinSet,
};

use super::{Accepted, Rules, accept};
use crate::protocol::HeadError;

/// What is done with a connection that is not accepted, besides closing it.
type Refused = Box<dyn Fn(SocketAddr, &HeadError) + Send + Sync>;

/// Accepts connections, and reads their headers, of up to [`Rules::waiting`] at once.
pub struct Listener {
    socket: TcpListener,
    rules: Rules,
    waiting: JoinSet<(SocketAddr, Result<Accepted<TcpStream>, HeadError>)>,
    refused: Refused,
}

impl Listener {
    /// Listens at an address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn bind(address: impl ToSocketAddrs, rules: Rules) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, rules))
    }

    /// Takes a listener that there is already.
    pub fn new(listener: TcpListener, rules: Rules) -> Self {
        Self { socket: listener, rules, waiting: JoinSet::new(), refused: Box::new(|_, _| {}) }
    }

    /// Is told of each connection that is closed because its header did not come whole.
    #[must_use]
    pub fn on_refused(mut self, told: impl Fn(SocketAddr, &HeadError) + Send + Sync + 'static) -> Self {
        self.refused = Box::new(told);
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the operating system has them.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection whose beginning is known, and its client's address. They come in the order in which that is so.
    ///
    /// Connections are taken from the kernel only while somebody waits here; their headers are read by tasks of their own.
    /// Nothing is lost if it is cancelled. Dropped, the listener closes what it has not given out.
    ///
    /// # Errors
    /// When the listener fails: too many open files, for one, which passes.
    pub async fn accept(&mut self) -> io::Result<(Accepted<TcpStream>, SocketAddr)> {
        loop {
            tokio::select! {
                biased;
                Some(known) = self.waiting.join_next() => {
                    let (client, read) = known.map_err(io::Error::other)?;
                    match read {
                        Ok(accepted) => return Ok((accepted, client)),
                        Err(error) => (self.refused)(client, &error),
                    }
                }
                next = self.socket.accept(), if self.waiting.len() < self.rules.waiting.max(1) => {
                    let (io, client) = next?;
                    let rules = self.rules;
                    self.waiting.spawn(async move { (client, accept(io, &rules).await) });
                }
            }
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("socket", &self.socket)
            .field("rules", &self.rules)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

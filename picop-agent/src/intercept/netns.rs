//! Network namespaces: identity, and sockets made inside them.
//!
//! A thread's network namespace is its own. Sockets for other namespaces are made on one dedicated thread that only ever
//! runs short synchronous closures: nothing can be moved to another thread in the middle of one, and there is nothing to
//! restore. A socket stays in the namespace it was made in, so the ordinary runtime uses it from then on.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::{mpsc, oneshot};

use crate::sys;

/// How many connections may wait to be accepted, if the namespace's `net.core.somaxconn` (4096 by default) lets them.
const BACKLOG: i32 = 4096;

/// How long a connection to a fresh listener over loopback may take.
const REACHED_WITHIN: Duration = Duration::from_secs(1);

/// What can go wrong around network namespaces.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The namespace's file cannot be opened.
    #[error("cannot open network namespace {path} (for another user's process this takes CAP_SYS_PTRACE)")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be entered.
    #[error("cannot enter a network namespace; this takes CAP_SYS_ADMIN")]
    Enter(#[source] io::Error),
    /// A listener cannot be had in it.
    #[error("cannot listen on {addr} inside the workload's network namespace")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The thread has ended.
    #[error("the network namespace thread is gone")]
    ThreadGone,
}

/// Which namespace: inode and device of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    dev: u64,
    ino: u64,
}

#[cfg(test)]
impl NetnsId {
    /// Any identity, for tables of tests.
    pub fn for_test(dev: u64, ino: u64) -> Self {
        Self { dev, ino }
    }
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

impl Netns {
    /// From a namespace file, such as `/run/netns/NAME`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let error = |source| NetnsError::Open { path: path.into(), source };
        let file = File::open(path).map_err(error)?;
        let meta = file.metadata().map_err(error)?;
        Ok(Self { fd: file.into(), id: NetnsId { dev: meta.dev(), ino: meta.ino() } })
    }

    /// That of a process.
    pub fn of_process(pid: u32) -> Result<Self, NetnsError> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// That of the calling thread.
    pub fn own() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Its identity.
    pub fn id(&self) -> NetnsId {
        self.id
    }
}

/// The agent's listeners in one namespace.
#[derive(Debug)]
pub struct Listeners {
    /// `SO_NETNS_COOKIE` of the namespace.
    pub cookie: u64,
    /// On 127.0.0.1.
    pub v4: TcpListener,
    /// On ::1, where the namespace has IPv6.
    pub v6: Option<TcpListener>,
}

type Job = Box<dyn FnOnce(&mut Option<NetnsId>) + Send>;

/// The thread that makes sockets in other namespaces.
#[derive(Clone, Debug)]
pub struct NetnsThread {
    job_tx: mpsc::UnboundedSender<Job>,
}

impl NetnsThread {
    /// Starts it. It ends when the last clone of this handle is dropped.
    pub fn spawn() -> io::Result<Self> {
        let (job_tx, mut job_rx) = mpsc::unbounded_channel::<Job>();
        std::thread::Builder::new().name("picop-netns".into()).spawn(move || {
            // Which namespace the thread is in: consecutive sockets of one workload need no system call to get there.
            let mut inside = None;
            while let Some(job) = job_rx.blocking_recv() {
                job(&mut inside);
            }
        })?;
        Ok(Self { job_tx })
    }

    /// Runs a closure inside a namespace. It must be short and must not block.
    pub async fn run<T: Send + 'static>(
        &self,
        netns: Arc<Netns>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        let (result_tx, result_rx) = oneshot::channel();
        self.begin(netns, move |entered| {
            // The asker may have given up meanwhile; what was made for it is dropped.
            drop(result_tx.send(entered.map(|()| work())));
        })?;
        result_rx.await.map_err(|_| NetnsError::ThreadGone)?
    }

    /// Has a closure run inside a namespace, or told that it cannot be entered, some time soon. It must be short and must
    /// not block.
    pub fn begin(
        &self,
        netns: Arc<Netns>,
        work: impl FnOnce(Result<(), NetnsError>) + Send + 'static,
    ) -> Result<(), NetnsError> {
        let job = Box::new(move |inside: &mut Option<NetnsId>| {
            let entered = if *inside == Some(netns.id) {
                Ok(())
            } else {
                move_into_link_name_space(netns.fd.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|e| NetnsError::Enter(e.into()))
            };
            if entered.is_ok() {
                *inside = Some(netns.id);
            }
            work(entered);
        });
        self.job_tx.send(job).map_err(|_| NetnsError::ThreadGone)
    }

    /// Opens the agent's listeners on a namespace's loopback addresses.
    pub async fn listen(&self, netns: Arc<Netns>) -> Result<Listeners, NetnsError> {
        self.run(netns, || {
            let v4 = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            // Without IPv6 (disabled, or no ::1) only IPv6 connections go without interception, and are counted.
            let v6 = listen(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).ok();
            let cookie = sys::netns_cookie(v4.as_fd()).map_err(NetnsError::Enter)?;
            Ok(Listeners { cookie, v4, v6 })
        })
        .await?
    }

    /// An unconnected, non-blocking TCP socket in a namespace, for addresses of a family.
    pub async fn socket(&self, netns: Arc<Netns>, family: Family) -> Result<io::Result<Socket>, NetnsError> {
        self.run(netns, move || upstream(family)).await
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Of an address.
    pub fn of(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// An unconnected, non-blocking TCP socket in the calling thread's namespace. It sends what it is given at once: what is
/// relayed was put together by somebody else already, and waiting for more would only delay it.
pub fn socket(family: Family) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The same, to connect upstream with. The end of the handshake goes with the first bytes that are sent, rather than as a packet
/// of its own: see [`sys::tcp::acknowledge_with_data`].
pub fn upstream(family: Family) -> io::Result<Socket> {
    let socket = socket(family)?;
    sys::tcp::acknowledge_with_data(socket.as_fd(), true)?;
    Ok(socket)
}

fn listen(addr: SocketAddr) -> Result<TcpListener, NetnsError> {
    let attempt = || -> io::Result<TcpListener> {
        // With TCP_NODELAY, which the sockets it accepts inherit.
        let listener = socket(Family::of(addr))?;
        if addr.is_ipv6() {
            listener.set_only_v6(true)?;
        }
        listener.bind(&SockAddr::from(addr))?;
        listener.listen(BACKLOG)?;
        // Nobody else knows the port yet. Of `net.ipv4.tcp_fastopen` 0x400 every listener takes data in a SYN, and a
        // connection could be accepted before it is established on the client's side: before its destination is known.
        sys::no_fast_open(listener.as_fd())?;
        let listener = TcpListener::from(listener);
        reach(&listener)?;
        Ok(listener)
    };
    attempt().map_err(|source| NetnsError::Listen { addr, source })
}

/// Proves that the listener can be reached: in a namespace whose `lo` is down binding works, connecting does not, and
/// every intercepted connection would fail.
fn reach(listener: &TcpListener) -> io::Result<()> {
    let probe = TcpStream::connect_timeout(&listener.local_addr()?, REACHED_WITHIN)?;
    let probe_addr = probe.local_addr()?;
    loop {
        // The client's side is done; its last ACK may still be on its way through another CPU.
        let timeout = rustix::time::Timespec::try_from(REACHED_WITHIN).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut ready, Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Nobody else knows the port yet, but anybody may connect to it.
        let (_, from) = listener.accept()?;
        if from == probe_addr {
            return Ok(());
        }
    }
}

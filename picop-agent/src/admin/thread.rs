//! The thread that answers: a large answer, or a slow reader, takes no time from anything else.

use std::{io, sync::Arc, thread};

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{
    http::{self, Access},
    socket::AdminSocket,
    state::State,
};

/// Whoever answers. Stops when dropped.
#[derive(Debug)]
pub struct AdminThread {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
    /// Removed when the thread has ended.
    _socket: Option<AdminSocket>,
}

impl AdminThread {
    /// Starts it: on the Unix socket, if there is one, and on TCP listeners.
    pub fn start(
        state: Arc<State>,
        socket: Option<AdminSocket>,
        tcp: Vec<(std::net::TcpListener, Access)>,
    ) -> io::Result<Self> {
        let unix = socket.as_ref().map(AdminSocket::listener).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (unix, tcp) = {
            let _inside = runtime.enter();
            let tcp: io::Result<Vec<_>> = tcp
                .into_iter()
                .map(|(listener, access)| Ok((tokio::net::TcpListener::from_std(listener)?, access)))
                .collect();
            (unix.map(UnixListener::from_std).transpose()?, tcp?)
        };
        let stop = CancellationToken::new();
        let run = {
            let stop = stop.clone();
            move || {
                runtime.block_on(async {
                    if let Some(unix) = unix {
                        tokio::spawn(http::serve_unix(unix, Arc::clone(&state)));
                    }
                    for (listener, access) in tcp {
                        tokio::spawn(http::serve_tcp(listener, access, Arc::clone(&state)));
                    }
                    stop.cancelled().await;
                });
                // Answers that are under way are cut off: nothing of theirs matters once the agent is gone.
                runtime.shutdown_background();
            }
        };
        let thread = thread::Builder::new().name("picop-admin".into()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread), _socket: socket })
    }
}

impl Drop for AdminThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so itself.
            drop(thread.join());
        }
    }
}

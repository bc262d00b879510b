//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection stays on the thread that accepted it, and so do the connections to servers that it makes: nothing of a request
//! wakes another thread. Threads share their listeners, so that a connection goes to one that has time for it.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The threads. They end when this is dropped, and with them whatever still runs there.
#[derive(Debug)]
pub struct Workers {
    handles: Arc<[Handle]>,
    /// Dropped, each ends its thread.
    running: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Workers {
    /// Starts so many.
    ///
    /// # Errors
    /// When there are no threads to be had.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut handles = Vec::with_capacity(count);
        let mut running = Vec::with_capacity(count);
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel::<()>();
            let serve = move || {
                // An error is the end as well.
                drop(runtime.block_on(stopped));
            };
            let thread = thread::Builder::new().name(format!("picop-gateway-{number}")).spawn(serve)?;
            running.push((stop, thread));
        }
        Ok(Self { handles: handles.into(), running })
    }

    /// Where to spawn.
    pub fn handles(&self) -> Arc<[Handle]> {
        Arc::clone(&self.handles)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (stop, thread) in self.running.drain(..) {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("a thread of the gateway has panicked");
            }
        }
    }
}

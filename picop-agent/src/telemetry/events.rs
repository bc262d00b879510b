//! Connections as they are decided and as they end, for `picop trace`. Whoever reads too slowly misses some and is told how
//! many; nobody waits for a reader.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

/// How far a reader may fall behind.
const BACKLOG: usize = 4096;

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since 1970. Of connections that the kernel decided: when the agent heard of it, up to 50 ms
    /// later.
    pub at_us: u64,
    /// `routed`, or `closed` (of relayed connections; nobody sees the others' end).
    pub what: String,
    /// `passthrough`, `direct`, `relay` or `refused`.
    pub path: String,
    /// The workload.
    pub workload: String,
    /// The service, if there is one at the address.
    pub service: Option<String>,
    /// The environment, if there is one.
    pub environment: Option<String>,
    /// Where that came from: `header`, `workload` or `none`.
    pub env_source: String,
    /// Where the client wanted to go.
    pub original: Option<String>,
    /// Where the connection goes.
    pub backend: Option<String>,
    /// Why there.
    pub reason: Option<String>,
    /// `propagate`, `strip` or `none`.
    pub header: String,
    /// When closed: how.
    pub outcome: Option<String>,
    /// When closed: why, in words, if not in order.
    pub error: Option<String>,
    /// When closed: payload bytes from client to server.
    pub bytes_up: Option<u64>,
    /// When closed: payload bytes from server to client.
    pub bytes_down: Option<u64>,
    /// When closed: how long it lasted.
    pub duration_us: Option<u64>,
}

impl Event {
    /// Now, in the unit of [`Event::at_us`].
    pub fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// The stream of them.
#[derive(Debug)]
pub struct Events {
    event_tx: broadcast::Sender<Arc<Event>>,
    /// How many listen.
    listeners: watch::Sender<usize>,
}

impl Default for Events {
    fn default() -> Self {
        Self { event_tx: broadcast::Sender::new(BACKLOG), listeners: watch::Sender::new(0) }
    }
}

/// Somebody who listens. As long as it lives, the kernel tells of the connections that it decides.
#[derive(Debug)]
pub struct Listener<'a> {
    events: &'a Events,
    event_rx: broadcast::Receiver<Arc<Event>>,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The next event.
    Event(Arc<Event>),
    /// So many were missed.
    Missed(u64),
}

impl Events {
    /// Whether anybody listens: making an event for nobody is a waste.
    pub fn is_heard(&self) -> bool {
        self.event_tx.receiver_count() > 0
    }

    /// Tells whoever listens.
    pub fn tell(&self, make: impl FnOnce() -> Event) {
        if self.is_heard() {
            // Nobody, after all, if the last one just left.
            drop(self.event_tx.send(Arc::new(make())));
        }
    }

    /// From here on, all that happens.
    pub fn listen(&self) -> Listener<'_> {
        let event_rx = self.event_tx.subscribe();
        self.listeners.send_modify(|count| *count += 1);
        Listener { events: self, event_rx }
    }

    /// Wakes when somebody begins or ends to listen.
    pub fn listeners(&self) -> watch::Receiver<usize> {
        self.listeners.subscribe()
    }
}

impl Listener<'_> {
    /// The next thing heard.
    pub async fn next(&mut self) -> Heard {
        match self.event_rx.recv().await {
            Ok(event) => Heard::Event(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Heard::Missed(missed),
            // The sender lives in what is borrowed.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.events.listeners.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed() {
        let events = Events::default();
        events.tell(|| unreachable!("nobody listens"));
        let mut listener = events.listen();
        assert_eq!(*events.listeners().borrow(), 1);
        for at_us in 0..BACKLOG as u64 + 3 {
            events.tell(|| Event { at_us, ..Event::default() });
        }
        assert_eq!(listener.next().await, Heard::Missed(3));
        assert_eq!(listener.next().await, Heard::Event(Arc::new(Event { at_us: 3, ..Event::default() })));
        drop(listener);
        assert_eq!(*events.listeners().borrow(), 0);
    }
}

//! The end: connections are let go, then the programs.

use std::time::Duration;

use super::{Agent, signals::Stop};
use crate::{
    intercept::{
        heartbeat::Heartbeat,
        leave,
        snapshot::{self, Snapshot},
    },
    relay::server::Server,
};

/// From "no more connections here" to closing the listeners. A handshake over loopback takes microseconds, but between its
/// hook and its SYN a process may be put off the CPU: on a busy machine for tens of milliseconds.
const SETTLE: Duration = Duration::from_millis(200);

impl Agent {
    /// Sends nobody here any more, and waits for those who are.
    pub(super) async fn going(&self, server: &Server, stop: &mut Stop, heartbeat: Heartbeat) {
        // An old heartbeat is how the hooks know that there is no agent: connections go to their base.
        drop(heartbeat);
        if let Err(error) = self.maps.beat(0) {
            tracing::warn!(%error, "cannot tell the hooks that the agent is going");
        }
        // A connect that was rewritten just before needs a moment to get through its handshake and to our accept.
        tokio::time::sleep(SETTLE).await;
        let patience = self.args.drain_timeout;
        tracing::info!(?patience, "draining; a second signal ends it at once");
        let forced = tokio::select! {
            left = server.drain(patience) => left,
            () = stop.requested(&self.reload) => server.drain(Duration::ZERO).await,
        };
        if forced > 0 {
            tracing::warn!(connections = forced, "connections were reset at the end of the drain");
        }
    }

    /// Waits for those that were routed with a header and have not sent yet. A second signal ends that too.
    pub(super) async fn last_headers(&self, stop: &mut Stop) {
        let grace = self.args.header_grace;
        let left = tokio::select! {
            left = leave::waited(grace, || self.maps.enrolled()) => left,
            () = stop.requested(&self.reload) => self.maps.enrolled(),
        };
        if left > 0 {
            tracing::warn!(
                sockets = left,
                ?grace,
                "sockets were still enrolled when the programs went: what they send first has no header"
            );
        }
    }

    pub(super) fn say_what_was_counted(&self) {
        match Snapshot::of(&self.maps) {
            Ok(Snapshot { connections, events, .. }) => tracing::info!(
                connections = snapshot::summary(&connections),
                events = snapshot::summary(&events),
                "counted by the programs since they were loaded"
            ),
            Err(error) => {
                tracing::warn!(error = crate::telemetry::chain(&error), "the counters cannot be read");
            }
        }
    }
}

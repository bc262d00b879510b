//! Watches: a stream of lines, one an event.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::http::status;
use super::kinds::Kind;
use super::path::{Query, Selector};

/// A line of the stream; an error cuts it.
pub(super) type Line = Result<Bytes, std::io::Error>;

pub(super) struct Watch {
    pub kind: Kind,
    pub selector: Selector,
    pub from: u64,
    pub bookmarks: bool,
    pub until: Instant,
}

impl Watch {
    pub(super) fn new(kind: Kind, selector: Selector, query: &Query) -> Self {
        let seconds = query.number("timeoutSeconds").unwrap_or(1800);
        Self {
            kind,
            selector,
            from: query.number("resourceVersion").unwrap_or_default(),
            bookmarks: query.is("allowWatchBookmarks"),
            until: Instant::now() + Duration::from_secs(seconds),
        }
    }

    /// Writes lines until the client goes, the time is over, or a fault ends it.
    pub(super) async fn run(mut self, shared: Arc<Shared>, lines: mpsc::Sender<Line>) {
        let mut newest = shared.newest.subscribe();
        let mut there = shared.there.subscribe();
        let mut sent = 0;
        let mut bookmark = Instant::now() + shared.bookmark_every;
        loop {
            newest.borrow_and_update();
            let faults = shared.faults();
            let (events, seen) = {
                let store = shared.store();
                (store.since(self.kind, self.from), store.version())
            };
            let Ok(events) = events else {
                let gone = status(410, "Expired", &format!("too old resource version: {}", self.from));
                lines.send(Ok(line(&json!({"type": "ERROR", "object": gone})))).await.ok();
                return;
            };
            for event in events {
                self.from = event.version;
                let Some(event) = event.seen(&self.selector) else { continue };
                if let Some(pause) = faults.slow {
                    sleep(pause).await;
                }
                let whole = line(&event);
                if faults.cut_after.is_some_and(|after| sent >= after) {
                    lines.send(Ok(whole.slice(..whole.len() / 2))).await.ok();
                    lines.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.ok();
                    return;
                }
                sent += 1;
                if lines.send(Ok(whole)).await.is_err() {
                    return;
                }
            }
            // What the next bookmark says: not what is there by then, of which something may not have been sent.
            self.from = self.from.max(seen);
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = sleep_until(bookmark), if self.bookmarks => {
                    bookmark = Instant::now() + shared.bookmark_every;
                    if lines.send(Ok(self.bookmark())).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(self.until) => return,
                () = lines.closed() => return,
                () = gone(&mut there) => {
                    lines.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.ok();
                    return;
                }
            }
        }
    }

    fn bookmark(&self) -> Bytes {
        let (api_version, kind, ..) = self.kind.names();
        let meta = json!({"resourceVersion": self.from.to_string(), "creationTimestamp": null});
        line(
            &json!({"type": "BOOKMARK", "object": {"apiVersion": api_version, "kind": kind, "metadata": meta}}),
        )
    }
}

/// Returns when the server is not there any more.
async fn gone(there: &mut tokio::sync::watch::Receiver<bool>) {
    // The server ends with all that runs in it.
    there.wait_for(|there| !there).await.map(drop).ok();
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

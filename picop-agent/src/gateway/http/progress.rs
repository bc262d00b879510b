//! A client's body on its way to the server, watched: whether it still moves.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::client::UnderWay;

/// Of a body that does not come to its end. So many frames no body has.
const BROKEN: u64 = u64::MAX;

/// How many frames have gone. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// The count so far.
    pub fn frames(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the client has broken the body off, or has sent something else.
    pub fn is_broken(&self) -> bool {
        self.frames() == BROKEN
    }
}

/// A body of which each frame is counted. Its client is not idle as long as it lasts.
#[derive(Debug)]
pub struct Watched {
    body: Incoming,
    progress: Progress,
    _under_way: UnderWay,
}

impl Watched {
    /// Counts the frames of `body`.
    pub fn new(body: Incoming, progress: Progress, under_way: UnderWay) -> Self {
        Self { body, progress, _under_way: under_way }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.progress.0.store(BROKEN, Ordering::Relaxed),
            Poll::Ready(_) => drop(self.progress.0.fetch_add(1, Ordering::Relaxed)),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

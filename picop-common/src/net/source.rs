//! tokio's streams, as sources of a head.
use std::io;

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Duration, Instant, timeout_at},
};

use crate::protocol::{HeadSource, READ_SIZE};

/// A tokio stream whose payload is passed on: as much is read at a time as there is.
#[derive(Debug)]
pub struct Source<'a, S>(pub &'a mut S);

impl<S: AsyncRead + Unpin> HeadSource for Source<'_, S> {
    type Deadline = Instant;

    fn after(&self, wait: Duration) -> Instant {
        Instant::now() + wait
    }

    async fn read(&mut self, into: &mut BytesMut, _: usize, by: Instant) -> Option<io::Result<usize>> {
        read(self.0, into, READ_SIZE, by).await
    }
}

/// One whose payload stays where it is: nothing is read that could lie behind a header.
#[derive(Debug)]
pub(super) struct Exact<'a, S>(pub &'a mut S);

impl<S: AsyncRead + Unpin> HeadSource for Exact<'_, S> {
    type Deadline = Instant;

    fn after(&self, wait: Duration) -> Instant {
        Instant::now() + wait
    }

    async fn read(&mut self, into: &mut BytesMut, lacking: usize, by: Instant) -> Option<io::Result<usize>> {
        read(self.0, into, lacking, by).await
    }
}

/// Nothing is lost if it is cancelled: what was read is in `into`.
async fn read(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut BytesMut,
    most: usize,
    by: Instant,
) -> Option<io::Result<usize>> {
    into.reserve(most);
    let mut limited = from.take(u64::try_from(most).unwrap_or(u64::MAX));
    timeout_at(by, limited.read_buf(into)).await.ok()
}

//! The client's side.
use std::io;

use tokio::net::{TcpStream, ToSocketAddrs};

use super::{Stream, current};
use crate::protocol::Context;

/// Connects with the context of this task ([`current`]), or with none.
///
/// # Errors
/// When no address takes the connection.
pub async fn connect(address: impl ToSocketAddrs) -> io::Result<Stream<TcpStream>> {
    connect_with(address, current().as_ref()).await
}

/// Connects with a context. Its header goes with the first bytes that are written, in the same segment, or alone before
/// anything is read: a server that speaks first is not waited for in vain. Flushing the stream sends it at once, after
/// which [`Stream::into_inner`] has the plain socket.
///
/// # Errors
/// When no address takes the connection.
pub async fn connect_with(
    address: impl ToSocketAddrs,
    context: Option<&Context>,
) -> io::Result<Stream<TcpStream>> {
    let io = TcpStream::connect(address).await?;
    if context.is_some() {
        // A header that goes alone must not hold back what comes behind it until it is acknowledged.
        io.set_nodelay(true)?;
    }
    Ok(Stream::dialled(io, context))
}

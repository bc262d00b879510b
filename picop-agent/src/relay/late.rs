//! The relay's sockets, while a silent client's first word is waited for.

use std::io;

use super::{buffers::Buffer, socket::Socket};
use crate::late::{End, Gone};

impl End for &Socket {
    type Source<'a>
        = Self
    where
        Self: 'a;

    fn source(&mut self) -> Self {
        self
    }

    async fn readable(&self) -> io::Result<()> {
        Socket::readable(self).await
    }

    async fn pass_on(&self, client: &mut Self) -> Result<usize, Gone> {
        // Held while there is something to pass on.
        let mut buffer = Buffer::take();
        let count = self.try_recv(&mut buffer).map_err(Gone::Server)?;
        client.send_all(&buffer[..count]).await.map_err(Gone::Client)?;
        Ok(count)
    }
}

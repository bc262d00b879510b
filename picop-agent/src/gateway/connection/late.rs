//! A gateway's streams, while a silent client's first word is waited for.

use std::io;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::Source;
use crate::{
    late::{End, Gone},
    protocol::READ_SIZE,
};

impl End for TcpStream {
    type Source<'a> = Source<'a, Self>;

    fn source(&mut self) -> Source<'_, Self> {
        Source(self)
    }

    async fn readable(&self) -> io::Result<()> {
        Self::readable(self).await
    }

    async fn pass_on(&self, client: &mut Self) -> Result<usize, Gone> {
        let mut bytes = Vec::with_capacity(READ_SIZE);
        let count = self.try_read_buf(&mut bytes).map_err(Gone::Server)?;
        client.write_all(&bytes).await.map_err(Gone::Client)?;
        Ok(count)
    }
}

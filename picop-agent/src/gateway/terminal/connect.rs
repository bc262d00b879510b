//! Standard input and output, connected with a server.

use std::{
    io,
    net::Shutdown,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::TerminalError;
use crate::{
    gateway::{
        args::ConnectArgs,
        pump::{DEFAULT_BUFFER, write_all},
        stream::open,
    },
    protocol::Context,
};

/// How long nothing may come from `input`, once the server has ended its side.
const LAST: Duration = Duration::from_millis(500);

/// Runs until the server has ended its side. The end of `input` becomes a FIN, and what the server says then still comes. If it is
/// the server that ends its side first, it gets what there is of `input`, until that ends or pauses: at a terminal, nobody could
/// tell otherwise that the server has gone.
pub async fn run(
    args: &ConnectArgs,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> Result<(), TerminalError> {
    let context = Context::for_env(&args.env);
    let stream = open(&args.destination, context.wire(), args.connect_timeout).await?;
    // Counted before and after each read: while one is awaited, it is odd.
    let reads = AtomicU64::new(0);
    let (sending, receiving) = (send(&stream, input, &reads), receive(&stream, output));
    tokio::pin!(sending, receiving);
    tokio::select! {
        sent = &mut sending => {
            sent?;
            return receiving.await;
        }
        received = &mut receiving => received?,
    }
    loop {
        let before = reads.load(Ordering::Relaxed);
        tokio::select! {
            sent = &mut sending => return sent,
            () = sleep(LAST) => if before % 2 == 1 && reads.load(Ordering::Relaxed) == before {
                return Ok(());
            },
        }
    }
}

async fn send(
    stream: &TcpStream,
    mut input: impl AsyncRead + Unpin,
    reads: &AtomicU64,
) -> Result<(), TerminalError> {
    let mut buffer = vec![0; DEFAULT_BUFFER];
    loop {
        reads.fetch_add(1, Ordering::Relaxed);
        let count = input.read(&mut buffer).await.map_err(TerminalError::Input)?;
        reads.fetch_add(1, Ordering::Relaxed);
        if count == 0 {
            break;
        }
        if let Err(error) = write_all(stream, &buffer[..count]).await {
            // A server that takes no more may still have something to say, or has had its last word.
            tracing::debug!(%error, "the server takes no more");
            return Ok(());
        }
    }
    match SockRef::from(stream).shutdown(Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(TerminalError::Connection(error)),
        _ => Ok(()),
    }
}

async fn receive(stream: &TcpStream, mut output: impl AsyncWrite + Unpin) -> Result<(), TerminalError> {
    loop {
        stream.readable().await.map_err(TerminalError::Connection)?;
        let mut bytes = Vec::with_capacity(DEFAULT_BUFFER);
        match stream.try_read_buf(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                output.write_all(&bytes).await.map_err(TerminalError::Output)?;
                output.flush().await.map_err(TerminalError::Output)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(TerminalError::Connection(error)),
        }
    }
}

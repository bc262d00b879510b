//! The agent's answers to the canary, and what they prove.

use std::{io, sync::Arc};

use picop_common::addr::Endpoint;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    RELAYED,
    process::{ANSWER, FIRST, SECOND},
};
use crate::{intercept::maps::Maps, protocol::Context};

/// Answers relayed attempts. One that names another destination, or none, gets no answer: the canary tells by itself what
/// it missed.
pub async fn relayed(listener: TcpListener, port: u16, cookie: u64, maps: Arc<Maps>) {
    loop {
        let Ok((mut stream, from)) = listener.accept().await else { continue };
        let original = maps.take_original(cookie, from, port);
        if original.is_ok_and(|o| o.is_some_and(|o| o.destination == Endpoint::from(RELAYED))) {
            drop(stream.write_all(ANSWER).await);
        }
    }
}

/// Answers direct attempts: each of two messages, if the header is in front of the first one and of no other.
pub async fn direct(listener: TcpListener, context: Context) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let context = context.clone();
        tokio::spawn(async move { converse(stream, &context).await });
    }
}

async fn converse(mut stream: TcpStream, context: &Context) -> io::Result<()> {
    expect(&mut stream, &[context.wire(), FIRST].concat()).await?;
    stream.write_all(ANSWER).await?;
    expect(&mut stream, SECOND).await?;
    stream.write_all(ANSWER).await?;
    // Until the canary closes: nothing may come after.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(drop)
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).await?;
    if got == bytes { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

//! Connections that went on with another protocol: websockets, and whatever else both sides agreed on.

use std::io;

use hyper::{Response, body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio_util::task::TaskTracker;

use super::{
    answer::{Answer, RequestLine, switching},
    exclusive::Exclusive,
};
use crate::gateway::Life;

/// Passes the server's 101 on, and then carries bytes both ways until both have ended, as one of a client's `tunnels`.
pub fn tunnel(
    answer: Response<Incoming>,
    client: OnUpgrade,
    server: Box<Exclusive>,
    access: Box<RequestLine>,
    life: &Life,
    tunnels: &TaskTracker,
) -> Answer {
    // It has no body.
    let answer = answer.map(drop);
    let carrying = life.clone();
    tunnels.spawn(async move {
        // All of it, to be dropped here.
        let mut access = access;
        let both = async {
            let (client, server) = tokio::join!(client, server.into_other_protocol());
            let mut client = TokioIo::new(client.map_err(io::Error::other)?);
            let (mut server, first) = server.ok_or(io::ErrorKind::UnexpectedEof)?;
            client.write_all(&first).await?;
            let (up, down) = copy_bidirectional(&mut client, &mut server).await?;
            io::Result::Ok((up, down + u64::try_from(first.len()).unwrap_or(u64::MAX)))
        };
        tokio::select! {
            carried = both => match carried {
                Ok((_, down)) => {
                    access.bytes_down = down;
                    access.outcome = "ok";
                }
                Err(error) => access.error = Some(error.to_string()),
            },
            () = carrying.ended() => access.outcome = "drained",
        }
    });
    switching(answer)
}

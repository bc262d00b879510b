//! Connections that went on with another protocol: websockets, and whatever else both sides agreed on.

use std::{io, sync::Arc};

use hyper::{Response, body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::answer::{Answer, RequestLine, switching};
use crate::gateway::Life;

/// Passes the server's 101 on, and then carries bytes both ways until both have ended, as one of a client's `tunnels`.
pub fn tunnel(
    answer: Response<Incoming>,
    client: OnUpgrade,
    access: Box<RequestLine>,
    life: &Life,
) -> Answer {
    // It has no body.
    let mut answer = answer.map(drop);
    let server = hyper::upgrade::on(&mut answer);
    let carrying = life.clone();
    let client_of = Arc::clone(access.under_way.client());
    client_of.tunnels.spawn(async move {
        // All of it, to be dropped here.
        let mut access = access;
        let lent = access.lent.take();
        let both = async {
            let both = tokio::try_join!(client, server).map_err(io::Error::other);
            // Nothing of HTTP is left there.
            drop(lent);
            let (client, server) = both?;
            copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await
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

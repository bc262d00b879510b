//! One connection of `gateway tcp` and `gateway proxy`: its header, where it goes, and what is carried.

mod late;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::{
    Life,
    line::Line,
    pump::{End, pump},
    stream::{Source, open, reset},
};
use crate::{
    late::{Next, first_word},
    protocol::{Context, EnvId, ExpectHeader, HeadKind, read_head},
    telemetry::{access::Outcome, chain},
};

/// Where a connection goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `host:port`; none is a reset.
    pub destination: Option<Arc<str>>,
    /// The environment that was asked for.
    pub environment: Option<EnvId>,
    /// Where it was named.
    pub env_source: &'static str,
    /// Why it goes there.
    pub reason: &'static str,
    /// What the server is sent first.
    pub header: Option<Context>,
    /// The same, for the access line.
    pub told: &'static str,
    /// How many entries were left out of it, as a header holds no more.
    pub dropped: usize,
}

/// Decides where connections go. Asked once a connection, or twice if its header came late.
pub trait Router: Send + Sync + 'static {
    /// Where one goes that begins with this.
    fn route(&self, context: Option<&Context>) -> Route;
}

/// How connections are served.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether clients send a header.
    pub expect: ExpectHeader,
    /// For a header to be whole.
    pub header_timeout: Duration,
    /// For a server to accept.
    pub connect_timeout: Duration,
    /// Bytes carried at a time.
    pub buffer: usize,
}

/// A connection that ends before it was carried, or does not end in order: reset, and why.
struct Failed(Outcome, Option<String>);

/// Serves one client.
pub async fn serve<R: Router>(
    router: Arc<R>,
    rules: Rules,
    life: Life,
    mut stream: TcpStream,
    peer: SocketAddr,
) {
    let _open = life.metrics().accepted();
    let mut access = Line::new(peer, Arc::clone(life.metrics()));
    let ended = tokio::select! {
        ended = carry(&*router, rules, &mut stream, &mut access) => ended,
        () = life.ended() => Err(Failed(Outcome::Drained, None)),
    };
    match ended {
        Ok(()) => access.end(Outcome::Ok, None),
        Err(Failed(outcome, error)) => {
            reset(&stream);
            access.end(outcome, error);
        }
    }
}

async fn carry<R: Router>(
    router: &R,
    rules: Rules,
    client: &mut TcpStream,
    line: &mut Line,
) -> Result<(), Failed> {
    let mut read = BytesMut::new();
    let head = read_head(&mut Source(client), &mut read, rules.expect, rules.header_timeout)
        .await
        .map_err(|error| Failed(Outcome::BadHeader, Some(chain(&error))))?;
    let mut upstream = go(router, head.context.as_ref(), rules, line).await?;
    if head.why == HeadKind::Silent {
        let (carried, timeout) = (&line.carried.down, rules.header_timeout);
        let word = first_word(client, &upstream, &mut read, carried, timeout).await;
        match word.decide("`--expect-header always`") {
            Next::Stays => {}
            Next::Anew(context) => upstream = go(router, Some(&context), rules, line).await?,
            Next::Ends(outcome, why) => {
                reset(&upstream);
                return Err(Failed(outcome, Some(why)));
            }
        }
    }
    match pump(client, &upstream, read, &line.carried, rules.buffer).await {
        End::Closed => Ok(()),
        End::Client(kind) => {
            reset(&upstream);
            Err(Failed(Outcome::ClientReset, Some(kind.to_string())))
        }
        End::Upstream(kind) => Err(Failed(Outcome::UpstreamReset, Some(kind.to_string()))),
    }
}

/// Decides, and connects.
async fn go<R: Router>(
    router: &R,
    context: Option<&Context>,
    rules: Rules,
    line: &mut Line,
) -> Result<TcpStream, Failed> {
    let route = router.route(context);
    line.environment = route.environment;
    line.env_source = route.env_source;
    line.reason = Some(route.reason);
    line.header = route.told;
    line.dropped = route.dropped;
    let Some(destination) = route.destination else {
        let why = "it has no destination, and there is no --default-addr";
        return Err(Failed(Outcome::Refused, Some(why.to_owned())));
    };
    line.destination = Some(destination.to_string());
    let header = route.header.as_ref().map_or(&[][..], Context::wire);
    open(&destination, header, rules.connect_timeout)
        .await
        .map_err(|error| Failed(Outcome::UpstreamFailed, Some(chain(&error))))
}

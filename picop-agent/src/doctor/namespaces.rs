//! Network namespaces: sockets made in one that no process lives in.

use std::{os::fd::AsFd as _, sync::Arc, thread};

use socket2::{Domain, Protocol, Socket, Type};

use super::check::{Check, Feature, Finding, Spec};
use crate::{
    intercept::netns::{Netns, NetnsId, NetnsThread},
    sys,
    telemetry::chain,
};

const SETNS: Spec = Spec {
    id: "setns",
    what: "sockets in other netns",
    features: &[Feature::Interception, Feature::Relay],
    required: true,
    consequence: "the agent cannot listen, or connect, inside workloads' network namespaces",
};
const COOKIE: Spec = Spec {
    id: "netns_cookie",
    what: "netns cookie",
    features: &[Feature::Interception],
    required: true,
    consequence: "an intercepted connection cannot be told from one of another network namespace",
};

/// What was seen in a fresh namespace: which one the thread was in, and the cookie of a socket made there.
#[derive(Debug)]
struct Seen {
    inside: NetnsId,
    cookie: Result<u64, String>,
}

/// The two checks.
pub async fn checks(netns: Result<&NetnsThread, &str>) -> [Check; 2] {
    let own = Netns::own().map(|netns| netns.id()).map_err(|error| chain(&error));
    let own_cookie = socket_cookie();
    let fresh = fresh();
    let seen = match (netns, &fresh) {
        (Err(why), _) => Err(why.to_owned()),
        (_, Err(why)) => Err(why.clone()),
        (Ok(netns), Ok(fresh)) => enter(netns, Arc::clone(fresh)).await,
    };
    let fresh = fresh.map(|netns| netns.id());
    [SETNS.found(setns(own, fresh, &seen)), COOKIE.found(cookie(&own_cookie, &seen))]
}

/// A namespace that lives as long as its file is open.
fn fresh() -> Result<Arc<Netns>, String> {
    let maker = thread::Builder::new().name("picop-unshare".into()).spawn(|| {
        sys::unshare_network().map_err(|e| format!("cannot make a network namespace to try it with: {e}"))?;
        Netns::own().map(Arc::new).map_err(|error| chain(&error))
    });
    let maker = maker.map_err(|error| format!("cannot start a thread: {error}"))?;
    maker.join().unwrap_or_else(|_| Err("the thread that makes a network namespace panicked".to_owned()))
}

async fn enter(netns: &NetnsThread, fresh: Arc<Netns>) -> Result<Seen, String> {
    let look = || Netns::own().map(|netns| Seen { inside: netns.id(), cookie: socket_cookie() });
    netns.run(fresh, look).await.and_then(|seen| seen).map_err(|error| chain(&error))
}

fn socket_cookie() -> Result<u64, String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP));
    let socket = socket.map_err(|error| format!("cannot make a socket: {error}"))?;
    sys::netns_cookie(socket.as_fd()).map_err(|error| format!("SO_NETNS_COOKIE (Linux 5.14): {error}"))
}

fn setns(
    own: Result<NetnsId, String>,
    fresh: Result<NetnsId, String>,
    seen: &Result<Seen, String>,
) -> Finding {
    match (own, fresh, seen) {
        (_, Err(why), _) | (Err(why), ..) => Finding::unknown(why),
        (_, _, Err(why)) => Finding::missing(why.clone()),
        (Ok(own), Ok(fresh), Ok(_)) if own == fresh => {
            Finding::unknown("the namespace made to try it with is this process's own")
        }
        (_, Ok(fresh), Ok(seen)) if seen.inside == fresh => {
            Finding::ok("setns; a socket made in a fresh namespace")
        }
        _ => Finding::missing("setns succeeded, but left the thread in another namespace"),
    }
}

fn cookie(own: &Result<u64, String>, seen: &Result<Seen, String>) -> Finding {
    match (own, seen.as_ref().map(|seen| &seen.cookie)) {
        (Err(why), _) | (_, Ok(Err(why))) => Finding::missing(why),
        (Ok(own), Ok(Ok(other))) if own == other => {
            Finding::missing(format!("two namespaces have the same cookie, {own}"))
        }
        (Ok(_), Ok(Ok(_))) => Finding::ok("SO_NETNS_COOKIE tells namespaces apart"),
        (Ok(_), Err(_)) => Finding::ok("SO_NETNS_COOKIE is there; not compared with another namespace's"),
    }
}

#[cfg(test)]
mod tests;

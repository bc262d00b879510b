//! A client's connection: who it is, and whether it has requests under way.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use hyper::{Version, header::HeaderValue};
use tokio_util::task::TaskTracker;

/// Who asks.
#[derive(Debug)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// The same, as servers are told it.
    pub told: HeaderValue,
    /// Whether it has spoken TLS.
    pub is_tls: bool,
    /// What its connection went on with.
    pub tunnels: TaskTracker,
    activity: Mutex<Activity>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It has asked for nothing yet.
    New {
        /// When it was accepted.
        since: Instant,
    },
    /// So many of a request's parts, questions and answers, are under way.
    Busy(usize),
    /// It was answered.
    Idle {
        /// When the last answer had ended.
        since: Instant,
    },
    /// It speaks HTTP/2, where pings tell who is gone.
    Http2,
}

impl Client {
    /// One that has nothing but its connection.
    pub fn new(address: SocketAddr, is_tls: bool) -> Self {
        let told = HeaderValue::from_maybe_shared(text(address.ip())).expect("an address is visible ASCII");
        let activity = Mutex::new(Activity::New { since: Instant::now() });
        Self { address, told, is_tls, tunnels: TaskTracker::new(), activity }
    }

    fn locked(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is doing.
    pub fn activity(&self) -> Activity {
        *self.locked()
    }

    /// A request begins, of this version of HTTP.
    pub fn asks(self: &Arc<Self>, version: Version) -> UnderWay {
        let mut activity = self.locked();
        *activity = match *activity {
            _ if version == Version::HTTP_2 => Activity::Http2,
            Activity::Busy(parts) => Activity::Busy(parts + 1),
            Activity::New { .. } | Activity::Idle { .. } => Activity::Busy(1),
            Activity::Http2 => Activity::Http2,
        };
        drop(activity);
        UnderWay { client: Arc::clone(self), ended: None }
    }
}

/// Part of a request, under way until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    client: Arc<Client>,
    ended: Option<Instant>,
}

impl UnderWay {
    /// Who asks.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Says when it ended, for whoever has looked at the clock.
    pub fn ended_at(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

impl Clone for UnderWay {
    fn clone(&self) -> Self {
        if let Activity::Busy(parts) = &mut *self.client.locked() {
            *parts += 1;
        }
        Self { client: Arc::clone(&self.client), ended: None }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut activity = self.client.locked();
        match *activity {
            Activity::Busy(1) => {
                *activity = Activity::Idle { since: self.ended.unwrap_or_else(Instant::now) };
            }
            Activity::Busy(parts) => *activity = Activity::Busy(parts - 1),
            Activity::New { .. } | Activity::Idle { .. } | Activity::Http2 => {}
        }
    }
}

/// An address as text. The formatter takes 900 instructions for what is done here for each connection.
fn text(ip: IpAddr) -> Bytes {
    let IpAddr::V4(ip) = ip else { return ip.to_string().into() };
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for octet in ip.octets() {
        if !text.is_empty() {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_are_written_as_usual(ip in any::<IpAddr>()) {
            prop_assert_eq!(text(ip), ip.to_string());
        }
    }
}

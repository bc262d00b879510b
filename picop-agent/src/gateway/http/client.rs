//! A client's connection: who it is, and whether it has requests under way.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

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
        let told = HeaderValue::from_str(&address.ip().to_string()).expect("an address is visible ASCII");
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
        UnderWay(Arc::clone(self))
    }
}

/// Part of a request, under way until this is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Client>);

impl UnderWay {
    /// Who asks.
    pub fn client(&self) -> &Client {
        &self.0
    }
}

impl Clone for UnderWay {
    fn clone(&self) -> Self {
        if let Activity::Busy(parts) = &mut *self.0.locked() {
            *parts += 1;
        }
        Self(Arc::clone(&self.0))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut activity = self.0.locked();
        match *activity {
            Activity::Busy(1) => *activity = Activity::Idle { since: Instant::now() },
            Activity::Busy(parts) => *activity = Activity::Busy(parts - 1),
            Activity::New { .. } | Activity::Idle { .. } | Activity::Http2 => {}
        }
    }
}

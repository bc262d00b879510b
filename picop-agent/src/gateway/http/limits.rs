//! Time limits of many requests, all of one length.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// The most timers that are kept for the next request.
const KEPT: usize = 1024;

/// Where timers are kept. One that is set to a later time than before costs the runtime next to nothing, while one that
/// is made, put in its place and taken out of it for each request does.
#[derive(Debug)]
pub struct Limits {
    length: Duration,
    spare: Mutex<Vec<Pin<Box<Sleep>>>>,
}

/// A time limit, which began when it was made.
#[derive(Debug)]
pub struct Limit<'a> {
    limits: &'a Limits,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Limits {
    /// Of this length.
    pub fn new(length: Duration) -> Self {
        Self { length, spare: Mutex::default() }
    }

    /// How long each is.
    pub fn length(&self) -> Duration {
        self.length
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Pin<Box<Sleep>>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one.
    pub fn begin(&self) -> Limit<'_> {
        let spare = self.spare().pop();
        let is_spare = spare.is_some();
        let mut limit =
            Limit { limits: self, timer: Some(spare.unwrap_or_else(|| Box::pin(sleep(self.length)))) };
        if is_spare {
            limit.again();
        }
        limit
    }
}

impl Limit<'_> {
    /// Begins anew.
    pub fn again(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + self.limits.length);
        }
    }

    /// Whether it has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            let mut spare = self.limits.spare();
            if spare.len() < KEPT {
                spare.push(timer);
            }
        }
    }
}

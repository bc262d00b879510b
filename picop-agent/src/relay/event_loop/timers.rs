//! Timers, which are nothing until they are waited for.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::EventLoop;

/// A moment, and which of those who wait for it.
type Name = (Instant, u64);

#[derive(Debug, Default)]
pub(super) struct Timers {
    waiting: RefCell<BTreeMap<Name, Waker>>,
    next: Cell<u64>,
}

impl Timers {
    /// When the first of them is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((when, _), _)| *when)
    }

    /// Wakes those that are due.
    pub(super) fn fire(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(first) = waiting.first_entry() else { return };
        let now = Instant::now();
        if first.key().0 > now {
            return;
        }
        while let Some(first) = waiting.first_entry().filter(|first| first.key().0 <= now) {
            first.remove().wake();
        }
    }
}

/// Completes at a moment.
#[derive(Debug)]
pub struct Sleep {
    until: Instant,
    waits: Option<(Rc<EventLoop>, Name)>,
}

/// Completes after a while.
pub fn sleep(time: Duration) -> Sleep {
    Sleep::until(Instant::now() + time)
}

impl Sleep {
    /// Completes then.
    pub fn until(until: Instant) -> Self {
        Self { until, waits: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let home = match &self.waits {
            // Another task may wait for it now; its time has not changed.
            Some((home, name)) => match home.timers.waiting.borrow_mut().get_mut(name) {
                Some(waker) => {
                    waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
                None => return Poll::Ready(()),
            },
            None if self.until <= Instant::now() => return Poll::Ready(()),
            None => EventLoop::here(),
        };
        let name = (self.until, home.timers.next.replace(home.timers.next.get() + 1));
        home.timers.waiting.borrow_mut().insert(name, cx.waker().clone());
        self.waits = Some((home, name));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((home, name)) = &self.waits {
            home.timers.waiting.borrow_mut().remove(name);
        }
    }
}

/// What was waited for did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// A future's result, unless the moment comes first.
pub async fn timeout<F: Future>(until: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(Sleep::until(until));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

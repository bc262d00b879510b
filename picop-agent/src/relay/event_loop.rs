//! The loop that a data thread runs: tasks, the descriptors they wait for, timers, and the way in for other threads.
//!
//! Why not tokio's runtime here, as everywhere else: a short connection is some fifteen system calls, and the kernel's share
//! of them is given. What was left to save was around them. Here a socket is registered once, edge-triggered and for all
//! it may be waited for, and leaves epoll with its close; whom to wake is known without a search or a lock, as a connection is one
//! task, on one thread; a timer is nothing until it is waited for. What futures ask of a runtime is little, and small enough to
//! be read here.
//!
//! Nothing of it is `Send`, but for the [`Mailbox`].

mod mailbox;
mod poller;
mod tasks;
mod timers;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

pub use mailbox::{LocalFuture, Mailbox};
pub use poller::{Mode, READABLE, Ready, Source, WRITABLE};
pub use timers::{Sleep, sleep, timeout};

use mailbox::Message;
use poller::Poller;
use tasks::Tasks;
use timers::Timers;

thread_local! {
    static HERE: RefCell<Option<Rc<EventLoop>>> = const { RefCell::new(None) };
}

/// The loop of one thread.
#[derive(Debug)]
pub struct EventLoop {
    poller: Poller,
    tasks: Tasks,
    timers: Timers,
    mailbox: Arc<Mailbox>,
    stopped: Cell<bool>,
}

impl EventLoop {
    /// A loop with nothing to do, and how to give it something.
    pub fn new(mailbox: Arc<Mailbox>) -> io::Result<Rc<Self>> {
        let poller = Poller::new(&mailbox)?;
        let (tasks, timers) = (Tasks::new(Arc::clone(&mailbox)), Timers::default());
        Ok(Rc::new(Self { poller, tasks, timers, mailbox, stopped: Cell::new(false) }))
    }

    /// Works on this thread until it is told to stop; then drops the tasks that are left.
    pub fn run(self: &Rc<Self>) -> io::Result<()> {
        HERE.set(Some(Rc::clone(self)));
        let result = self.work();
        self.tasks.clear();
        HERE.set(None);
        result
    }

    fn work(&self) -> io::Result<()> {
        let mut events = Poller::events();
        while !self.stopped.get() {
            self.tasks.run();
            let patience = if self.tasks.are_ready() { Some(Instant::now()) } else { self.timers.next() };
            if self.poller.wait(&mut events, patience)? {
                for message in self.mailbox.take() {
                    self.obey(message);
                }
            }
            self.timers.fire();
        }
        Ok(())
    }

    fn obey(&self, message: Message) {
        match message {
            Message::Spawn(begin) => self.tasks.spawn(begin()),
            Message::Wake(task) => self.tasks.wake(task),
            Message::WakeAll => self.tasks.wake_all(),
            Message::Stop => self.stopped.set(true),
        }
    }

    /// The one that runs on this thread.
    fn here() -> Rc<Self> {
        HERE.with_borrow(Option::clone).expect("called from a task of an event loop")
    }
}

/// Begins a task on this thread's loop.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    EventLoop::here().tasks.spawn(Box::pin(future));
}

/// Runs a loop on this thread, for one future.
#[cfg(test)]
pub fn block_on<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
    let event_loop = EventLoop::new(Arc::clone(&mailbox)).expect("an epoll");
    let result = Rc::new(RefCell::new(None));
    let into = Rc::clone(&result);
    event_loop.tasks.spawn(Box::pin(async move {
        let value = future.await;
        into.replace(Some(value));
        mailbox.stop();
    }));
    event_loop.run().expect("an event loop");
    result.take().expect("a result")
}

#[cfg(test)]
mod tests;

//! Tasks, and whose turn it is.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use super::{
    HERE,
    mailbox::{LocalFuture, Mailbox, Message},
};

/// A task's place, and how many had it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    index: usize,
    generation: u64,
}

#[derive(Debug)]
pub(super) struct Tasks {
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<usize>>,
    ready: RefCell<VecDeque<Key>>,
    /// Those that have just been added, and whose turn comes before that of others.
    begun: RefCell<VecDeque<Key>>,
    generation: Cell<u64>,
    mailbox: Arc<Mailbox>,
}

#[derive(Default)]
struct Place {
    generation: u64,
    /// None while it runs, and of a place that is free.
    task: Option<Task>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("generation", &self.generation).finish_non_exhaustive()
    }
}

struct Task {
    future: LocalFuture,
    waker: Waker,
    bell: Arc<Bell>,
}

/// What a waker rings.
struct Bell {
    key: Key,
    /// Whether it is its turn already.
    rung: AtomicBool,
    mailbox: Arc<Mailbox>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_here = HERE.with_borrow(|here| {
            let here = here.as_ref().filter(|here| Arc::ptr_eq(&here.mailbox, &self.mailbox));
            here.map(|here| here.tasks.ready.borrow_mut().push_back(self.key)).is_some()
        });
        if !is_here {
            self.mailbox.send(Message::Wake(self.key));
        }
    }
}

impl Tasks {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self {
            places: RefCell::default(),
            free: RefCell::default(),
            ready: RefCell::default(),
            begun: RefCell::default(),
            generation: Cell::new(0),
            mailbox,
        }
    }

    /// Adds a task, whose turn is next.
    pub(super) fn spawn(&self, future: LocalFuture) {
        let generation = self.generation.get();
        self.generation.set(generation + 1);
        let mut places = self.places.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            places.push(Place::default());
            places.len() - 1
        });
        let key = Key { index, generation };
        let bell = Arc::new(Bell { key, rung: AtomicBool::new(true), mailbox: Arc::clone(&self.mailbox) });
        let task = Task { future, waker: Waker::from(Arc::clone(&bell)), bell };
        places[index] = Place { generation, task: Some(task) };
        self.begun.borrow_mut().push_back(key);
    }

    /// Gives those their turn that wait for one now, and those that begin meanwhile; not those that are woken.
    pub(super) fn run(&self) {
        let mut turns = self.ready.borrow().len();
        while let Some(key) = self.next(&mut turns) {
            let Some(mut task) = self.take(key) else { continue };
            // Before it looks: what happens from here on is another turn.
            task.bell.rung.store(false, Ordering::Release);
            let poll = || task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
            let is_pending = match catch_unwind(AssertUnwindSafe(poll)) {
                Ok(poll) => poll.is_pending(),
                // The panic has been told of. A connection's sockets close with its task; the others go on.
                Err(_) => false,
            };
            if is_pending {
                self.places.borrow_mut()[key.index].task = Some(task);
            } else {
                // Its end may begin others.
                drop(task);
                self.free.borrow_mut().push(key.index);
            }
        }
    }

    fn next(&self, turns: &mut usize) -> Option<Key> {
        if let Some(begun) = self.begun.borrow_mut().pop_front() {
            return Some(begun);
        }
        *turns = turns.checked_sub(1)?;
        self.ready.borrow_mut().pop_front()
    }

    fn take(&self, key: Key) -> Option<Task> {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(key.index).filter(|place| place.generation == key.generation)?;
        place.task.take()
    }

    /// Whether somebody waits for a turn.
    pub(super) fn are_ready(&self) -> bool {
        !self.ready.borrow().is_empty() || !self.begun.borrow().is_empty()
    }

    /// It is a task's turn, somebody elsewhere says.
    pub(super) fn wake(&self, key: Key) {
        self.ready.borrow_mut().push_back(key);
    }

    /// It is everybody's turn.
    pub(super) fn wake_all(&self) {
        for place in &*self.places.borrow() {
            if let Some(task) = &place.task {
                task.waker.wake_by_ref();
            }
        }
    }

    /// Drops all of them.
    pub(super) fn clear(&self) {
        let places = std::mem::take(&mut *self.places.borrow_mut());
        drop(places);
        self.ready.borrow_mut().clear();
        self.begun.borrow_mut().clear();
    }
}

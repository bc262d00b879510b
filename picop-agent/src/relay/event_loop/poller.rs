//! Descriptors that tasks wait for.
//!
//! A descriptor is registered once, and leaves epoll when it is closed: no system call changes or ends a registration. An event
//! names the place of its [`Source`]; places are used again, so it names the place's generation too.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};

use super::{EventLoop, Mailbox};

/// Events taken at a time.
const EVENTS: usize = 256;
/// Names the mailbox.
const MAILBOX: u64 = u64::MAX;

/// What a descriptor is known to be ready for, as epoll names it.
pub type Ready = EventFlags;

/// How often an event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A socket that carries data: once, when something has come or it has ended; and when there is room, if it is waited for.
    Stream,
    /// A listener: as long as somebody waits there to be accepted. So nobody needs to ask whether there is another one.
    Listener,
}

/// Not room to write: nearly every socket has some when it is registered, and each would be told of at once.
const STREAM: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// An end of the stream, or an error: not taken back by reading.
const ENDED: Ready = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
/// Reading does not wait.
pub const READABLE: Ready = EventFlags::IN.union(ENDED);
/// Writing does not wait.
pub const WRITABLE: Ready = EventFlags::OUT.union(EventFlags::HUP).union(EventFlags::ERR);

#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    places: RefCell<Places>,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    ready: Ready,
    /// Of the one task that waits here.
    waker: Option<Waker>,
}

impl Poller {
    #[cfg(test)]
    pub(super) fn is_ready(&self, index: u32, what: Ready) -> bool {
        self.places.borrow().all[index as usize].ready.intersects(what)
    }

    /// Room for events.
    pub(super) fn events() -> Vec<epoll::Event> {
        Vec::with_capacity(EVENTS)
    }

    pub(super) fn new(mailbox: &Mailbox) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // Edge-triggered: each telling is an event, and what was written is never read.
        epoll::add(&epoll, mailbox, EventData::new_u64(MAILBOX), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, places: RefCell::default() })
    }

    /// Waits for events, until then at most, and wakes whom they concern. Says whether there is mail. `events` is empty
    /// before and after.
    pub(super) fn wait(&self, events: &mut Vec<epoll::Event>, until: Option<Instant>) -> io::Result<bool> {
        let timeout = until.map(patience);
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut mail = false;
        let mut places = self.places.borrow_mut();
        for event in events.drain(..) {
            match event.data.u64() {
                MAILBOX => mail = true,
                name => places.happened(name, event.flags),
            }
        }
        Ok(mail)
    }
}

fn name(index: u32, generation: u32) -> EventData {
    EventData::new_u64(u64::from(generation) << 32 | u64::from(index))
}

/// In whole milliseconds, as every kernel knows them, and not less than it takes.
fn patience(until: Instant) -> Timespec {
    let left = until.saturating_duration_since(Instant::now());
    let millis = i64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX).min(60_000);
    Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
}

impl Places {
    fn happened(&mut self, name: u64, flags: EventFlags) {
        let (index, generation) = (name & 0xffff_ffff, name >> 32);
        let place = usize::try_from(index).ok().and_then(|index| self.all.get_mut(index));
        // What was closed after the kernel had told of it has nobody any more.
        if let Some(place) = place.filter(|place| u64::from(place.generation) == generation) {
            place.ready |= flags;
            if let Some(waker) = &place.waker {
                waker.wake_by_ref();
            }
        }
    }

    fn take(&mut self) -> (u32, u32) {
        if let Some(index) = self.free.pop() {
            return (index, self.all[index as usize].generation);
        }
        let index = u32::try_from(self.all.len()).expect("fewer descriptors than that");
        self.all.push(Place { generation: 0, ready: Ready::empty(), waker: None });
        (index, 0)
    }

    fn give_back(&mut self, index: u32) {
        let place = &mut self.all[index as usize];
        // Never that of the mailbox's name.
        place.generation = (place.generation + 1) & 0x7fff_ffff;
        place.ready = Ready::empty();
        place.waker = None;
        self.free.push(index);
    }
}

/// A registered descriptor, on the loop it was registered with. One task at a time may wait for it.
///
/// The descriptor is to be closed after this is dropped, or it goes on waking nobody.
#[derive(Debug)]
pub struct Source {
    home: Rc<EventLoop>,
    pub(super) index: u32,
}

impl Source {
    /// Registers a descriptor with this thread's loop.
    pub fn new(descriptor: impl AsFd, mode: Mode) -> io::Result<Self> {
        let flags = match mode {
            Mode::Stream => STREAM,
            Mode::Listener => EventFlags::IN,
        };
        let home = EventLoop::here();
        let (index, generation) = home.poller.places.borrow_mut().take();
        let source = Self { home, index };
        epoll::add(&source.home.poller.epoll, descriptor, name(index, generation), flags)?;
        Ok(source)
    }

    /// What of this the descriptor is ready for; pending while it is nothing.
    pub fn poll(&self, cx: &Context<'_>, wanted: Ready) -> Poll<Ready> {
        let place = &mut self.home.poller.places.borrow_mut().all[self.index as usize];
        let ready = place.ready & wanted;
        if !ready.is_empty() {
            return Poll::Ready(ready);
        }
        match &mut place.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Has it told of when there is room to write, now and from here on.
    pub fn watch_room(&self, descriptor: impl AsFd) -> io::Result<()> {
        let generation = self.home.poller.places.borrow().all[self.index as usize].generation;
        let name = name(self.index, generation);
        Ok(epoll::modify(&self.home.poller.epoll, descriptor, name, STREAM | EventFlags::OUT)?)
    }

    /// Ends the registration of a descriptor that stays open.
    pub fn remove(self, descriptor: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.home.poller.epoll, descriptor)?)
    }

    /// That it is ready no more, until the next event.
    pub fn clear(&self, what: Ready) {
        self.home.poller.places.borrow_mut().all[self.index as usize].ready -= what;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.home.poller.places.borrow_mut().give_back(self.index);
    }
}

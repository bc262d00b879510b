//! The agent's side of grafted connections: their slots, and the sockets enrolled for them. How a graft works is told in
//! `picop_common::graft`.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Map, MapData, Queue, SkStorage, SockHash};
use picop_common::{
    graft::{DOWN, Direction, OFF, SLOT_OF_ENDED, SLOTS, Slot, Target, UP, Why},
    maps::Original,
};

use super::{
    heartbeat::now_ns,
    maps::{MapSource, MapsError},
};
use crate::{sys, sys::SharedWords, telemetry::chain};

/// Words of a slot.
const WORDS: usize = size_of::<Slot>() / size_of::<u64>();
/// A slot that was taken so long ago and that no agent knows of was a connection that was never accepted.
const LOST_NS: u64 = 30_000_000_000;

/// All slots, and the maps of sockets.
pub struct Grafts {
    memory: SharedWords,
    _array: MapData,
    free: Mutex<Queue<MapData, u32>>,
    sources: Mutex<SockHash<MapData, u64>>,
    targets: Mutex<SockHash<MapData, u64>>,
    target_of: Mutex<SkStorage<MapData, Target>>,
}

impl std::fmt::Debug for Grafts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grafts")
    }
}

/// A direction, by the names of `picop_common::graft`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Client to server: the target is the upstream socket.
    Up,
    /// Server to client: the target is the accepted socket.
    Down,
}

/// What became of the messages of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes redirected.
    pub redirected: u64,
    /// Messages redirected.
    pub redirects: u64,
    /// Bytes passed to the agent.
    pub passed: u64,
    /// Messages passed, by [`Why`].
    pub passes: [u64; Why::COUNT],
}

impl Counts {
    /// Where they are in a [`Direction`], in order.
    fn offsets() -> impl Iterator<Item = usize> {
        let passes = (0..Why::COUNT).map(|why| offset_of!(Direction, passes) + why * size_of::<u64>());
        [offset_of!(Direction, redirected), offset_of!(Direction, redirects), offset_of!(Direction, passed)]
            .into_iter()
            .chain(passes)
    }

    fn add(&mut self, other: &Self) {
        self.redirected += other.redirected;
        self.redirects += other.redirects;
        self.passed += other.passed;
        for (own, other) in self.passes.iter_mut().zip(other.passes) {
            *own += other;
        }
    }
}

impl Grafts {
    /// Takes the maps out of their source.
    pub fn take(source: &mut impl MapSource) -> Result<Self, MapsError> {
        let Map::Array(array) = source.map("SLOTS")? else {
            return Err(MapsError::Missing { name: "SLOTS", source: None });
        };
        let memory = SharedWords::map(array.fd().as_fd(), (SLOTS + 1) * WORDS)
            .map_err(|source| MapsError::Share { name: "SLOTS", source })?;
        Ok(Self {
            memory,
            _array: array,
            free: Mutex::new(super::maps::take(source, "FREE_SLOTS")?),
            sources: Mutex::new(super::maps::take(source, "SOURCES")?),
            targets: Mutex::new(super::maps::take(source, "TARGETS")?),
            target_of: Mutex::new(super::maps::take(source, "TARGET_OF")?),
        })
    }

    /// Makes all slots free, before the first connection is accepted: for the agent, not for who only looks. What a predecessor grafted has ended with its sockets; a client that still names a slot finds
    /// that it is no more its source.
    pub fn reset(&self) -> Result<(), MapsError> {
        let mut free = lock(&self.free);
        while free.pop(0).is_ok() {}
        for slot in 0..SLOTS {
            self.clear(slot);
            let slot = u32::try_from(slot).expect("SLOTS fits");
            free.push(slot, 0).map_err(|source| MapsError::Write { name: "FREE_SLOTS", source })?;
        }
        Ok(())
    }

    /// What became of the messages of all connections since the programs were loaded: up, and down. Read through shared memory.
    pub fn totals(&self) -> (Counts, Counts) {
        let mut sums = (Counts::default(), Counts::default());
        for slot in 0..=SLOTS {
            sums.0.add(&self.counts(slot, Side::Up));
            sums.1.add(&self.counts(slot, Side::Down));
        }
        sums
    }

    fn counts(&self, slot: usize, side: Side) -> Counts {
        let at = |offset: usize| self.direction_word(slot, side, offset).load(Ordering::Acquire);
        Counts {
            redirected: at(offset_of!(Direction, redirected)),
            redirects: at(offset_of!(Direction, redirects)),
            passed: at(offset_of!(Direction, passed)),
            passes: std::array::from_fn(|why| at(offset_of!(Direction, passes) + why * size_of::<u64>())),
        }
    }

    /// Sources first: what is cleared later is nobody's by then. Its counts join those of the ended.
    fn clear(&self, slot: usize) {
        for side in [Side::Up, Side::Down] {
            self.direction_word(slot, side, offset_of!(Direction, source)).store(0, Ordering::SeqCst);
        }
        for side in [Side::Up, Side::Down] {
            for offset in Counts::offsets() {
                let count = self.direction_word(slot, side, offset).swap(0, Ordering::AcqRel);
                if count > 0 {
                    self.direction_word(SLOT_OF_ENDED, side, offset).fetch_add(count, Ordering::Relaxed);
                }
            }
        }
        for word in 0..WORDS {
            self.memory.word(slot * WORDS + word).store(0, Ordering::Release);
        }
    }

    fn word(&self, slot: usize, offset: usize) -> &AtomicU64 {
        self.memory.word(slot * WORDS + offset / size_of::<u64>())
    }

    fn direction_word(&self, slot: usize, side: Side, offset: usize) -> &AtomicU64 {
        let base = match side {
            Side::Up => offset_of!(Slot, up),
            Side::Down => offset_of!(Slot, down),
        };
        self.word(slot, base + offset)
    }

    /// The slot of an accepted connection, if its client is enrolled.
    pub fn claim(self: &Arc<Self>, original: &Original) -> Option<Ticket> {
        let slot = usize::from(original.graft.checked_sub(1)?);
        if slot >= SLOTS {
            return None;
        }
        self.word(slot, offset_of!(Slot, owned)).store(1, Ordering::Release);
        Some(Ticket { grafts: Arc::clone(self), slot, client: original.client_cookie })
    }

    /// How many slots are taken. Read through shared memory, so it costs no system call.
    pub fn taken(&self) -> usize {
        let taken = |slot: &usize| self.word(*slot, offset_of!(Slot, taken_ns)).load(Ordering::Relaxed) != 0;
        (0..SLOTS).filter(taken).count()
    }

    /// Frees the slots of connections that were never accepted. To be called now and then.
    pub fn sweep(&self) -> usize {
        let now = now_ns();
        let lost = |slot: &usize| {
            let taken = self.word(*slot, offset_of!(Slot, taken_ns)).load(Ordering::Acquire);
            let owned = self.word(*slot, offset_of!(Slot, owned)).load(Ordering::Acquire);
            taken != 0 && owned == 0 && now.saturating_sub(taken) > LOST_NS
        };
        (0..SLOTS).filter(lost).map(|slot| self.release(slot)).count()
    }

    fn release(&self, slot: usize) {
        self.clear(slot);
        let slot = u32::try_from(slot).expect("SLOTS fits");
        if let Err(error) = lock(&self.free).push(slot, 0) {
            tracing::error!(error = chain(&error), slot, "a slot for grafts is lost");
        }
    }

    /// Takes a socket out of the map of sources; one that is not there is as good as taken out.
    fn leave(&self, cookie: u64) {
        match super::maps::removed(lock(&self.sources).remove(&cookie)) {
            Ok(()) => {}
            Err(error) => tracing::error!(error = chain(&error), "a socket cannot leave its graft"),
        }
    }

    /// The map of sources, to try this kernel with.
    pub fn sources(&self) -> MutexGuard<'_, SockHash<MapData, u64>> {
        lock(&self.sources)
    }
}

/// A relayed connection whose client is enrolled. Gives the slot back when dropped.
#[derive(Debug)]
pub struct Ticket {
    grafts: Arc<Grafts>,
    slot: usize,
    client: u64,
}

impl Ticket {
    /// Prepares an upstream socket, before it connects.
    pub fn upstream(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let cookie = sys::socket_cookie(socket)?;
        let slot = u32::try_from(self.slot).map_err(io::Error::other)?;
        let target = Target { cookie, slot, side: UP, expect: 1, ..Target::default() };
        lock(&self.grafts.target_of).insert(&socket, target, 0).map_err(io::Error::other)?;
        self.word(Side::Up, offset_of!(Direction, acked)).store(0, Ordering::Release);
        self.word(Side::Up, offset_of!(Direction, target)).store(cookie, Ordering::Release);
        Ok(())
    }

    /// Lets messages be redirected into a socket.
    pub fn enrol_target(&self, side: Side, socket: BorrowedFd<'_>) -> io::Result<()> {
        let cookie = sys::socket_cookie(socket)?;
        if self.target(side).load(Ordering::Acquire) != cookie {
            // Its acknowledgements are not followed.
            return Err(io::Error::other("the socket is not the one that was announced"));
        }
        lock(&self.grafts.targets).insert(cookie, socket.as_raw_fd(), 0).map_err(io::Error::other)
    }

    /// Has the client leave the map, at once: there will be no graft.
    pub fn refuse(self) {
        self.end();
        self.grafts.leave(self.client);
    }

    /// Has both sources stop.
    pub fn end(&self) {
        for side in [Side::Up, Side::Down] {
            self.state(side).store(OFF, Ordering::SeqCst);
        }
    }

    /// What became of a direction's messages so far.
    pub fn counts(&self, side: Side) -> Counts {
        self.grafts.counts(self.slot, side)
    }

    /// Cookie of the enrolled source; 0 for none.
    pub fn source(&self, side: Side) -> u64 {
        self.word(side, offset_of!(Direction, source)).load(Ordering::Acquire)
    }

    /// [`Direction::state`].
    pub fn state(&self, side: Side) -> &AtomicU64 {
        self.word(side, offset_of!(Direction, state))
    }

    /// [`Direction::target`].
    pub fn target(&self, side: Side) -> &AtomicU64 {
        self.word(side, offset_of!(Direction, target))
    }

    /// [`Direction::relayed`].
    pub fn relayed(&self, side: Side) -> &AtomicU64 {
        self.word(side, offset_of!(Direction, relayed))
    }

    /// [`Direction::relay_overhead`].
    pub fn relay_overhead(&self, side: Side) -> &AtomicU64 {
        self.word(side, offset_of!(Direction, relay_overhead))
    }

    /// [`Direction::offset`].
    pub fn offset(&self, side: Side) -> &AtomicU64 {
        self.word(side, offset_of!(Direction, offset))
    }

    /// [`Direction::acked`].
    pub fn acked(&self, side: Side) -> &AtomicU64 {
        self.word(side, offset_of!(Direction, acked))
    }

    fn word(&self, side: Side, offset: usize) -> &AtomicU64 {
        self.grafts.direction_word(self.slot, side, offset)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end();
        self.grafts.release(self.slot);
    }
}

const _: () = assert!(UP == 0 && DOWN == 1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // As in `maps`: each change is one system call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The agent's view of the slots in which the kernel remembers what sockets were connected for. It only looks.

use std::{mem::offset_of, os::fd::AsFd as _, sync::atomic::Ordering};

use aya::maps::{Map, MapData};
use picop_common::maps::{FLOW_SLOTS_MAX, Flow, FlowSlot};

use super::maps::{MapSource, MapsError};
use crate::sys::SharedWords;

const NAME: &str = "FLOW_SLOTS";
/// Words of a slot.
const WORDS: usize = size_of::<FlowSlot>() / size_of::<u64>();
const OWNER: usize = offset_of!(FlowSlot, owner) / size_of::<u64>();

/// All slots.
#[derive(Debug)]
pub struct FlowSlots {
    memory: SharedWords,
    _array: MapData,
}

impl FlowSlots {
    /// Takes the map out of its source.
    pub fn take(source: &mut impl MapSource) -> Result<Self, MapsError> {
        let Map::Array(array) = source.map(NAME)? else {
            return Err(MapsError::Missing { name: NAME, source: None });
        };
        let memory = SharedWords::map(array.fd().as_fd(), FLOW_SLOTS_MAX * WORDS)
            .map_err(|source| MapsError::Share { name: NAME, source })?;
        Ok(Self { memory, _array: array })
    }

    /// How many are taken.
    pub fn count(&self) -> usize {
        (0..FLOW_SLOTS_MAX).filter(|slot| self.owner(*slot) != 0).count()
    }

    /// What is remembered of the socket with this cookie, if it has a slot.
    pub fn of(&self, cookie: u64) -> Option<Flow> {
        let slot = usize::try_from(cookie % FLOW_SLOTS_MAX as u64).ok()?;
        if self.owner(slot) != cookie {
            return None;
        }
        let mut bytes = [0; size_of::<FlowSlot>()];
        for (word, bytes) in bytes.chunks_exact_mut(size_of::<u64>()).enumerate() {
            let word = self.memory.word(slot * WORDS + word).load(Ordering::Acquire);
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        // It may be somebody else's by now, or in part.
        if self.owner(slot) != cookie {
            return None;
        }
        FlowSlot::from_bytes(&bytes).map(|slot| slot.flow)
    }

    fn owner(&self, slot: usize) -> u64 {
        self.memory.word(slot * WORDS + OWNER).load(Ordering::Acquire)
    }
}

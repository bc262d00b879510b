//! Which environment has which destination.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};

use crate::{gateway::args::destination, protocol::EnvId};

/// The most environments. Whoever tells more of them has lost count.
pub const MAX: usize = 1_000_000;

/// An environment and its destination, as the admin API has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Which.
    pub env_id: EnvId,
    /// `host:port`.
    pub destination: String,
}

/// An entry is refused, and with it all that came with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It is no JSON of the right form.
    #[error("the body is no list of {{\"env_id\", \"destination\"}}: {0}")]
    Form(String),
    /// A field is not there, or empty.
    #[error("entry {at} has no {field}")]
    Missing {
        /// Which entry, from 0.
        at: usize,
        /// Which field.
        field: &'static str,
    },
    /// A field says nothing that can be used.
    #[error("entry {at}: {why}")]
    Bad {
        /// Which entry, from 0.
        at: usize,
        /// Why.
        why: String,
    },
    /// There would be too many.
    #[error("there would be more than {MAX} environments; delete those that are gone")]
    Full,
}

/// As it comes: the reference tells a missing field from an empty one as little as this.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    env_id: Option<String>,
    destination: Option<String>,
}

/// Reads entries, all or none.
pub fn read(body: &[u8]) -> Result<Vec<Entry>, EntryError> {
    let raw: Vec<Raw> = serde_json::from_slice(body).map_err(|error| EntryError::Form(error.to_string()))?;
    raw.into_iter().enumerate().map(|(at, raw)| entry(at, raw)).collect()
}

fn entry(at: usize, raw: Raw) -> Result<Entry, EntryError> {
    let there = |value: Option<String>, field| {
        value.filter(|value| !value.is_empty()).ok_or(EntryError::Missing { at, field })
    };
    let env_id = there(raw.env_id, "env_id")?;
    let to = there(raw.destination, "destination")?;
    let env_id = EnvId::new(&env_id).map_err(|why| EntryError::Bad { at, why: why.to_string() })?;
    let destination = destination(&to).map_err(|why| EntryError::Bad { at, why })?;
    Ok(Entry { env_id, destination })
}

/// The destinations in effect. New ones are for new connections.
#[derive(Debug, Default)]
pub struct Table(RwLock<HashMap<EnvId, Arc<str>>>);

impl Table {
    /// Where an environment's connections go.
    pub fn get(&self, environment: &str) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(environment).cloned()
    }

    /// Adds these, or puts them in the place of those of the same environment; of two for the same one, the last counts.
    ///
    /// # Errors
    /// When there would be too many; nothing is changed then.
    pub fn put(&self, entries: Vec<Entry>) -> Result<(), EntryError> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if table.len() + entries.len() > MAX {
            return Err(EntryError::Full);
        }
        table.extend(entries.into_iter().map(|entry| (entry.env_id, entry.destination.into())));
        Ok(())
    }

    /// Takes one out; whether it was there.
    pub fn delete(&self, environment: &str) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(environment).is_some()
    }
}

#[cfg(test)]
mod tests;

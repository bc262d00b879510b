//! The keys and values that travel with a connection.
use std::{collections::BTreeMap, sync::Arc};

use crate::header::{Detected, ENV_ID, EncodeError, Field, Header, MAX_LEN, detect, encode};

use super::{EnvId, EnvIdError, baggage};

const BAGGAGE: &str = "baggage";
const TRACESTATE: &str = "tracestate";

/// A connection's context: a PiCoP header, and the environment it names.
///
/// A clone costs two reference counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// A whole header.
    wire: Arc<[u8]>,
    env: Env,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Env {
    None,
    Named(EnvId, EnvSource),
    Rejected(EnvIdError),
}

/// Where in a context its environment is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvSource {
    /// Its `Env-Id`.
    Header,
    /// The member `env-id` of its `baggage`; looked at only when `Env-Id` is missing or empty.
    Baggage,
}

/// Why a workload's keys make no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnContextError {
    /// They would not fit.
    #[error("a header holds 255 bytes, and these keys take more; shorten or remove {key}")]
    TooLong {
        /// The longest.
        key: String,
    },
    /// One is no key.
    #[error("{key:?} is no key of a header: letters, digits and dashes, please")]
    Key {
        /// Which.
        key: String,
    },
    /// One is the environment's.
    #[error("{key} is the environment's key; write `environment:` instead")]
    Environment {
        /// As written.
        key: String,
    },
}

/// What [`Context::with_env`] or [`Context::of_fields`] left out to make room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Entries at the end of `baggage`.
    pub baggage: usize,
    /// Entries at the end of `tracestate`.
    pub tracestate: usize,
    /// Whole lines of other keys, or of keys that no header may have.
    pub lines: usize,
}

impl Dropped {
    /// Whether everything is still there.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Context {
    /// The context a client sent.
    pub fn from_header(header: &Header<'_>) -> Self {
        Self { wire: header.wire().into(), env: find_env(header) }
    }

    /// The context of a connection of which nothing but its environment is known.
    pub fn for_env(env: &EnvId) -> Self {
        Self::encoded(vec![Field::new(ENV_ID, env.as_str())], env).0
    }

    /// The context of these keys and values, less what does not fit (see [`Context::with_env`]) and keys that no header may
    /// have. None if nothing is left.
    pub fn of_fields(fields: Vec<Field<'_>>) -> (Option<Self>, Dropped) {
        let (wire, dropped) = fitted(fields);
        match detect(&wire) {
            Detected::Header(header) if !header.body().is_empty() => {
                let env = find_env(&header);
                (Some(Self { wire, env }), dropped)
            }
            _ => (None, dropped),
        }
    }

    /// The context of everything a workload says by itself: its environment and its own keys. None if it says nothing.
    ///
    /// # Errors
    /// When a header cannot hold it; nothing is dropped, as this is configuration, not traffic.
    pub fn for_workload(
        env: Option<&EnvId>,
        keys: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, OwnContextError> {
        if env.is_none() && keys.is_empty() {
            return Ok(None);
        }
        if let Some(key) = keys.keys().find(|key| key.eq_ignore_ascii_case(ENV_ID)) {
            return Err(OwnContextError::Environment { key: key.clone() });
        }
        let own = env.map(|env| Field::new(ENV_ID, env.as_str()));
        let mut fields: Vec<_> =
            own.into_iter().chain(keys.iter().map(|(key, value)| Field::new(key, value))).collect();
        let mut out = [0; MAX_LEN];
        let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let len = encode(&mut fields, &mut out).map_err(|error| match error {
            EncodeError::TooLong { key, .. } => OwnContextError::TooLong { key: name(key) },
            EncodeError::InvalidKey { key } => OwnContextError::Key { key: name(key) },
        })?;
        let env = env.map_or(Env::None, |env| Env::Named(env.clone(), EnvSource::Header));
        Ok(Some(Self { wire: out[..len].into(), env }))
    }

    /// The environment it names. None too if it names one by something that is no name: see [`Context::rejected_env`].
    pub fn env_id(&self) -> Option<EnvId> {
        self.env().map(|(env, _)| env.clone())
    }

    /// The environment, and where it is named.
    pub fn env(&self) -> Option<(&EnvId, EnvSource)> {
        match &self.env {
            Env::Named(env, source) => Some((env, *source)),
            Env::None | Env::Rejected(_) => None,
        }
    }

    /// Why what stands in the environment's place is not taken for one.
    pub fn rejected_env(&self) -> Option<&EnvIdError> {
        match &self.env {
            Env::Rejected(why) => Some(why),
            Env::None | Env::Named(..) => None,
        }
    }

    /// The header to send: what the client sent, to the byte, if nothing was added.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The first value of `key`, in any case.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.fields().find(|field| field.is(key)).map(|field| field.value)
    }

    /// The same context with `Env-Id: env`. One whose `Env-Id` names an environment already stays as it is.
    ///
    /// If a header does not hold it all, entries are dropped from the end of `baggage`, then from that of `tracestate`,
    /// then the longest lines.
    pub fn with_env(&self, env: &EnvId) -> (Self, Dropped) {
        if let Env::Named(_, EnvSource::Header) = self.env {
            return (self.clone(), Dropped::default());
        }
        let kept = self.fields().filter(|field| !field.is(ENV_ID) && !field.is_blank());
        Self::encoded(kept.chain([Field::new(ENV_ID, env.as_str())]).collect(), env)
    }

    /// `fields`, one of which is `env`'s, as a context; what does not fit is dropped.
    fn encoded(fields: Vec<Field<'_>>, env: &EnvId) -> (Self, Dropped) {
        let (wire, dropped) = fitted(fields);
        (Self { wire, env: Env::Named(env.clone(), EnvSource::Header) }, dropped)
    }

    /// Its keys and values, in the order of the header.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let header = match detect(&self.wire) {
            Detected::Header(header) => Some(header),
            Detected::Partial { .. } | Detected::Other(_) => None,
        };
        header.into_iter().flat_map(|header| header.fields())
    }
}

/// A header of `fields`, less what does not fit.
fn fitted(mut fields: Vec<Field<'_>>) -> (Arc<[u8]>, Dropped) {
    let mut out = [0; MAX_LEN];
    let mut dropped = Dropped::default();
    // Ends: every round takes something away, and nothing at all fits, as does an environment's name alone.
    let len = loop {
        match encode(&mut fields, &mut out) {
            Ok(len) => break len,
            Err(EncodeError::InvalidKey { key }) => drop_lines(&mut fields, key, &mut dropped),
            Err(EncodeError::TooLong { key, .. }) => {
                let made_room = drop_entry(&mut fields, BAGGAGE, &mut dropped.baggage)
                    || drop_entry(&mut fields, TRACESTATE, &mut dropped.tracestate);
                if !made_room {
                    drop_lines(&mut fields, key, &mut dropped);
                }
            }
        }
    };
    (out[..len].into(), dropped)
}

fn find_env(header: &Header<'_>) -> Env {
    let (name, source) = match header.env_id() {
        Some(name) => (EnvId::from_bytes(name), EnvSource::Header),
        None => match baggage::environment(header.fields().filter(|f| f.is(BAGGAGE)).map(|f| f.value)) {
            Some(name) => (EnvId::from_bytes(&name), EnvSource::Baggage),
            None => return Env::None,
        },
    };
    match name {
        Ok(env) => Env::Named(env, source),
        Err(why) => Env::Rejected(why),
    }
}

/// Takes the last entry off the last `key` line, and the line with it if it was its only one. False if there is no line.
/// `count` does not count an entry that is empty (a comma at the end).
fn drop_entry(fields: &mut Vec<Field<'_>>, key: &str, count: &mut usize) -> bool {
    let Some(at) = fields.iter().rposition(|field| field.is(key)) else {
        return false;
    };
    let value = fields[at].value;
    let comma = value.iter().rposition(|byte| *byte == b',');
    let entry = &value[comma.map_or(0, |comma| comma + 1)..];
    *count += usize::from(!entry.trim_ascii().is_empty());
    match comma {
        Some(comma) => fields[at].value = &value[..comma],
        None => drop(fields.remove(at)),
    }
    true
}

fn drop_lines(fields: &mut Vec<Field<'_>>, key: &[u8], dropped: &mut Dropped) {
    let before = fields.len();
    fields.retain(|field| field.key != key);
    dropped.lines += before - fields.len();
}

#[cfg(test)]
mod tests;

//! Bodies of requests.
use serde::{Deserialize, de::DeserializeOwned};

use super::super::{
    names::{BadValue, Destination, Endpoint, EnvName, ProxyId},
    store::{Route, RouteKey},
};

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadBody {
    #[error("the body is not JSON of the right shape: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("route {number}: {why}")]
    Route {
        /// Counted from 1.
        number: usize,
        why: BadValue,
    },
}

/// All of them are asked for here, so that a missing one is told by name. Others are passed over, as the reference does.
#[derive(Deserialize)]
struct Registration {
    endpoint: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    proxy_id: Option<String>,
    env_id: Option<String>,
    destination: Option<String>,
}

fn there(field: &'static str, value: Option<String>) -> Result<String, BadValue> {
    value.ok_or(BadValue::Missing(field))
}

impl Entry {
    fn key(self) -> Result<RouteKey, BadValue> {
        let proxy = ProxyId::new(there("proxy_id", self.proxy_id)?)?;
        Ok(RouteKey { proxy, env: EnvName::new(there("env_id", self.env_id)?)? })
    }

    fn route(mut self) -> Result<Route, BadValue> {
        let destination = self.destination.take();
        let key = self.key()?;
        Ok(Route { key, destination: Destination::new(there("destination", destination)?)? })
    }
}

/// A proxy's place.
pub(super) fn endpoint(body: &[u8]) -> Result<Endpoint, BadBody> {
    let Registration { endpoint } = parsed(body)?;
    Ok(Endpoint::new(there("endpoint", endpoint)?)?)
}

/// Routes to be set.
pub(super) fn routes(body: &[u8]) -> Result<Vec<Route>, BadBody> {
    list(body, Entry::route)
}

/// Routes to be removed. Where they lead is of no matter.
pub(super) fn keys(body: &[u8]) -> Result<Vec<RouteKey>, BadBody> {
    list(body, Entry::key)
}

fn list<T>(body: &[u8], read: fn(Entry) -> Result<T, BadValue>) -> Result<Vec<T>, BadBody> {
    let entries: Vec<Entry> = parsed(body)?;
    let read = |(index, entry)| read(entry).map_err(|why| BadBody::Route { number: index + 1, why });
    entries.into_iter().enumerate().map(read).collect()
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadBody> {
    Ok(serde_json::from_slice(body)?)
}

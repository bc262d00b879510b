//! Services, and whether the kernel has the same.

use std::collections::HashMap;

use picop_common::{
    addr::Endpoint,
    route::{Route, RouteKey},
};
use serde::{Deserialize, Serialize};

use crate::{
    admin::{api::ApiError, state::State},
    intercept::{canary, table},
    route::{Base, Endpoints, Fallback, GraftPolicy, HeaderPolicy, Service as Routed},
};

/// The services in effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Routes {
    /// Their version.
    pub version: u64,
    /// In the order of their source.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub addresses: Vec<String>,
    /// What its servers are told.
    pub header: HeaderPolicy,
    /// What becomes of connections whose variant has nothing ready.
    pub fallback: Fallback,
    /// Whether relayed connections are grafted.
    pub graft: GraftPolicy,
    /// Its default backends; none where it is the address itself.
    pub base: Option<Vec<Backend>>,
    /// Its backends by environment.
    pub variants: Vec<(String, Vec<Backend>)>,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// Where it is.
    pub address: String,
    /// Its share of the connections is this by the sum of all.
    pub weight: u32,
}

/// Answers `routes`.
pub fn all(state: &State) -> Routes {
    let table = state.routes.load();
    Routes {
        version: table.version(),
        services: table.services().iter().map(|service| described(service)).collect(),
    }
}

fn described(service: &Routed) -> Service {
    let mut variants: Vec<_> =
        service.variants.iter().map(|(environment, it)| (environment.to_string(), backends(it))).collect();
    variants.sort_by(|(a, _), (b, _)| a.cmp(b));
    Service {
        name: service.name.clone(),
        addresses: service.addresses.iter().map(ToString::to_string).collect(),
        header: service.header,
        fallback: service.fallback,
        graft: service.graft,
        base: match &service.base {
            Base::Itself => None,
            Base::Endpoints(endpoints) => Some(backends(endpoints)),
        },
        variants,
    }
}

fn backends(endpoints: &Endpoints) -> Vec<Backend> {
    endpoints.iter().map(|it| Backend { address: it.address.to_string(), weight: it.weight.get() }).collect()
}

/// Whether the kernel's table is the agent's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The version compared.
    pub version: u64,
    /// Entries that should be there.
    pub expected: usize,
    /// Entries that are there.
    pub found: usize,
    /// Whether they are the same.
    pub same: bool,
    /// What differs, at most a few of them.
    pub differences: Vec<String>,
}

/// Differences that are told.
const TOLD: usize = 20;

/// Answers `routes/verify`: reads every entry of the kernel's table.
pub fn verify(state: &State) -> Result<Verified, ApiError> {
    let table = state.routes.load();
    let expected = table::entries(&table).map_err(ApiError::failed)?;
    let mut found =
        state.maps.routes_in_effect().and_then(|routes| routes.all()).map_err(ApiError::failed)?;
    // The canary's own services are no routes.
    let fixed = [canary::RELAYED, canary::DIRECT].map(Endpoint::from);
    found.retain(|key, _| !fixed.contains(&key.address));
    if state.routes.load().version() != table.version() {
        return Err(ApiError::Asked("the routes have just changed; ask again".to_owned()));
    }
    Ok(compared(table.version(), expected, found))
}

fn compared(version: u64, expected: Vec<(RouteKey, Route)>, mut found: HashMap<RouteKey, Route>) -> Verified {
    let mut verified =
        Verified { version, expected: expected.len(), found: found.len(), ..Verified::default() };
    let mut differences = 0_usize;
    let mut differs = |text: String| {
        differences += 1;
        if differences <= TOLD {
            verified.differences.push(text);
        }
    };
    for (key, route) in expected {
        match found.remove(&key) {
            Some(there) if there == route => {}
            Some(there) => differs(format!("{}: {there:?} instead of {route:?}", name(&key))),
            None => differs(format!("{} is missing", name(&key))),
        }
    }
    for key in found.keys() {
        differs(format!("{} is too many", name(key)));
    }
    if differences > TOLD {
        verified.differences.push(format!("and {} more", differences - TOLD));
    }
    verified.same = differences == 0;
    verified
}

fn name(key: &RouteKey) -> String {
    let address = std::net::SocketAddr::from(key.address);
    format!("entry {} of {address} in environment {:#x}", key.slot, key.environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told() {
        let address = Endpoint::from("10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap());
        let key = |slot| RouteKey::new(7, address, slot);
        let route = |count| Route { count, ..Route::default() };
        let expected = vec![(key(0), route(1)), (key(1), route(1)), (key(2), route(1))];
        let same = compared(3, expected.clone(), expected.iter().copied().collect());
        assert!(same.same && same.differences.is_empty() && same.found == 3);
        let found = [(key(0), route(1)), (key(1), route(2)), (key(3), route(1))].into_iter().collect();
        let other = compared(3, expected, found);
        assert!(!other.same);
        let told = other.differences.join("\n");
        for part in
            ["entry 1 of 10.0.0.1:80", "entry 2 of 10.0.0.1:80 in environment 0x7 is missing", "entry 3"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}

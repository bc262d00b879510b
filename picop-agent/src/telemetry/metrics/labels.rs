//! Bounded labels: a cluster has more services and environments than a time series database wants to hear of from each node.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// What names beyond the limits are counted under.
pub const OVERFLOW: &str = "(other)";

/// Most names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pairs of service and environment.
    pub pairs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pairs: 2000 }
    }
}

/// The names that have been counted under.
#[derive(Debug)]
pub struct Labels {
    limits: Limits,
    known: RwLock<Known>,
    overflows: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    names: HashSet<Arc<str>>,
    pairs: HashMap<Arc<str>, HashSet<Arc<str>>>,
    count: usize,
}

impl Labels {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, known: RwLock::default(), overflows: AtomicU64::new(0) }
    }

    /// What to count a service and an environment under: their names, if there is room for them. Who came first stays.
    pub fn of(&self, service: &str, environment: &str) -> (Arc<str>, Arc<str>) {
        if let Some(known) =
            self.known.read().unwrap_or_else(PoisonError::into_inner).find(service, environment)
        {
            return known;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.find(service, environment) {
            return known;
        }
        if known.count >= self.limits.pairs {
            self.overflows.fetch_add(1, Ordering::Relaxed);
            return (OVERFLOW.into(), OVERFLOW.into());
        }
        let pair = (known.intern(service), known.intern(environment));
        known.pairs.entry(Arc::clone(&pair.0)).or_default().insert(Arc::clone(&pair.1));
        known.count += 1;
        pair
    }

    /// How often there was no room.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }
}

impl Known {
    fn find(&self, service: &str, environment: &str) -> Option<(Arc<str>, Arc<str>)> {
        let (service, environments) = self.pairs.get_key_value(service)?;
        Some((Arc::clone(service), Arc::clone(environments.get(environment)?)))
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_late_is_counted_with_the_others() {
        let labels = Labels::new(Limits { pairs: 2 });
        let of = |service, environment| {
            let (service, environment) = labels.of(service, environment);
            format!("{service}/{environment}")
        };
        assert_eq!(of("cart", "pr-1"), "cart/pr-1");
        assert_eq!(of("cart", ""), "cart/");
        assert_eq!(of("cart", "pr-2"), "(other)/(other)");
        assert_eq!(of("cart", "pr-1"), "cart/pr-1");
        assert_eq!(labels.overflows(), 1);
    }
}

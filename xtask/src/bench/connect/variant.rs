//! What is compared.

use anyhow::{Result, ensure};

/// A way for a connection to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Client and server in cgroups no program is attached to: the yardstick.
    None,
    /// The same again.
    NoneAgain,
    /// Of a managed workload, to an address that is no service.
    Passthrough,
    /// Of a workload of one environment, to a service whose servers are sent no header.
    DirectStrip,
    /// The same, to a service whose servers are sent the header.
    DirectPropagate,
    /// From where nothing of picop's is, and every socket enters a sockhash: what the mechanism costs that the header takes.
    Floor,
    /// Of a workload that sends headers of its own, to a service whose servers are sent none.
    Relay,
    /// As [`DirectStrip`](Self::DirectStrip), under an agent that is watched: see [`WATCHED`].
    DirectWatched,
    /// As [`Relay`](Self::Relay), the same.
    RelayWatched,
    /// As [`DirectStrip`](Self::DirectStrip), under an agent that has so many variants loaded: of one service, or of many,
    /// each connection to another one.
    Flat(Size),
}

/// How much is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    pub services: u16,
    /// Variants of each.
    pub environments: u16,
}

impl Size {
    /// Variants in all.
    pub fn variants(self) -> u32 {
        u32::from(self.services) * u32::from(self.environments)
    }
}

/// The yardstick, and the agent's paths.
const PATHS: [Variant; 7] = [
    Variant::None,
    Variant::NoneAgain,
    Variant::Passthrough,
    Variant::DirectStrip,
    Variant::Floor,
    Variant::DirectPropagate,
    Variant::Relay,
];

/// Under an agent whose metrics are fetched every second and whose traces go to a collector: every relayed connection's, and
/// those of one direct one in a hundred. Each beside the same under an agent that nobody watches.
pub const WATCHED: [(Variant, Variant); 2] =
    [(Variant::DirectWatched, Variant::DirectStrip), (Variant::RelayWatched, Variant::Relay)];

/// Small to large: the first is what the others are compared with.
pub const SIZES: [Size; 3] = [
    Size { services: 1, environments: 1 },
    Size { services: 100, environments: 10 },
    Size { services: 10_000, environments: 10 },
];

impl Variant {
    /// As in the report.
    pub fn name(self) -> String {
        match self {
            Self::None => "none".into(),
            Self::NoneAgain => "none-again".into(),
            Self::Passthrough => "passthrough".into(),
            Self::DirectStrip => "direct-strip".into(),
            Self::DirectPropagate => "direct-propagate".into(),
            Self::Floor => "sockhash-floor".into(),
            Self::Relay => "relay".into(),
            Self::DirectWatched => "direct-strip-watched".into(),
            Self::RelayWatched => "relay-watched".into(),
            Self::Flat(size) => format!("direct-strip-{}", size.variants()),
        }
    }

    /// Whether the client begins with a header.
    pub fn sends_header(self) -> bool {
        matches!(self, Self::Relay | Self::RelayWatched)
    }

    /// Whether the server is to get one.
    pub fn brings_header(self) -> bool {
        self == Self::DirectPropagate
    }
}

/// The variants to measure, the yardstick first.
pub fn chosen(flat: bool, watched: bool, only: &[String]) -> Result<Vec<Variant>> {
    let mut variants = PATHS.to_vec();
    if watched {
        variants.extend(WATCHED.map(|(variant, _)| variant));
    }
    if flat {
        variants.extend(SIZES.map(Variant::Flat));
    }
    let names: Vec<_> = variants.iter().map(|v| v.name()).collect();
    for name in only {
        ensure!(names.contains(name), "there is no variant {name}; there are {}", names.join(", "));
    }
    variants.retain(|v| *v == Variant::None || only.is_empty() || only.contains(&v.name()));
    Ok(variants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yardstick_is_always_the_first() {
        let names = |flat, only: &[&str]| {
            let only: Vec<_> = only.iter().map(|n| (*n).to_owned()).collect();
            chosen(flat, false, &only).map(|chosen| chosen.into_iter().map(Variant::name).collect::<Vec<_>>())
        };
        assert_eq!(names(false, &["relay"]).expect("a variant"), ["none", "relay"]);
        let all = names(true, &[]).expect("all");
        assert_eq!((all.len(), &*all[0], &*all[9]), (10, "none", "direct-strip-100000"));
        assert!(names(false, &["direct-strip-1"]).is_err());
        let watched = chosen(false, true, &[]).expect("all");
        assert!(WATCHED.iter().all(|(one, other)| watched.contains(one) && watched.contains(other)));
    }
}

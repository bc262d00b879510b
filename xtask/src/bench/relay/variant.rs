//! What is compared.

use anyhow::{Result, ensure};

use super::turn::Kind;

/// A way for a connection to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Straight to the server: the yardstick.
    None,
    /// The same again.
    NoneAgain,
    /// By picop's relay, which carries all bytes itself.
    Relay,
    /// As [`Relay`](Self::Relay), by an agent whose metrics are fetched every second and whose traces are taken.
    RelayWatched,
    /// By picop's relay, which leaves as many bytes as it can to the kernel.
    Graft,
    /// nginx's stream module.
    NginxStream,
    /// HAProxy, of its mode for TCP.
    Haproxy,
    /// The same, told to splice whatever it can. (`option splice-auto` leaves it to HAProxy, which then never does.)
    HaproxySplice,
    /// Envoy's `tcp_proxy`.
    Envoy,
    /// A program that accepts, connects, passes on and closes, and nothing else: what no proxy can do without. Not a peer: nobody
    /// could use it.
    Floor,
}

impl Variant {
    /// All that are measured if nothing else is asked for, the yardstick first.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::NoneAgain,
        Self::Relay,
        Self::Graft,
        Self::NginxStream,
        Self::Haproxy,
        Self::HaproxySplice,
        Self::Envoy,
        Self::Floor,
    ];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoneAgain => "none-again",
            Self::Relay => "relay",
            Self::RelayWatched => "relay-watched",
            Self::Graft => "graft",
            Self::NginxStream => "nginx-stream",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Envoy => "envoy",
            Self::Floor => "relay-floor",
        }
    }

    /// Whether it is picop: its clients send the header, and ask for an address that only picop knows.
    pub fn is_picop(self) -> bool {
        matches!(self, Self::Relay | Self::RelayWatched | Self::Graft)
    }

    /// Whether it is one of those that picop is compared with.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::NginxStream | Self::Haproxy | Self::HaproxySplice | Self::Envoy)
    }

    /// Whether it is a program of its own between client and server.
    pub fn listens(self) -> bool {
        self.is_peer() || self == Self::Floor
    }

    /// Whether it can do that. The floor holds nothing back, so that it carries no streams.
    pub fn does(self, kind: Kind) -> bool {
        self != Self::Floor || matches!(kind, Kind::Connections { .. } | Kind::Requests { .. })
    }

    /// What `graft` of its service says, where picop knows that key.
    pub fn graft(self) -> Option<&'static str> {
        match self {
            Self::Relay | Self::RelayWatched => Some("never"),
            Self::Graft => Some("always"),
            _ => None,
        }
    }
}

/// The variants that were asked for, the yardstick first.
pub fn chosen(watched: bool, only: &[String]) -> Result<Vec<Variant>> {
    let mut variants = Variant::ALL.to_vec();
    if watched {
        variants.push(Variant::RelayWatched);
    }
    let names: Vec<_> = variants.iter().map(|v| v.name()).collect();
    for name in only {
        ensure!(names.contains(&&**name), "there is no variant {name}; there are {}", names.join(", "));
    }
    variants.retain(|v| *v == Variant::None || only.is_empty() || only.iter().any(|name| name == v.name()));
    Ok(variants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yardstick_is_always_the_first() {
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|n| (*n).to_owned()).collect();
            chosen(false, &only).map(|chosen| chosen.into_iter().map(Variant::name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["envoy", "relay"]).expect("variants"), ["none", "relay", "envoy"]);
        assert_eq!(names(&[]).expect("all").len(), Variant::ALL.len());
        assert!(names(&["traefik"]).is_err());
        let watched = chosen(true, &["relay".to_owned(), "relay-watched".to_owned()]).expect("variants");
        assert_eq!(watched, [Variant::None, Variant::Relay, Variant::RelayWatched]);
    }

    #[test]
    fn every_variant_is_the_yardstick_or_picop_or_a_peer() {
        for variant in Variant::ALL.into_iter().chain([Variant::RelayWatched]) {
            let direct = matches!(variant, Variant::None | Variant::NoneAgain);
            let between = u8::from(variant.is_picop()) + u8::from(variant.listens());
            assert_eq!(1, u8::from(direct) + between);
            assert_eq!(variant.graft().is_some(), variant.is_picop());
        }
    }
}

//! What can be between client and servers.

use anyhow::{Result, ensure};

use super::super::peer::Kind;

/// A way for a request to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Straight to the server: the yardstick.
    None,
    /// The same again.
    NoneAgain,
    /// From a workload that belongs to the environment: the kernel routes.
    Direct,
    /// From a workload that says the environment in a PiCoP header: the agent relays.
    Relay,
    /// The same, with the payload carried past the agent.
    Graft,
    /// Through one HAProxy, which routes by an HTTP header.
    Haproxy,
    /// Through one Envoy, which routes by an HTTP header.
    Envoy,
    /// Through an Envoy of the service's own, beside its server, which routes by an HTTP header.
    Sidecars,
}

impl Variant {
    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoneAgain => "none-again",
            Self::Direct => "picop-direct",
            Self::Relay => "picop-relay",
            Self::Graft => "picop-graft",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Sidecars => "envoy-per-service",
        }
    }

    /// Whether picop routes it: its clients are workloads, and ask for an address that only picop knows.
    pub fn is_picop(self) -> bool {
        matches!(self, Self::Direct | Self::Relay | Self::Graft)
    }

    /// Whether its clients begin each connection with a PiCoP header.
    pub fn sends_header(self) -> bool {
        matches!(self, Self::Relay | Self::Graft)
    }

    /// The program in between, if it is none of picop's.
    pub fn proxy(self) -> Option<Kind> {
        match self {
            Self::Haproxy => Some(Kind::Haproxy),
            Self::Envoy | Self::Sidecars => Some(Kind::Envoy),
            Self::None | Self::NoneAgain | Self::Direct | Self::Relay | Self::Graft => None,
        }
    }

    /// The cgroup of its clients, below the one that the agent is attached to.
    pub fn workload(self) -> Option<&'static str> {
        match self {
            Self::Direct => Some("direct"),
            Self::Relay | Self::Graft => Some("relay"),
            _ => None,
        }
    }

    /// Those of `all` that were asked for; the yardstick always.
    pub fn chosen(all: &[Self], only: &[String]) -> Result<Vec<Self>> {
        let names: Vec<_> = all.iter().map(|v| v.name()).collect();
        for name in only {
            ensure!(names.contains(&&**name), "there is no variant {name}; there are {}", names.join(", "));
        }
        let wanted =
            |v: &Self| *v == Self::None || only.is_empty() || only.iter().any(|name| name == v.name());
        Ok(all.iter().copied().filter(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yardstick_is_always_there() {
        let all = [Variant::None, Variant::Relay, Variant::Envoy];
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|n| (*n).to_owned()).collect();
            Variant::chosen(&all, &only)
        };
        assert_eq!(names(&["envoy"]).expect("a variant"), [Variant::None, Variant::Envoy]);
        assert_eq!(names(&[]).expect("all"), all);
        assert!(names(&["haproxy"]).is_err(), "not of this suite");
    }
}

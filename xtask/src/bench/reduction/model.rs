//! How many containers it takes.
//!
//! An application is a chain of services, each of which every request passes. One environment is the base; each of the others
//! changes some services, and which ones is spread evenly. All environments have the same share of the requests. A container
//! may use so much CPU and memory, and there are as many as it takes to stay at or under a share of that.

use serde::{Deserialize, Serialize};

/// Measured costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// At so many requests a second.
    pub rate: u32,
    /// CPU time of a service for a request.
    pub service_us: f64,
    /// Of a service's own proxy.
    pub proxy_us: f64,
    /// Its memory.
    pub proxy_bytes: u64,
    /// CPU time that a request takes more of client, server and kernel, beside the proxy's own; the same of the other two.
    pub proxy_beside_us: f64,
    /// Of the agent, where it relays.
    pub relay_us: f64,
    pub relay_beside_us: f64,
    /// Where the kernel routes. The agent itself has nothing to do then.
    pub direct_beside_us: f64,
    /// Share of a CPU that an agent takes with nothing to do.
    pub agent_idle: f64,
    pub agent_bytes: u64,
}

/// What there is to run, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub services: u32,
    /// Of them, those that an environment (other than the base) has of its own.
    pub changed: u32,
    /// CPUs of a container.
    pub cpu_limit: f64,
    /// Bytes of a container.
    pub memory_limit: u64,
    /// The share of its CPU that a container is scaled out at.
    pub cpu_target: f64,
    /// Containers of services on a node.
    pub per_node: u32,
}

/// How environments are provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Each has all services of its own.
    Apart,
    /// They share what they do not change; a proxy in front of each service routes.
    Proxies,
    /// The same; an agent on each node relays every connection.
    Relay,
    /// The same; the kernel routes, told by an agent on each node.
    Direct,
}

/// Containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub services: u64,
    /// Proxies, or agents. An agent that takes more than a container may counts as several.
    pub network: u64,
}

impl Count {
    /// All of them.
    pub fn all(self) -> u64 {
        self.services + self.network
    }
}

impl Scheme {
    /// In the order of the report.
    pub const ALL: [Self; 4] = [Self::Apart, Self::Proxies, Self::Relay, Self::Direct];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::Proxies => "shared, a proxy for each service",
            Self::Relay => "shared, picop relays",
            Self::Direct => "shared, picop direct",
        }
    }

    /// How many containers so many environments take at so many requests a second together.
    pub fn count(self, environments: u32, rate: f64, costs: &Costs, shape: &Shape) -> Count {
        let each = rate / f64::from(environments.max(1));
        let service =
            |rate: f64, beside_us: f64| shape.containers(rate * (costs.service_us + beside_us) / 1e6, 0);
        let shared = |beside_us: f64| {
            let others = f64::from(environments.saturating_sub(1));
            let changed = f64::from(shape.changed) / f64::from(shape.services);
            let base =
                u64::from(shape.services) * service(each * (1.0 + others * (1.0 - changed)), beside_us);
            let own = u64::from(environments.saturating_sub(1))
                * u64::from(shape.changed)
                * service(each, beside_us);
            base + own
        };
        // All requests pass the network once for each service.
        let passing = rate * f64::from(shape.services);
        let agents = |services: u64, us: f64| {
            let nodes = services.div_ceil(u64::from(shape.per_node)).max(1);
            let cpu = costs.agent_idle + passing * us / 1e6 / float(nodes);
            nodes * shape.containers(cpu, costs.agent_bytes)
        };
        match self {
            Self::Apart => Count {
                services: u64::from(environments) * u64::from(shape.services) * service(each, 0.0),
                network: 0,
            },
            Self::Proxies => Count {
                services: shared(costs.proxy_beside_us),
                network: u64::from(shape.services)
                    * shape.containers(rate * costs.proxy_us / 1e6, costs.proxy_bytes),
            },
            Self::Relay => {
                let services = shared(costs.relay_beside_us);
                Count { services, network: agents(services, costs.relay_us) }
            }
            Self::Direct => {
                let services = shared(costs.direct_beside_us);
                Count { services, network: agents(services, 0.0) }
            }
        }
    }
}

impl Shape {
    /// Containers that take so much CPU together, each with so much memory: at least one. What does not fit the memory of
    /// one takes as many as would have it.
    fn containers(&self, cpu: f64, bytes: u64) -> u64 {
        let room = self.cpu_limit * self.cpu_target;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of containers")]
        // What comes of rounding alone is no container.
        let by_cpu = (cpu / room - 1e-9).ceil().max(1.0) as u64;
        by_cpu * bytes.div_ceil(self.memory_limit).max(1)
    }
}

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container of a service carries 80 requests a second, one of a proxy 40, and of agents 160.
    const COSTS: Costs = Costs {
        rate: 1000,
        service_us: 1000.0,
        proxy_us: 2000.0,
        proxy_bytes: 64 << 20,
        proxy_beside_us: 0.0,
        relay_us: 500.0,
        relay_beside_us: 0.0,
        direct_beside_us: 0.0,
        agent_idle: 0.0,
        agent_bytes: 32 << 20,
    };
    const SHAPE: Shape = Shape {
        services: 10,
        changed: 1,
        cpu_limit: 0.1,
        memory_limit: 128 << 20,
        cpu_target: 0.8,
        per_node: 110,
    };

    fn count(scheme: Scheme, environments: u32, rate: f64) -> Count {
        scheme.count(environments, rate, &COSTS, &SHAPE)
    }

    #[test]
    fn one_environment_shares_with_nobody() {
        // 80 a second fill one container of each service, and not two.
        assert_eq!(count(Scheme::Apart, 1, 80.0), Count { services: 10, network: 0 });
        assert_eq!(count(Scheme::Apart, 1, 81.0), Count { services: 20, network: 0 });
        assert_eq!(count(Scheme::Proxies, 1, 80.0), Count { services: 10, network: 20 });
        // 800 times 500 us a second, by containers of 80 ms.
        assert_eq!(count(Scheme::Relay, 1, 80.0), Count { services: 10, network: 5 });
        assert_eq!(count(Scheme::Direct, 1, 80.0), Count { services: 10, network: 1 });
    }

    #[test]
    fn environments_apart_take_all_services_each() {
        assert_eq!(count(Scheme::Apart, 100, 100.0).services, 1000, "one request a second each");
        assert_eq!(count(Scheme::Apart, 10, 1000.0).services, 10 * 10 * 2, "100 a second each");
    }

    #[test]
    fn environments_that_share_take_what_they_change() {
        // Base: 1 + 99 x 0.9 of 100 shares of one request a second each: 90.1 a second, two containers a service.
        assert_eq!(count(Scheme::Direct, 100, 100.0), Count { services: 10 * 2 + 99, network: 2 });
        let proxies = count(Scheme::Proxies, 100, 100.0);
        assert_eq!(proxies, Count { services: 119, network: 10 * 3 });
    }

    #[test]
    fn sharing_takes_fewer_services_but_for_what_rounding_adds() {
        for environments in [1, 2, 3, 7, 10, 50, 100, 1000] {
            for rate in [1.0, 10.0, 100.0, 1000.0, 10_000.0] {
                let apart = count(Scheme::Apart, environments, rate);
                for scheme in [Scheme::Proxies, Scheme::Relay, Scheme::Direct] {
                    let shared = count(scheme, environments, rate);
                    let said = format!("{scheme:?} {environments} {rate}: {shared:?} {apart:?}");
                    // 95 requests a second take two containers together, and one each of 50 and 45.
                    assert!(shared.services <= apart.services + u64::from(SHAPE.services), "{said}");
                    assert!(environments < 5 || shared.services < apart.services, "{said}");
                    assert!(shared.network >= 1, "{said}");
                }
            }
        }
    }

    #[test]
    fn with_everything_changed_nothing_is_shared() {
        let shape = Shape { changed: 10, ..SHAPE };
        let shared = Scheme::Direct.count(20, 200.0, &COSTS, &shape);
        let apart = Scheme::Apart.count(20, 200.0, &COSTS, &shape);
        assert_eq!(shared.services, apart.services);
    }

    #[test]
    fn what_does_not_fit_takes_several() {
        let costs = Costs { proxy_bytes: 129 << 20, agent_bytes: 300 << 20, ..COSTS };
        assert_eq!(Scheme::Proxies.count(1, 40.0, &costs, &SHAPE).network, 20);
        assert_eq!(Scheme::Direct.count(1, 40.0, &costs, &SHAPE).network, 3);
        let busy = Costs { agent_idle: 0.17, ..COSTS };
        assert_eq!(Scheme::Direct.count(1, 1.0, &busy, &SHAPE).network, 3, "idle CPU counts");
    }

    #[test]
    fn what_picop_does_in_the_kernel_is_on_the_services_account() {
        let costs = Costs { direct_beside_us: 100.0, ..COSTS };
        assert_eq!(Scheme::Direct.count(1, 80.0, &costs, &SHAPE).services, 20);
    }
}

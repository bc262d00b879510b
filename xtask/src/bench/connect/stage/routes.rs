//! What the agents' route files say.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use testbed::Pod;

use super::super::variant::{Size, Variant};
pub use super::ENVIRONMENT;
use super::{SERVICE_PORT, find};

/// Where bases are. No route leads there, so that a connection that is not routed to its variant fails.
const NOWHERE: &str = "10.96.0.1:9";
/// The first address of many services; the testbed gives out those before it.
const FIRST: u32 = u32::from_be_bytes([10, 96, 64, 0]);

/// A service for each variant that has one.
pub fn services(services: &[(Variant, SocketAddr)], backends: &[(Variant, SocketAddr)]) -> Result<String> {
    if services.is_empty() {
        return Ok("services: []\n".to_owned());
    }
    let mut yaml = "services:\n".to_owned();
    for (variant, address) in services {
        let header = if variant.brings_header() { "propagate" } else { "strip" };
        let backend = find(backends, *variant)?;
        service(&mut yaml, &variant.name(), *address, header, &[(ENVIRONMENT.to_owned(), backend)]);
    }
    Ok(yaml)
}

/// Many services, all with one backend in all environments.
pub fn many_services(size: Size, backend: SocketAddr) -> String {
    let mut yaml = "services:\n".to_owned();
    let variants: Vec<_> = (0..size.environments).map(|n| (format!("bench-{n}"), backend)).collect();
    for index in 0..usize::from(size.services) {
        let at = SocketAddr::new(address(index), SERVICE_PORT);
        service(&mut yaml, &format!("service-{index}"), at, "strip", &variants);
    }
    yaml
}

/// The address of one of many services.
pub fn address(index: usize) -> IpAddr {
    let offset = u32::try_from(index).expect("services are counted in 16 bits");
    IpAddr::V4(Ipv4Addr::from_bits(FIRST + offset))
}

/// The workloads below a cgroup, in the pod's network namespace.
pub fn workloads(parent: &str, pod: &Pod) -> String {
    let netns = pod.netns_path().display();
    format!(
        "workloads:
  - {{cgroup: {parent}/direct, environment: {ENVIRONMENT}, netns: {netns}}}
  - {{cgroup: {parent}/relay, context: header, netns: {netns}}}
"
    )
}

fn service(yaml: &mut String, name: &str, at: SocketAddr, header: &str, variants: &[(String, SocketAddr)]) {
    write!(
        yaml,
        "  - name: {name}\n    addresses: [\"{at}\"]\n    header: {header}\n    base: [\"{NOWHERE}\"]\n    variants:\n"
    )
    .expect("a String takes all");
    for (environment, backend) in variants {
        writeln!(yaml, "      {environment}: [\"{backend}\"]").expect("a String takes all");
    }
}

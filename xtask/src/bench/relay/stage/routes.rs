//! What the agent's route file says.

use std::fmt::Write as _;
use std::net::SocketAddr;

use testbed::Pod;

use super::super::variant::Variant;
use super::ENVIRONMENT;

/// Where bases are. No route leads there, so that a connection whose header was not read fails.
const NOWHERE: &str = "10.96.0.1:9";

/// A service for each of picop's variants (variant, address, server), and the workload.
pub fn of(
    services: &[(Variant, SocketAddr, SocketAddr)],
    knows_graft: bool,
    workload: &str,
    pod: &Pod,
) -> String {
    let mut yaml = "services:\n".to_owned();
    for (variant, address, server) in services {
        let graft = variant.graft().filter(|_| knows_graft);
        let graft = graft.map(|value| format!("    graft: {value}\n")).unwrap_or_default();
        write!(
            yaml,
            "  - name: {}\n    addresses: [\"{address}\"]\n    header: strip\n{graft}    base: [\"{NOWHERE}\"]\n    \
             variants:\n      {ENVIRONMENT}: [\"{server}\"]\n",
            variant.name()
        )
        .expect("a String takes all");
    }
    let netns = pod.netns_path().display();
    write!(yaml, "workloads:\n  - {{cgroup: {workload}, context: header, netns: {netns}}}\n")
        .expect("a String takes all");
    yaml
}

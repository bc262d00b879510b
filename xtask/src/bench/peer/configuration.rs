//! What all benchmarks tell the programs, whatever they are measured at: one worker, and room for the connections.

use std::net::SocketAddr;
use std::path::Path;

/// The beginning of an nginx's configuration; `http` or `stream` comes behind it.
pub fn nginx(directory: &Path, descriptors: u64) -> String {
    let directory = directory.display();
    format!(
        "user root;
daemon off;
pid {directory}/pid;
worker_processes 1;
worker_rlimit_nofile {descriptors};
events {{
    worker_connections {descriptors};
}}
"
    )
}

/// An Envoy that hands what it accepts to this filter, which sends it on to these [clusters](envoy_cluster).
pub fn envoy(listen: SocketAddr, filter: &str, clusters: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - address: {}
    filter_chains:
    - filters:
{filter}  clusters:
{clusters}",
        envoy_address(listen)
    )
}

/// One server, by a name. As it comes, it would take a thousand connections and no more.
pub fn envoy_cluster(name: &str, at: SocketAddr) -> String {
    format!(
        "  - name: {name}
    type: STATIC
    circuit_breakers:
      thresholds: [{{max_connections: 65536, max_pending_requests: 65536, max_requests: 65536}}]
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]
",
        envoy_address(at)
    )
}

fn envoy_address(at: SocketAddr) -> String {
    format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port())
}

//! Route files, written as JSON (which is YAML too).

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::Pod;

/// How long the agent may wait for a client's first byte, here: the default (50 ms) is less than a machine busy with tests
/// may take to let a client send the header behind its connect.
pub const SNIFF: Duration = Duration::from_secs(2);

/// What a service does with headers, and who speaks first.
#[derive(Clone, Copy)]
pub struct Policy {
    pub header: &'static str,
    pub speaks_first: &'static str,
}

impl Policy {
    /// For a client that speaks first.
    pub fn of(header: &'static str) -> Self {
        Self { header, speaks_first: "client" }
    }
}

/// A service with one base endpoint, and one in the environment `pr-1`.
pub fn service(
    name: &str,
    address: SocketAddr,
    policy: Policy,
    base: SocketAddr,
    variant: SocketAddr,
) -> Value {
    json!({
        "name": name,
        "addresses": [address],
        "header": policy.header,
        "speaks_first": policy.speaks_first,
        "expect_header": format!("sniff({}ms)", SNIFF.as_millis()),
        "base": [base],
        "variants": { "pr-1": [variant] },
    })
}

/// A pod all of whose connections belong to `environment`.
pub fn in_environment(pod: &Pod, environment: &str) -> Value {
    json!({ "cgroup": pod.cgroup_path_rel(), "environment": environment })
}

/// A pod whose programs may say the environment of each connection in a header.
pub fn instrumented(pod: &Pod) -> Value {
    json!({ "cgroup": pod.cgroup_path_rel(), "context": "header" })
}

/// The whole file.
pub fn file(services: &[Value], workloads: &[Value]) -> String {
    json!({ "services": services, "workloads": workloads }).to_string()
}

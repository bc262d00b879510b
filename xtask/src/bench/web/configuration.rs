//! What the programs are told. All have one worker, write no line for each request, and have room for as many connections
//! as a suite makes; else they are as they come.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::super::peer::configuration;

/// Bytes of a response's body.
pub const PAYLOAD: usize = 1000;
/// Where requests of no environment go: nowhere.
const NOWHERE: &str = "10.96.0.1:9";

/// What the server at a port answers with, and no other does.
pub fn body(port: u16) -> String {
    let mut body = format!("{port:05} ");
    body.extend(std::iter::repeat_n('a', PAYLOAD - body.len()));
    body
}

/// The request. `Env-Id` is what the proxies route by; picop never looks at it.
pub fn request(environment: &str, keep_alive: bool) -> String {
    let close = if keep_alive { "" } else { "Connection: close\r\n" };
    format!("GET /payload HTTP/1.1\r\nHost: bench\r\nEnv-Id: {environment}\r\n{close}\r\n")
}

/// The files that nginx serves: one for each port.
pub fn write_bodies(directory: &Path, ports: impl IntoIterator<Item = u16>) -> Result<()> {
    for port in ports {
        let root = directory.join(port.to_string());
        fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
        let path = root.join("payload");
        fs::write(&path, body(port)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// A web server with a port for each of these.
pub fn nginx(listen: &[SocketAddr], files: &Path, directory: &Path, descriptors: u64) -> String {
    let files = files.display();
    let head = configuration::nginx(directory, descriptors);
    let mut text = format!(
        "{head}http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
"
    );
    for at in listen {
        writeln!(text, "    server {{ listen {at} backlog=4096; root {files}/{}; }}", at.port())
            .expect("a String takes all");
    }
    text.push_str("}\n");
    text
}

/// An HAProxy that routes by the header.
pub fn haproxy(listen: SocketAddr, server: SocketAddr, environment: &str, connections: u64) -> String {
    format!(
        "global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    maxconn {connections}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend bench
    bind {listen} backlog 4096
    use_backend variant if {{ req.hdr(Env-Id) -m str {environment} }}
    default_backend base
backend variant
    server server {server}
backend base
    server server {NOWHERE}
"
    )
}

/// An Envoy that routes by the header, as Istio's gateways and sidecars are told to.
pub fn envoy(listen: SocketAddr, server: SocketAddr, environment: &str) -> String {
    let nowhere = NOWHERE.parse().expect("an address");
    let filter = format!(
        "      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: bench
              domains: [\"*\"]
              routes:
              - match: {{prefix: /, headers: [{{name: env-id, string_match: {{exact: {environment}}}}}]}}
                route: {{cluster: variant}}
              - match: {{prefix: /}}
                route: {{cluster: base}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"
    );
    let clusters =
        [("variant", server), ("base", nowhere)].map(|(name, at)| configuration::envoy_cluster(name, at));
    configuration::envoy(listen, &filter, &clusters.concat())
}

/// A service of picop's route file.
#[derive(Debug)]
pub struct Service {
    pub name: String,
    pub address: SocketAddr,
    pub server: SocketAddr,
    /// Whether to graft.
    pub graft: bool,
}

/// picop's route file. Clients speak first, and with a header if they are to send one: nobody waits for it.
pub fn routes(services: &[Service], workloads: &[(String, &str)], netns: &Path, environment: &str) -> String {
    let mut yaml = if services.is_empty() { "services: []\n".to_owned() } else { "services:\n".to_owned() };
    for Service { name, address, server, graft } in services {
        let graft = if *graft { "always" } else { "never" };
        write!(
            yaml,
            "  - name: {name}
    addresses: [\"{address}\"]
    header: strip
    expect_header: always
    graft: {graft}
    base: [\"{NOWHERE}\"]
    variants:
      {environment}: [\"{server}\"]
"
        )
        .expect("a String takes all");
    }
    yaml.push_str("workloads:\n");
    for (cgroup, what) in workloads {
        writeln!(yaml, "  - {{cgroup: {cgroup}, {what}, netns: {}}}", netns.display())
            .expect("a String takes all");
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_a_body_of_its_own_of_one_size() {
        assert_eq!(body(7000).len(), PAYLOAD);
        assert_eq!(body(65535).len(), PAYLOAD);
        assert_ne!(body(7000), body(7001));
    }

    #[test]
    fn requests_differ_in_who_closes_only() {
        assert!(request("main", false).contains("\r\nConnection: close\r\n\r\n"));
        assert_eq!(request("main", false).replace("Connection: close\r\n", ""), request("main", true));
    }
}

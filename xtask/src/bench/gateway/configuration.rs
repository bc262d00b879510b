//! What the gateways are told: to route by host, with one worker, no line for each request, and connections to the server kept.
//!
//! Each tells the server whom it asks for (`X-Forwarded-For`, and what else it knows of the client), as an edge does.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::super::peer::configuration;

/// A host, and the server of its environment.
#[derive(Clone, Debug)]
pub struct Route {
    pub environment: String,
    pub server: SocketAddr,
}

impl Route {
    /// What clients ask for.
    pub fn host(&self) -> String {
        format!("{}.{DOMAIN}", self.environment)
    }
}

const DOMAIN: &str = "preview.example.com";
/// Connections to a server that are kept while idle: more than there are requests at once.
const KEPT: usize = 128;

/// The pattern that picop finds the environment by.
pub fn host_pattern() -> String {
    format!("{{env}}.{DOMAIN}")
}

/// An nginx as its documentation has it for name-based hosts with kept connections. Its `http2` on a port without TLS means that
/// nothing else is spoken there.
pub fn nginx(
    http1: SocketAddr,
    http2: SocketAddr,
    routes: &[Route],
    directory: &Path,
    descriptors: u64,
) -> String {
    let head = configuration::nginx(directory, descriptors);
    let mut text = format!(
        "{head}http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection \"\";
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Host $host;
    proxy_set_header X-Forwarded-Proto $scheme;
"
    );
    for route in routes {
        let Route { environment, server } = route;
        let host = route.host();
        write!(
            text,
            "    upstream {environment} {{
        server {server};
        keepalive {KEPT};
        keepalive_requests 1000000000;
    }}
    server {{
        listen {http1};
        listen {http2} http2;
        server_name {host};
        location / {{ proxy_pass http://{environment}; }}
    }}
"
        )
        .expect("a String takes all");
    }
    text.push_str("}\n");
    text
}

/// An Envoy with a virtual host for each environment.
pub fn envoy(listen: SocketAddr, routes: &[Route]) -> String {
    let mut hosts = String::new();
    let mut clusters = String::new();
    for route in routes {
        let Route { environment, server } = route;
        let host = route.host();
        write!(
            hosts,
            "            - name: {environment}
              domains: [\"{host}\"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: {environment}}}}}]
"
        )
        .expect("a String takes all");
        clusters += &configuration::envoy_cluster(environment, *server);
    }
    let filter = format!(
        "      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: AUTO
          use_remote_address: true
          route_config:
            virtual_hosts:
{hosts}          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"
    );
    configuration::envoy(listen, &filter, &clusters)
}

//! Objects as the API server writes them, no more of them than matters.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Kind;

/// The namespace they are in, if nothing else is said.
pub const NAMESPACE: &str = "shop";

/// An object of a kind.
pub fn object(kind: Kind, name: &str) -> Value {
    let (api_version, kind_name, _, namespaced) = kind.names();
    let mut object = json!({"apiVersion": api_version, "kind": kind_name, "metadata": {"name": name}});
    if namespaced {
        object["metadata"]["namespace"] = json!(NAMESPACE);
    }
    object
}

/// A Service with a cluster IP and one port, named `http`.
pub fn service(name: &str, at: SocketAddr) -> Value {
    let mut object = object(Kind::Service, name);
    object["spec"] = json!({
        "type": "ClusterIP", "clusterIP": at.ip().to_string(), "clusterIPs": [at.ip().to_string()], "sessionAffinity": "None",
        "ports": [{"name": "http", "port": at.port(), "protocol": "TCP", "targetPort": "web"}],
    });
    object
}

/// A Service that is a variant of another, in an environment.
pub fn variant(name: &str, at: SocketAddr, of: &str, environment: &str) -> Value {
    let labels = json!({"picop.dev/variant-of": of, "picop.dev/environment": environment});
    labelled(service(name, at), labels)
}

/// The endpoints of a Service's only port.
pub fn slice(service: &str, endpoints: &[SocketAddr]) -> Value {
    let mut object = object(Kind::EndpointSlice, &format!("{service}-x7k2p"));
    object["metadata"]["labels"] = json!({"kubernetes.io/service-name": service});
    let v6 = endpoints.first().is_some_and(SocketAddr::is_ipv6);
    object["addressType"] = json!(if v6 { "IPv6" } else { "IPv4" });
    object["ports"] =
        json!([{"name": "http", "port": endpoints.first().map_or(80, SocketAddr::port), "protocol": "TCP"}]);
    let conditions = json!({"ready": true, "serving": true, "terminating": false});
    object["endpoints"] = endpoints
        .iter()
        .map(|at| json!({"addresses": [at.ip().to_string()], "conditions": conditions}))
        .collect();
    object
}

/// A running Pod.
pub fn pod(name: &str, uid: &str, node: &str) -> Value {
    let mut object = object(Kind::Pod, name);
    object["metadata"]["uid"] = json!(uid);
    object["spec"] = json!({"nodeName": node, "containers": [{"name": "main", "image": "main"}]});
    object["status"] = json!({"phase": "Running"});
    object
}

/// The same object with other labels.
#[must_use]
pub fn labelled(mut object: Value, labels: Value) -> Value {
    object["metadata"]["labels"] = labels;
    object
}

/// The same object with other annotations.
#[must_use]
pub fn annotated(mut object: Value, annotations: Value) -> Value {
    object["metadata"]["annotations"] = annotations;
    object
}

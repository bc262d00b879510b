#![expect(clippy::needless_pass_by_value, reason = "objects are written where they are used")]

mod addresses;
mod any;
mod endpoints;
mod policies;
mod translated;
mod variants;
mod workloads;

use std::net::SocketAddr;

use proptest::{collection, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{super::objects::Change, *};
use crate::{
    protocol::ExpectHeader,
    route::{
        Backends, Balancing, ContextSource, Facts, Fallback, GraftPolicy, HeaderPolicy, PathChoice,
        SpeaksFirst, decide,
    },
    source::kubernetes::{crd, objects, wire},
};

/// A cluster in the making, of objects as the API server writes them.
#[derive(Default)]
struct Cluster {
    objects: Objects,
    node: objects::Node,
    translation: Translation,
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl Cluster {
    fn new() -> Self {
        let node = objects::Node { name: "node-1".into(), zone: Some("zone-a".into()) };
        let mut cluster = Self { node, ..Self::default() };
        cluster.namespace("shop", json!({}), json!({}));
        cluster
    }

    fn namespace(&mut self, name: &str, labels: Value, annotations: Value) {
        let object: wire::Namespace =
            parse(json!({"metadata": {"name": name, "labels": labels, "annotations": annotations}}));
        self.objects.namespaces.insert(objects::name_of(&object), (&object).into());
    }

    fn service(&mut self, value: Value) {
        let object: wire::Service = parse(value);
        self.objects.services.insert(objects::name_of(&object), (&object).into());
    }

    fn slice(&mut self, value: Value) {
        let object: wire::EndpointSlice = parse(value);
        let slice = Slice::new(&object, &self.node).unwrap();
        self.objects.slices.insert(objects::name_of(&object), slice);
    }

    fn pod(&mut self, value: Value) {
        let object: wire::Pod = parse(value);
        self.objects.pods.insert(objects::name_of(&object), (&object).into());
    }

    fn policy(&mut self, name: &str, spec: Value) {
        let object: crd::ServicePolicy = parse(json!({
            "apiVersion": "picop.dev/v1alpha1", "kind": "ServicePolicy",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec
        }));
        self.objects.policies.insert(objects::name_of(&object), (&object).into());
    }

    fn environment(&mut self, name: &str, ttl: Option<u32>) {
        let object: crd::Environment = parse(json!({
            "apiVersion": "picop.dev/v1alpha1", "kind": "Environment",
            "metadata": {"name": name, "creationTimestamp": "1970-01-01T00:01:40Z"}, "spec": {"ttlSeconds": ttl}
        }));
        self.objects.environments.insert(objects::name_of(&object), (&object).into());
    }

    /// The usual pair: a service at 10.96.0.10:80, its variant of pr-1, and the variant's endpoint 10.244.0.11:8080.
    fn cart() -> Self {
        let mut cluster = Self::new();
        cluster.service(service("cart", "10.96.0.10"));
        cluster.service(variant("cart-pr-1", "pr-1"));
        cluster.slice(slice("cart-pr-1", json!([ready("10.244.0.11")])));
        cluster
    }

    fn build(&self) -> Built {
        build(&self.objects, 1_000, self.translation)
    }

    fn table(&self) -> RouteTable {
        self.build().table.unwrap()
    }

    /// What is wrong, as `name: reason`.
    fn problems(&self) -> Vec<String> {
        let problems = self.build().problems;
        problems.iter().map(|it| format!("{}: {}", it.object.name, it.reason.as_str())).collect()
    }

    /// Where a connection of an environment to an address goes.
    fn goes(&self, environment: &str, to: &str) -> Vec<String> {
        let (table, environment) = (self.table(), EnvId::new(environment).unwrap());
        let facts = Facts {
            table: &table,
            destination: to.parse().unwrap(),
            from_header: None,
            of_workload: Some(&environment),
        };
        match decide(&facts).backends {
            Backends::Itself(_) => vec!["base".into()],
            Backends::Endpoints(endpoints) => endpoints.serving().map(|it| it.address.to_string()).collect(),
            Backends::Refused => vec!["refused".into()],
        }
    }
}

fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
                 "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]}
    })
}

fn variant(name: &str, environment: &str) -> Value {
    let mut value = service(name, "10.96.0.99");
    value["metadata"]["labels"] =
        json!({"picop.dev/variant-of": "cart", "picop.dev/environment": environment});
    value["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
    value
}

fn slice(service: &str, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": format!("{service}-abc"), "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints
    })
}

fn ready(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "node-2"})
}

fn pod(name: &str, labels: Value, annotations: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}-1"), "labels": labels, "annotations": annotations},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main"}]}, "status": {"phase": "Running"}
    })
}

const CART: &str = "10.96.0.10:80";
const VARIANT: &str = "10.244.0.11:8080";

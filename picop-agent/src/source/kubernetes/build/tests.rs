#![expect(clippy::needless_pass_by_value, reason = "objects are written where they are used")]

use std::net::SocketAddr;

use proptest::{collection, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{super::objects::Change, *};
use crate::{
    protocol::ExpectHeader,
    route::{
        Backends, ContextSource, Facts, Fallback, GraftPolicy, HeaderPolicy, PathChoice, SpeaksFirst, decide,
    },
    source::kubernetes::{crd, objects, wire},
};

/// A cluster in the making, of objects as the API server writes them.
#[derive(Default)]
struct Cluster {
    objects: Objects,
    node: objects::Node,
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
        build(&self.objects, 1_000)
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

#[test]
fn one_label_makes_a_variant() {
    let cluster = Cluster::cart();
    assert_eq!(cluster.problems(), [""; 0]);
    assert_eq!(cluster.goes("pr-1", CART), [VARIANT]);
    assert_eq!(cluster.goes("pr-2", CART), ["base"]);
    // Nothing is asked of other services, and nothing is done about them.
    assert_eq!(cluster.table().services().iter().map(|it| &*it.name).collect::<Vec<_>>(), ["shop/cart:80"]);
    let built = cluster.build();
    let of: Vec<_> = built.environments[&EnvId::new("pr-1").unwrap()].iter().map(|it| it.ready).collect();
    assert_eq!(of, [1]);
}

#[test]
fn a_namespace_may_say_the_environment() {
    let mut cluster = Cluster::cart();
    let mut of_namespace = variant("cart", "");
    of_namespace["metadata"]["namespace"] = json!("pr-7");
    of_namespace["metadata"]["labels"] = json!({"picop.dev/variant-of": "cart.shop"});
    cluster.service(of_namespace);
    let mut endpoints = slice("cart", json!([ready("10.244.0.77")]));
    endpoints["metadata"]["namespace"] = json!("pr-7");
    cluster.slice(endpoints);
    cluster.namespace("pr-7", json!({"picop.dev/environment": "pr-7"}), json!({}));
    // Another namespace needs leave.
    assert_eq!(cluster.problems(), ["cart: NamespaceNotAllowed"]);
    assert_eq!(cluster.goes("pr-7", CART), ["base"]);
    for (list, allowed) in [("pr-7", true), ("a, pr-7", true), ("*", true), ("pr-70", false), ("", false)] {
        cluster.namespace("shop", json!({}), json!({"picop.dev/variants-from": list}));
        assert_eq!(cluster.goes("pr-7", CART) == ["10.244.0.77:8080"], allowed, "{list:?}");
    }
}

#[test]
fn claims_that_cannot_be() {
    for (labels, reason) in [
        (json!({"picop.dev/variant-of": "cart"}), "NoEnvironment"),
        (json!({"picop.dev/variant-of": "cart", "picop.dev/environment": ""}), "NoEnvironment"),
        (json!({"picop.dev/variant-of": "card", "picop.dev/environment": "pr-1"}), "NoSuchService"),
        (json!({"picop.dev/variant-of": "cart.none", "picop.dev/environment": "pr-1"}), "NoSuchService"),
        (json!({"picop.dev/variant-of": "new", "picop.dev/environment": "pr-1"}), "VariantOfVariant"),
        (json!({"picop.dev/variant-of": "cart-pr-1", "picop.dev/environment": "pr-2"}), "VariantOfVariant"),
        (json!({"picop.dev/variant-of": "cart", "picop.dev/environment": "pr-1"}), "DuplicateVariant"),
        (json!({"picop.dev/variant-of": "elsewhere", "picop.dev/environment": "pr-1"}), "ExternalName"),
    ] {
        let mut cluster = Cluster::cart();
        let mut other = service("elsewhere", "");
        other["spec"] = json!({"type": "ExternalName", "externalName": "db.example"});
        cluster.service(other);
        let mut new = service("new", "10.96.0.98");
        new["metadata"]["labels"] = labels.clone();
        new["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z");
        cluster.service(new);
        assert_eq!(cluster.problems(), [format!("new: {reason}")], "{labels}");
        assert_eq!(cluster.goes("pr-1", CART), [VARIANT], "{labels}");
    }
}

#[test]
fn endpoints_as_kube_proxy_chooses_them() {
    let conditions = |address: &str, ready: Value, serving: Value, terminating: Value| json!({"addresses": [address], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}});
    let hinted = |address: &str, zone: &str| json!({"addresses": [address], "conditions": {"ready": true}, "hints": {"forZones": [{"name": zone}]}});
    let noded = |address: &str, node: &str| {
        let zones = json!([{"name": "zone-b"}]);
        json!({"addresses": [address], "conditions": {"ready": true}, "hints": {"forZones": zones, "forNodes": [{"name": node}]}})
    };
    let (t, f, none) = (json!(true), json!(false), json!(null));
    for (what, endpoints, chosen) in [
        ("none", json!([]), vec!["base"]),
        ("null", json!(null), vec!["base"]),
        (
            "unsaid is ready",
            json!([conditions("10.0.0.1", none.clone(), none.clone(), none.clone())]),
            vec!["10.0.0.1:8080"],
        ),
        ("not ready", json!([conditions("10.0.0.1", f.clone(), f.clone(), none.clone())]), vec!["base"]),
        (
            "ready before terminating",
            json!([
                conditions("10.0.0.1", f.clone(), t.clone(), t.clone()),
                conditions("10.0.0.2", t.clone(), t.clone(), f.clone())
            ]),
            vec!["10.0.0.2:8080"],
        ),
        (
            "terminating rather than none",
            json!([conditions("10.0.0.1", f.clone(), t.clone(), t.clone())]),
            vec!["10.0.0.1:8080"],
        ),
        ("terminating and not serving", json!([conditions("10.0.0.1", f.clone(), f, t)]), vec!["base"]),
        (
            "our zone",
            json!([hinted("10.0.0.1", "zone-a"), hinted("10.0.0.2", "zone-b")]),
            vec!["10.0.0.1:8080"],
        ),
        ("no zone is ours", json!([hinted("10.0.0.1", "zone-b")]), vec!["10.0.0.1:8080"]),
        (
            "not all say a zone",
            json!([hinted("10.0.0.1", "zone-a"), ready("10.0.0.2")]),
            vec!["10.0.0.1:8080", "10.0.0.2:8080"],
        ),
        (
            "our node",
            json!([noded("10.0.0.1", "node-1"), noded("10.0.0.2", "node-2")]),
            vec!["10.0.0.1:8080"],
        ),
        ("the same twice", json!([ready("10.0.0.1"), ready("10.0.0.1")]), vec!["10.0.0.1:8080"]),
        ("no address", json!([ready("0.0.0.0"), ready("web-0.example")]), vec!["base"]),
    ] {
        let mut cluster = Cluster::cart();
        cluster.slice(slice("cart-pr-1", endpoints));
        assert_eq!(cluster.goes("pr-1", CART), chosen, "{what}");
    }
}

#[test]
fn a_local_traffic_policy_is_kept() {
    let mut cluster = Cluster::cart();
    let here = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "node-1"});
    cluster.slice(slice("cart-pr-1", json!([here, ready("10.0.0.2")])));
    assert_eq!(cluster.goes("pr-1", CART), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    let mut local = variant("cart-pr-1", "pr-1");
    local["spec"]["internalTrafficPolicy"] = json!("Local");
    cluster.service(local);
    assert_eq!(cluster.goes("pr-1", CART), ["10.0.0.1:8080"]);
    cluster.slice(slice("cart-pr-1", json!([ready("10.0.0.2")])));
    assert_eq!(cluster.goes("pr-1", CART), ["base"]);
}

#[test]
fn session_affinity_is_left_to_who_has_it() {
    let mut cluster = Cluster::cart();
    let mut sticky = variant("cart-pr-1", "pr-1");
    sticky["spec"]["sessionAffinity"] = json!("ClientIP");
    cluster.service(sticky);
    assert_eq!(cluster.goes("pr-1", CART), ["10.96.0.99:80"], "the variant's cluster IP");
    cluster.slice(slice("cart-pr-1", json!([])));
    assert_eq!(cluster.goes("pr-1", CART), ["base"], "which answers nobody while nothing is ready");
}

#[test]
fn ports_meet_by_number_then_name_then_alone() {
    let ports = |list: &[(&str, u16)]| -> Value {
        list.iter().map(|(name, port)| json!({"name": name, "port": port})).collect()
    };
    for (base, own, meets) in [
        (vec![("http", 80)], vec![("http", 80)], vec![Some("http")]),
        (vec![("http", 80)], vec![("web", 80)], vec![Some("web")]),
        (vec![("http", 80)], vec![("http", 8080), ("grpc", 9090)], vec![Some("http")]),
        (vec![("http", 80)], vec![("web", 8080)], vec![Some("web")]),
        (vec![("", 80)], vec![("", 8080)], vec![Some("")]),
        (vec![("http", 80), ("grpc", 90)], vec![("http", 80)], vec![Some("http"), None]),
        (
            vec![("http", 80), ("grpc", 90)],
            vec![("grpc", 80), ("http", 90)],
            vec![Some("grpc"), Some("http")],
        ),
    ] {
        let mut cluster = Cluster::cart();
        let (mut cart, mut pr) = (service("cart", "10.96.0.10"), variant("cart-pr-1", "pr-1"));
        cart["spec"]["ports"] = ports(&base);
        pr["spec"]["ports"] = ports(&own);
        let mut endpoints = slice("cart-pr-1", json!([ready("10.244.0.11")]));
        // Each port of the variant at a number of its own.
        endpoints["ports"] =
            own.iter().zip(1000..).map(|((name, _), at)| json!({"name": name, "port": at})).collect();
        cluster.service(cart);
        cluster.service(pr);
        cluster.slice(endpoints);
        for ((_, port), meets) in base.iter().zip(&meets) {
            let at = meets.map(|name| own.iter().position(|(own, _)| *own == name).unwrap() + 1000);
            let expected = at.map_or_else(|| "base".to_owned(), |at| format!("10.244.0.11:{at}"));
            assert_eq!(cluster.goes("pr-1", &format!("10.96.0.10:{port}")), [expected], "{base:?} {own:?}");
        }
        let missing = meets.iter().filter(|meets| meets.is_none()).count();
        assert_eq!(cluster.problems(), vec!["cart-pr-1: PortMissing"; missing], "{base:?} {own:?}");
    }
}

#[test]
fn what_is_not_tcp_is_left_alone() {
    let mut cluster = Cluster::cart();
    let mut cart = service("cart", "10.96.0.10");
    cart["spec"]["ports"] = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
    cluster.service(cart);
    assert_eq!(cluster.table().services().len(), 0);
    assert_eq!(cluster.problems(), ["cart: NothingToRoute"]);
}

#[test]
fn both_families_and_all_addresses() {
    let mut cluster = Cluster::cart();
    let mut cart = service("cart", "10.96.0.10");
    cart["spec"]["clusterIPs"] = json!(["10.96.0.10", "fd00:96::10"]);
    cart["spec"]["externalIPs"] = json!(["192.0.2.7"]);
    cart["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "192.0.2.8", "ipMode": "VIP"}, {"ip": "192.0.2.9", "ipMode": "Proxy"}, {"hostname": "lb.example"}
    ]}});
    cluster.service(cart);
    let mut six = slice("cart-pr-1", json!([ready("fd00:244::11")]));
    six["metadata"]["name"] = json!("cart-pr-1-six");
    six["addressType"] = json!("IPv6");
    cluster.slice(six);
    for at in ["10.96.0.10:80", "[fd00:96::10]:80", "192.0.2.7:80", "192.0.2.8:80"] {
        assert_eq!(cluster.goes("pr-1", at), [VARIANT, "[fd00:244::11]:8080"], "{at}");
    }
    // A proxy's connections come back from outside.
    assert_eq!(cluster.goes("pr-1", "192.0.2.9:80"), ["base"]);
    assert_eq!(cluster.problems(), [""; 0]);
}

#[test]
fn headless_services_are_reached_at_their_endpoints() {
    let mut cluster = Cluster::cart();
    let mut cart = service("cart", "None");
    cart["spec"]["clusterIPs"] = json!(["None"]);
    cluster.service(cart);
    let not_ready = json!({"addresses": ["10.244.0.2"], "conditions": {"ready": false}});
    cluster.slice(slice("cart", json!([ready("10.244.0.1"), not_ready])));
    for at in ["10.244.0.1:8080", "10.244.0.2:8080"] {
        assert_eq!(cluster.goes("pr-1", at), [VARIANT], "{at}");
        assert_eq!(cluster.goes("pr-2", at), ["base"], "{at}");
    }
    // A selector that is too wide: whoever connects to the variant's pod itself means it.
    cluster.slice(slice("cart", json!([ready("10.244.0.1"), ready("10.244.0.11")])));
    assert_eq!(cluster.problems(), ["cart: VariantInBase"; 2]);
    assert_eq!(cluster.goes("pr-1", "10.244.0.1:8080"), [VARIANT]);
    assert_eq!(cluster.goes("pr-2", VARIANT), ["base"]);
    assert!(cluster.table().service_at(&VARIANT.parse().unwrap()).is_none());
}

#[test]
fn a_selector_that_is_too_wide_is_told() {
    let mut cluster = Cluster::cart();
    cluster.slice(slice("cart", json!([ready("10.244.0.1"), ready("10.244.0.11")])));
    assert_eq!(cluster.problems(), ["cart: VariantInBase"]);
    assert_eq!(cluster.goes("pr-1", CART), [VARIANT]);
}

#[test]
fn an_external_name_has_no_endpoints() {
    for (fallback, goes) in [("base", "base"), ("refuse", "refused")] {
        let mut cluster = Cluster::cart();
        let mut cart = service("cart", "10.96.0.10");
        cart["metadata"]["annotations"] = json!({"picop.dev/fallback": fallback});
        let mut pr = variant("cart-pr-1", "pr-1");
        pr["spec"] = json!({"type": "ExternalName", "externalName": "cart.example", "ports": [{"name": "http", "port": 80}]});
        cluster.service(cart);
        cluster.service(pr);
        assert_eq!(cluster.goes("pr-1", CART), [goes]);
        assert_eq!(cluster.problems(), ["cart-pr-1: ExternalName"]);
    }
}

#[test]
fn slices_of_names_are_told() {
    let mut cluster = Cluster::cart();
    let mut names = slice("cart-pr-1", json!([ready("web.example")]));
    names["addressType"] = json!("FQDN");
    cluster.slice(names);
    assert_eq!(cluster.problems(), ["cart-pr-1-abc: FqdnEndpoints"]);
    assert_eq!(cluster.goes("pr-1", CART), ["base"]);
}

#[test]
fn annotations_say_how() {
    let mut cluster = Cluster::cart();
    let mut cart = service("cart", "10.96.0.10");
    cart["metadata"]["annotations"] = json!({
        "picop.dev/header": "propagate", "picop.dev/fallback": "refuse", "picop.dev/graft": "never",
        "picop.dev/expect-header": "always", "picop.dev/speaks-first": "server",
    });
    cluster.service(cart);
    let table = cluster.table();
    let service = table.service_at(&CART.parse().unwrap()).unwrap();
    assert_eq!(service.header, HeaderPolicy::Propagate);
    assert_eq!(service.fallback, Fallback::Refuse);
    assert_eq!(service.graft, GraftPolicy::Never);
    assert_eq!(service.expect_header, ExpectHeader::Always);
    assert_eq!(service.speaks_first, SpeaksFirst::Server);

    let mut cart = super::super::names::HEADER.to_owned();
    cart.make_ascii_uppercase();
    let mut wrong = service_with(&json!({
        "picop.dev/header": "yes", "picop.dev/fallback": "refused", "picop.dev/expect-header": "sniff(5h)", cart: "strip",
    }));
    wrong["metadata"]["labels"] = json!({"app": "cart"});
    cluster.service(wrong);
    assert_eq!(cluster.problems(), ["cart: BadValue"; 3]);
    let table = cluster.table();
    let service = table.service_at(&CART.parse().unwrap()).unwrap();
    assert_eq!(
        (service.header, service.fallback),
        (HeaderPolicy::Strip, Fallback::Refuse),
        "on the safe side"
    );
}

fn service_with(annotations: &Value) -> Value {
    let mut value = service("cart", "10.96.0.10");
    value["metadata"]["annotations"] = annotations.clone();
    value
}

#[test]
fn policies_go_before_annotations() {
    let mut cluster = Cluster::cart();
    cluster.service(service_with(&json!({"picop.dev/header": "propagate", "picop.dev/graft": "never"})));
    cluster.policy("for-all", json!({"service": {"name": "cart"}, "header": "Strip", "fallback": "Refuse"}));
    cluster.policy("later", json!({"service": {"name": "cart"}, "header": "Propagate"}));
    cluster.policy("none", json!({"service": {"name": "card"}}));
    cluster.policy("no-port", json!({"service": {"name": "cart", "port": 81}}));
    let table = cluster.table();
    let service = table.service_at(&CART.parse().unwrap()).unwrap();
    assert_eq!(
        (service.header, service.fallback, service.graft),
        (HeaderPolicy::Strip, Fallback::Refuse, GraftPolicy::Never)
    );
    assert_eq!(cluster.problems(), ["later: PolicyConflict", "no-port: NoSuchTarget", "none: NoSuchTarget"]);
}

#[test]
fn destinations_outside_of_the_cluster() {
    let mut cluster = Cluster::cart();
    cluster.policy(
        "orders",
        json!({
            "external": {
                "addresses": ["192.0.2.10:5432", "db.example:5432"],
                "environments": [{"name": "pr-1", "endpoints": ["192.0.2.11:5432"]}, {"name": "pr-2", "endpoints": []}],
            },
            "fallback": "Refuse", "speaksFirst": "Server",
        }),
    );
    assert_eq!(cluster.goes("pr-1", "192.0.2.10:5432"), ["192.0.2.11:5432"]);
    assert_eq!(cluster.goes("pr-2", "192.0.2.10:5432"), ["refused"]);
    assert_eq!(cluster.goes("pr-3", "192.0.2.10:5432"), ["base"]);
    assert_eq!(cluster.problems(), ["orders: BadAddress"]);
    // A Service's address is the Service's.
    cluster.policy("thief", json!({"external": {"addresses": ["10.96.0.10:80"], "environments": []}}));
    assert_eq!(cluster.problems(), ["orders: BadAddress", "thief: AddressTaken"]);
    assert_eq!(cluster.goes("pr-1", CART), [VARIANT]);
}

#[test]
fn an_environment_ends() {
    let mut cluster = Cluster::cart();
    cluster.environment("pr-1", None);
    assert_eq!(cluster.build().again_at, None);
    cluster.environment("pr-1", Some(1_000));
    // Made 100 seconds after 1970; looked at after 1,000.
    assert_eq!(cluster.build().again_at, Some(1_100));
    assert_eq!(cluster.goes("pr-1", CART), [VARIANT]);
    cluster.environment("pr-1", Some(900));
    assert_eq!(cluster.build().again_at, None);
    assert_eq!(cluster.goes("pr-1", CART), ["base"]);
    assert_eq!(cluster.problems(), ["cart-pr-1: EnvironmentExpired"]);
}

#[test]
fn pods_become_workloads() {
    let mut cluster = Cluster::new();
    cluster.namespace("shop", json!({"picop.dev/environment": "ns"}), json!({}));
    for (name, labels, annotations) in [
        ("plain", json!({}), json!({})),
        ("own", json!({"picop.dev/environment": "pr-1"}), json!({"picop.dev/path": "relay"})),
        ("none", json!({"picop.dev/environment": ""}), json!({})),
        ("instrumented", json!({"picop.dev/environment": ""}), json!({"picop.dev/context": "header"})),
        ("bypassed", json!({"picop.dev/bypass": "true"}), json!({})),
        ("wrong", json!({"picop.dev/bypass": "yes"}), json!({"picop.dev/context": "maybe"})),
    ] {
        cluster.pod(pod(name, labels, annotations));
    }
    let mut ended = pod("ended", json!({}), json!({}));
    ended["status"]["phase"] = json!("Succeeded");
    cluster.pod(ended);
    let mut mirror = pod("mirror", json!({}), json!({"kubernetes.io/config.hash": "0123abcd"}));
    mirror["spec"]["hostNetwork"] = json!(true);
    cluster.pod(mirror);

    let table = cluster.table();
    let all: Vec<_> = table
        .workloads()
        .iter()
        .map(|it| {
            let environment = it.environment.as_ref().map(EnvId::as_str);
            (it.name.as_deref().unwrap(), environment, it.context, it.path, it.bypass)
        })
        .collect();
    let (none, header, auto, relay) =
        (ContextSource::None, ContextSource::Header, PathChoice::Auto, PathChoice::Relay);
    assert_eq!(
        all,
        [
            ("shop/bypassed", Some("ns"), none, auto, true),
            ("shop/instrumented", None, header, auto, false),
            ("shop/mirror", Some("ns"), none, auto, false),
            ("shop/own", Some("pr-1"), none, relay, false),
            ("shop/plain", Some("ns"), none, auto, false),
            ("shop/wrong", Some("ns"), none, auto, true),
        ]
    );
    assert_eq!(cluster.problems(), ["wrong: BadValue"; 2]);
    let at = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0123abcd.slice";
    assert_eq!(table.workload_for(at).and_then(|it| it.name.clone()).as_deref(), Some("shop/mirror"));
    let at = "kubepods/besteffort/poduid-own-1";
    assert_eq!(table.workload_for(at).and_then(|it| it.name.clone()).as_deref(), Some("shop/own"));
    assert!(table.workload_for("kubepods/besteffort/poduid-none-1").is_none());
}

#[test]
fn a_namespace_may_opt_out() {
    let mut cluster = Cluster::new();
    cluster.namespace("shop", json!({"picop.dev/environment": "ns", "picop.dev/bypass": "true"}), json!({}));
    cluster.pod(pod("plain", json!({}), json!({})));
    cluster.pod(pod("back", json!({"picop.dev/bypass": "false"}), json!({})));
    let bypassed: Vec<_> = cluster.table().workloads().iter().map(|it| it.bypass).collect();
    assert_eq!(bypassed, [false, true]);
}

#[test]
fn headers_are_kept_from_every_service_once_a_pod_sends_them() {
    let mut cluster = Cluster::cart();
    cluster.service(service("other", "10.96.0.20"));
    assert_eq!(cluster.table().services().len(), 1);
    cluster.pod(pod("instrumented", json!({}), json!({"picop.dev/context": "header"})));
    let table = cluster.table();
    let names: Vec<_> = table.services().iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["shop/cart:80", "shop/other:80", "shop/cart-pr-1:80"]);
    assert!(table.services().iter().all(|it| it.header == HeaderPolicy::Strip));
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn a_name() -> impl Strategy<Value = &'static str> {
    sample::select(NAMES.as_slice())
}

/// Labels and annotations that meet, contradict, or mean nothing.
fn marks() -> impl Strategy<Value = Value> {
    let values = prop_oneof![
        4 => a_name().prop_map(str::to_owned),
        1 => a_name().prop_map(|name| format!("{name}.two")),
        1 => Just("refuse".to_owned()),
        1 => Just("header".to_owned()),
        1 => Just("*".to_owned()),
        1 => Just(String::new()),
        1 => "[a-z]{0,5}",
    ];
    let keys = sample::select(vec![
        "picop.dev/variant-of",
        "picop.dev/environment",
        "picop.dev/environment",
        "picop.dev/variants-from",
        "picop.dev/fallback",
        "picop.dev/context",
        "picop.dev/bypass",
        "picop.dev/header",
    ]);
    collection::btree_map(keys, values, 0..4).prop_map(|map| json!(map))
}

fn an_address() -> impl Strategy<Value = String> {
    (1..8u8).prop_map(|n| format!("10.0.0.{n}"))
}

fn any_service() -> impl Strategy<Value = Value> {
    let ip = prop_oneof![6 => an_address(), 2 => Just("None".to_owned()), 1 => Just(String::new())];
    let ports = collection::vec((option::of(a_name()), 79..83u16), 0..3);
    let kind = prop_oneof![8 => Just("ClusterIP"), 1 => Just("ExternalName")];
    (marks(), ip, ports, kind, any::<bool>(), 0..3u8).prop_map(|(marks, ip, ports, kind, affinity, day)| {
        let ports: Value = ports.iter().map(|(name, port)| json!({"name": name.unwrap_or(""), "port": port})).collect();
        json!({
            "metadata": {"labels": marks, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", day + 1)},
            "spec": {"type": kind, "clusterIP": ip, "ports": ports, "sessionAffinity": if affinity { "ClientIP" } else { "None" }}
        })
    })
}

fn any_slice() -> impl Strategy<Value = Value> {
    let endpoints = collection::vec((an_address(), option::of(any::<bool>()), any::<bool>()), 0..4);
    let ports = collection::vec((option::of(a_name()), 79..83u16), 0..3);
    (a_name(), endpoints, ports).prop_map(|(of, endpoints, ports)| {
        let endpoints: Value = endpoints
            .iter()
            .map(|(at, ready, gone)| json!({"addresses": [at], "conditions": {"ready": ready, "terminating": gone}}))
            .collect();
        let ports: Value = ports.iter().map(|(name, port)| json!({"name": name.unwrap_or(""), "port": port})).collect();
        json!({"metadata": {"labels": {"kubernetes.io/service-name": of}}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports})
    })
}

/// A deed: an object of a kind and name is put, or goes.
type Deed = (u8, &'static str, &'static str, Option<Value>);

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let namespaces = || sample::select(["one", "two"].as_slice());
    let put = prop_oneof![
        4 => (Just(0u8), namespaces(), a_name(), option::weighted(0.8, any_service())),
        3 => (Just(1u8), namespaces(), a_name(), option::weighted(0.8, any_slice())),
        2 => (Just(2u8), namespaces(), a_name(), option::weighted(0.8, marks().prop_map(|marks| json!({"metadata": {"labels": marks}})))),
        1 => (Just(3u8), Just(""), namespaces(), option::weighted(0.8, marks().prop_map(|marks| json!({"metadata": {"labels": marks}})))),
    ];
    collection::vec(put, 0..60)
}

fn perform(objects: &mut Objects, (kind, namespace, name, value): &Deed) {
    fn change<K, T: PartialEq>(
        name: Name,
        value: Option<&Value>,
        keep: impl Fn(&K) -> Option<T>,
        to: &mut BTreeMap<Name, T>,
    ) where
        K: serde::de::DeserializeOwned,
    {
        let kept = value.and_then(|value| keep(&serde_json::from_value(value.clone()).unwrap()));
        kept.map_or_else(|| Change::Gone(name.clone()), |kept| Change::Put(name.clone(), kept)).apply(to);
    }
    let name = Name::new(namespace, name);
    let mut value = value.clone();
    if let Some(value) = &mut value {
        value["metadata"]["name"] = json!(&*name.name);
        value["metadata"]["namespace"] = json!(&*name.namespace);
        value["metadata"]["uid"] = json!(format!("{}-1", name.name));
    }
    let node = objects::Node::default();
    match kind {
        0 => change(name, value.as_ref(), |it: &wire::Service| Some(it.into()), &mut objects.services),
        1 => change(name, value.as_ref(), |it| Slice::new(it, &node), &mut objects.slices),
        2 => change(name, value.as_ref(), |it: &wire::Pod| Some(it.into()), &mut objects.pods),
        _ => change(name, value.as_ref(), |it: &wire::Namespace| Some(it.into()), &mut objects.namespaces),
    }
}

proptest! {
    /// Whatever the objects are: they make a table, none of them spoils another's, and each variant in it was asked for.
    #[test]
    fn any_objects_make_a_table(deeds in deeds()) {
        let mut objects = Objects::default();
        for deed in &deeds {
            perform(&mut objects, deed);
        }
        let built = build(&objects, 0);
        let table = built.table.unwrap();
        for service in table.services() {
            let (name, _) = service.name.split_once(':').unwrap();
            let (namespace, name) = name.split_once('/').unwrap();
            let base = Name::new(namespace, name);
            prop_assert!(objects.services.contains_key(&base));
            for environment in service.variants.keys() {
                let asked = objects.services.iter().any(|(_, it)| {
                    let of = it.marks.get("picop.dev/variant-of");
                    of == Some(name) || of == Some(&format!("{name}.{namespace}"))
                });
                prop_assert!(asked, "{environment} of {base}");
                let variants = &built.environments[environment];
                prop_assert_eq!(variants.iter().filter(|it| it.service == base).count(), 1);
            }
        }
        let pods = objects.pods.len();
        prop_assert!(table.workloads().len() <= pods);
    }

    /// The same objects make the same table, however they came to be: by a list, by changes, or by changes and lists between.
    #[test]
    fn lists_and_changes_come_to_the_same(deeds in deeds(), at in any::<sample::Index>()) {
        let mut by_changes = Objects::default();
        for deed in &deeds {
            perform(&mut by_changes, deed);
        }
        let mut by_list = Objects::default();
        for deed in &deeds[..at.index(deeds.len() + 1)] {
            perform(&mut by_list, deed);
        }
        let all = |from: &Objects| (from.services.clone(), from.slices.clone(), from.pods.clone(), from.namespaces.clone());
        let (services, slices, pods, namespaces) = all(&by_changes);
        Change::All(services.into_iter().rev().collect()).apply(&mut by_list.services);
        Change::All(slices.into_iter().rev().collect()).apply(&mut by_list.slices);
        Change::All(pods.into_iter().rev().collect()).apply(&mut by_list.pods);
        Change::All(namespaces.into_iter().rev().collect()).apply(&mut by_list.namespaces);
        prop_assert_eq!(&by_list, &by_changes);
        prop_assert!(build(&by_list, 0).table.unwrap().same_routes(&build(&by_changes, 0).table.unwrap()));
    }

    /// A variant that goes leaves the table as it was before it came.
    #[test]
    fn what_comes_and_goes_leaves_nothing(deeds in deeds(), of in a_name()) {
        let mut objects = Objects::default();
        for deed in &deeds {
            perform(&mut objects, deed);
        }
        let before = build(&objects, 0).table.unwrap();
        let mut value = service("variant", "10.9.9.9");
        value["metadata"]["labels"] = json!({"picop.dev/variant-of": of, "picop.dev/environment": "new"});
        perform(&mut objects, &(0, "one", "variant", Some(value)));
        perform(&mut objects, &(0, "one", "variant", None));
        prop_assert!(build(&objects, 0).table.unwrap().same_routes(&before));
    }
}

#[test]
fn addresses_are_those_of_hosts() {
    let is = |text: &str| crate::source::file::is_host(text.parse::<SocketAddr>().unwrap());
    assert!(is("10.0.0.1:80") && is("[fd00::1]:80"));
    assert!(
        !is("10.0.0.1:0")
            && !is("0.0.0.0:80")
            && !is("224.0.0.1:80")
            && !is("[::]:80")
            && !is("255.255.255.255:1")
    );
}

//! Cluster IPs that another program has translated to endpoints.

use super::*;

const BASE: &str = "10.244.0.10:8080";

fn cluster() -> Cluster {
    let mut cluster = Cluster { translation: Translation::Possible, ..Cluster::cart() };
    cluster.slice(slice("cart", json!([ready("10.244.0.10")])));
    cluster
}

fn meant(cluster: &Cluster, at: &str) -> Option<String> {
    cluster.table().service_meant(&at.parse().unwrap()).map(|service| service.name.clone())
}

#[test]
fn endpoints_of_bases_lead_to_their_services() {
    let mut cluster = cluster();
    assert_eq!(meant(&cluster, BASE).as_deref(), Some("shop/cart:80"));
    assert_eq!(meant(&cluster, VARIANT), None, "a variant's are where connections go");
    assert_eq!(cluster.goes("pr-1", BASE), [VARIANT]);
    assert_eq!(cluster.goes("pr-2", BASE), ["base"]);
    assert_eq!(cluster.problems(), [""; 0]);
    // One that terminates may still have been chosen.
    let going = json!({"addresses": ["10.244.0.12"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    cluster.slice(slice("cart", json!([ready("10.244.0.10"), going])));
    assert_eq!(meant(&cluster, "10.244.0.12:8080").as_deref(), Some("shop/cart:80"));
    // Where nobody translates, they are in no table, and change none.
    cluster.translation = Translation::None;
    assert_eq!(meant(&cluster, BASE), None);
}

#[test]
fn endpoints_that_may_be_anothers_lead_nowhere() {
    let mut cluster = cluster();
    let mut all = service("all", "None");
    all["spec"]["clusterIPs"] = json!(["None"]);
    cluster.service(all);
    cluster.slice(slice("all", json!([ready("10.244.0.10")])));
    assert_eq!(meant(&cluster, BASE), None);
    assert_eq!(cluster.problems(), ["cart: SharedEndpoints"]);
    // Another port of the pod is another address.
    let mut other = slice("all", json!([ready("10.244.0.10")]));
    other["ports"][0]["port"] = json!(9090);
    cluster.slice(other);
    assert_eq!(meant(&cluster, BASE).as_deref(), Some("shop/cart:80"));
    assert_eq!(cluster.problems(), [""; 0]);
    // A Service of which nothing is asked misses nothing.
    cluster.service(service("shop", "10.96.0.20"));
    cluster.service(service("shop-too", "10.96.0.21"));
    cluster.slice(slice("shop", json!([ready("10.244.0.30")])));
    cluster.slice(slice("shop-too", json!([ready("10.244.0.30")])));
    assert_eq!(cluster.problems(), [""; 0]);
}

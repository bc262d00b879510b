//! Where Services are reached.

use super::*;

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

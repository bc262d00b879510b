//! Which endpoints a variant has.

use super::*;

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

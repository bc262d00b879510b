//! What annotations, policies and Environments say.

use std::time::Duration;

use super::*;

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

    let mut cart = crate::source::kubernetes::names::HEADER.to_owned();
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
    cluster.policy(
        "for-all",
        json!({
            "service": {"name": "cart"}, "header": "Strip", "fallback": "Wait",
            "timeouts": {"connectSeconds": 2, "variantWaitSeconds": 90},
        }),
    );
    cluster.policy("later", json!({"service": {"name": "cart"}, "header": "Propagate"}));
    cluster.policy("none", json!({"service": {"name": "card"}}));
    cluster.policy("no-port", json!({"service": {"name": "cart", "port": 81}}));
    let table = cluster.table();
    let service = table.service_at(&CART.parse().unwrap()).unwrap();
    assert_eq!(
        (service.header, service.fallback, service.graft),
        (HeaderPolicy::Strip, Fallback::Wait, GraftPolicy::Never)
    );
    assert_eq!(
        (service.timeouts.connect, service.timeouts.variant_wait),
        (Some(Duration::from_secs(2)), Some(Duration::from_secs(90)))
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
                "environments": [{"name": "pr-1", "endpoints": [{"address": "192.0.2.11:5432"}]}, {"name": "pr-2", "endpoints": []}],
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
fn external_endpoints_have_weights() {
    let mut cluster = Cluster::cart();
    let endpoints = json!([
        {"address": "192.0.2.11:5432", "weight": 9}, {"address": "192.0.2.12:5432"}, {"address": "192.0.2.13:5432", "weight": 0},
        {"address": "192.0.2.14:5432", "weight": 1_000_001},
    ]);
    let external = json!({
        "addresses": ["192.0.2.10:5432"], "environments": [{"name": "pr-1", "endpoints": endpoints}],
    });
    cluster.policy("orders", json!({"external": external, "balancing": {"affinity": "Client"}}));
    let table = cluster.table();
    let service = table.service_at(&"192.0.2.10:5432".parse().unwrap()).unwrap();
    assert_eq!(service.balancing, Balancing::Client);
    let weights: Vec<_> =
        service.variants[&EnvId::new("pr-1").unwrap()].iter().map(|it| it.weight.get()).collect();
    assert_eq!(weights, [9, 1, 0]);
    assert_eq!(cluster.problems(), ["orders: BadWeight"]);
}

#[test]
fn a_policy_says_which_endpoints_are_taken() {
    let hinted = |address: &str, node: &str, zone: &str| {
        json!({
            "addresses": [address], "conditions": {"ready": true}, "nodeName": node,
            "hints": {"forZones": [{"name": zone}]},
        })
    };
    let mut cluster = Cluster::cart();
    cluster.slice(slice(
        "cart-pr-1",
        json!([
            hinted("10.0.0.1", "node-1", "zone-b"),
            hinted("10.0.0.2", "node-2", "zone-a"),
            hinted("10.0.0.3", "node-3", "zone-b"),
        ]),
    ));
    let all = vec!["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"];
    assert_eq!(cluster.goes("pr-1", CART), ["10.0.0.2:8080"], "our zone's");
    for (topology, goes) in
        [("Hints", vec!["10.0.0.2:8080"]), ("PreferSameNode", vec!["10.0.0.1:8080"]), ("Ignore", all)]
    {
        cluster.policy("cart", json!({"service": {"name": "cart"}, "balancing": {"topology": topology}}));
        assert_eq!(cluster.goes("pr-1", CART), goes, "{topology}");
    }
    cluster.policy("cart", json!({"service": {"name": "cart"}, "balancing": {"topology": "PreferSameNode"}}));
    cluster.slice(slice(
        "cart-pr-1",
        json!([hinted("10.0.0.2", "node-2", "zone-a"), hinted("10.0.0.3", "node-3", "zone-b")]),
    ));
    assert_eq!(cluster.goes("pr-1", CART), ["10.0.0.2:8080"], "none is here: as the hints say");
}

#[test]
fn affinity_is_a_policys_or_else_the_variants_own() {
    let balancing = |cluster: &Cluster| cluster.table().service_at(&CART.parse().unwrap()).unwrap().balancing;
    let mut cluster = Cluster::cart();
    let mut sticky = variant("cart-pr-1", "pr-1");
    sticky["spec"]["sessionAffinity"] = json!("ClientIP");
    for affinity in ["Client", "None"] {
        cluster.policy("cart", json!({"service": {"name": "cart"}, "balancing": {"affinity": affinity}}));
        let expected = if affinity == "Client" { Balancing::Client } else { Balancing::Weighted };
        for variant in [variant("cart-pr-1", "pr-1"), sticky.clone()] {
            cluster.service(variant);
            assert_eq!(balancing(&cluster), expected);
            assert_eq!(cluster.goes("pr-1", CART), [VARIANT], "its endpoints, not its cluster IP");
        }
    }
    // Where connects are translated before picop, nobody would translate the variant's cluster IP after it.
    cluster.policy("cart", json!({"service": {"name": "cart"}}));
    assert_eq!(cluster.goes("pr-1", CART), ["10.96.0.99:80"]);
    cluster.translation = Translation::Possible;
    assert_eq!(
        (balancing(&cluster), cluster.goes("pr-1", CART)),
        (Balancing::Client, vec![VARIANT.to_owned()])
    );
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

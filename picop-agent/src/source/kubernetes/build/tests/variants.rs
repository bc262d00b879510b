//! Who is a variant of what.

use super::*;

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

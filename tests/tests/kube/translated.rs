//! Beside a socket load-balancer on the same cgroup: cluster IPs are translated before picop sees a connection.

use crate::translator::Translator;
use serde_json::json;
use testbed::kube::Kind;
use testbed::kube::objects::{service, slice};
use testbed::require_privilege;

use crate::Result;
use crate::shop::{PORT, Shop, logged, serve};

#[test]
fn a_cluster_ip_that_was_translated_is_still_its_services() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("socket-lb")?;
    let mut translator = Translator::attach(&shop.cluster.cgroup_dir())?;
    translator.translate(shop.cart, shop.base.at4(PORT))?;
    shop.label_client()?;
    let agent = shop.agent()?;
    shop.until_served_by("cart")?;
    let before = translator.translated()?;
    shop.label_service()?;
    shop.until_served_by("cart-pr-1")?;
    assert!(translator.translated()? > before, "picop saw an endpoint");

    // The base moves on, and the balancer with it.
    let second = shop.cluster.pod("cart-2")?;
    let _server = serve(&second)?;
    shop.server.apply(slice("cart", &[second.at4(PORT)]))?;
    translator.translate(shop.cart, second.at4(PORT))?;
    shop.until_served_by("cart-pr-1")?;
    shop.server.delete(Kind::Service, "shop", "cart-pr-1")?;
    shop.until_served_by("cart-2")?;
    shop.label_service()?;
    shop.until_served_by("cart-pr-1")?;

    // Another Service over the same pods: whose connection it is cannot be told any more, and that is.
    let from = agent.log_lines().len();
    shop.server.apply_all([service("cart-too", shop.unused()), slice("cart-too", &[second.at4(PORT)])])?;
    let line = logged(&agent, from, "asks for what is not done")?;
    assert_eq!((&line["reason"], &line["object"]), (&json!("SharedEndpoints"), &json!("shop/cart")));
    shop.until_served_by("cart-2")?;
    shop.server.delete(Kind::Service, "shop", "cart-too")?;
    shop.until_served_by("cart-pr-1")
}

/// A variant whose Service has `sessionAffinity` would be led to its cluster IP, which nobody translates behind picop here.
#[test]
fn a_variant_with_affinity_is_balanced_by_picop() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("socket-lb-affinity")?;
    let mut translator = Translator::attach(&shop.cluster.cgroup_dir())?;
    translator.translate(shop.cart, shop.base.at4(PORT))?;
    shop.label_client()?;
    let more: Vec<_> = (2..=4)
        .map(|n| shop.cluster.pod(format!("pr-1-{n}").as_str()))
        .collect::<std::result::Result<_, _>>()?;
    let _servers: Vec<_> = more.iter().map(serve).collect::<Result<_>>()?;
    let all: Vec<_> = more.iter().chain([&shop.pr_1]).map(|pod| pod.at4(PORT)).collect();
    shop.server.apply(slice("cart-pr-1", &all))?;
    shop.label_service()?;
    shop.server
        .edit(Kind::Service, "shop", "cart-pr-1", |it| it["spec"]["sessionAffinity"] = json!("ClientIP"))?;
    let _agent = shop.agent()?;
    let served = testbed::wait_until("a variant serves", crate::shop::SOON, || {
        shop.who().ok().filter(|who| who != "cart")
    })?;
    for _ in 0..20 {
        assert_eq!(shop.who()?, served, "a client stays");
    }
    Ok(())
}

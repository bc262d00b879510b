//! What a ServicePolicy says of balancing, from the API to the kernel's table and to connections.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testbed::kube::Kind;
use testbed::kube::objects::{object, slice};
use testbed::{Agent, Asked, eventually, require_privilege};

use crate::Result;
use crate::shop::{NODE, PORT, SOON, Shop, logged, serve};

fn policy(balancing: &Value) -> Value {
    let mut policy = object(Kind::ServicePolicy, "cart");
    policy["spec"] = json!({"service": {"name": "cart"}, "balancing": balancing});
    policy
}

/// Who serves so many connections of the client's, one after the other.
fn served(shop: &Shop, connections: usize) -> Result<BTreeSet<String>> {
    (0..connections).map(|_| shop.who()).collect()
}

/// The kernel holds what the objects say.
fn verified(agent: &Agent) -> Result {
    let verified = Asked::at(agent.admin_socket())?.get("/v1/routes/verify")?;
    assert_eq!(verified["same"], true, "{verified:#}");
    Ok(())
}

#[test]
fn clients_stay_or_keep_to_their_node_as_a_policy_says() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("balancing")?;
    let more: Vec<_> = (2..=6)
        .map(|n| shop.cluster.pod(format!("pr-1-{n}").as_str()))
        .collect::<std::result::Result<_, _>>()?;
    let _servers: Vec<_> = more.iter().map(serve).collect::<Result<_>>()?;
    let all: Vec<_> = more.iter().chain([&shop.pr_1]).map(|pod| pod.at4(PORT)).collect();
    shop.server.apply(slice("cart-pr-1", &all))?;
    shop.server.edit(Kind::EndpointSlice, "shop", "cart-pr-1-x7k2p", |it| {
        it["endpoints"][2]["nodeName"] = json!(NODE);
    })?;
    shop.label_client()?;
    shop.label_service()?;
    let agent = shop.agent()?;
    shop.until_served_by(more[0].name())?;
    // By chance; six at a time are the same once in 6^29 times.
    assert!(served(&shop, 30)?.len() > 1);

    shop.server.apply(policy(&json!({"affinity": "Client"})))?;
    let one = || served(&shop, 30).is_ok_and(|who| who.len() == 1);
    assert!(eventually(SOON, one), "{:?}", served(&shop, 30)?);
    verified(&agent)?;
    let stayed = served(&shop, 30)?;
    // One that is not the client's goes: that is nothing to it. Its own goes: it has another.
    let gone = |who: &str| -> Vec<_> {
        let pods = more.iter().chain([&shop.pr_1]).filter(|pod| pod.name() != who);
        pods.map(|pod| pod.at4(PORT)).collect()
    };
    let other = more.iter().map(testbed::Pod::name).find(|name| !stayed.contains(*name)).ok_or("another")?;
    let from = agent.log_lines().len();
    shop.server.apply(slice("cart-pr-1", &gone(other)))?;
    logged(&agent, from, "routes in effect")?;
    assert_eq!(served(&shop, 10)?, stayed);
    let own = stayed.first().ok_or("one")?;
    shop.server.apply(slice("cart-pr-1", &gone(own)))?;
    assert!(eventually(SOON, || served(&shop, 10).is_ok_and(|who| who.len() == 1 && who != stayed)));

    shop.server.apply(slice("cart-pr-1", &all))?;
    shop.server.edit(Kind::EndpointSlice, "shop", "cart-pr-1-x7k2p", |it| {
        it["endpoints"][2]["nodeName"] = json!(NODE);
    })?;
    shop.server.apply(policy(&json!({"topology": "PreferSameNode"})))?;
    let here = BTreeSet::from([more[2].name().to_owned()]);
    assert!(eventually(SOON, || served(&shop, 30).is_ok_and(|who| who == here)), "{:?}", served(&shop, 30)?);
    shop.server.apply(policy(&json!({"topology": "Ignore", "affinity": "None"})))?;
    assert!(eventually(SOON, || served(&shop, 30).is_ok_and(|who| who.len() > 1)));
    verified(&agent)
}

//! Everything that lists and watches can do wrong.

use std::time::Duration;

use serde_json::json;
use testbed::kube::objects::{labelled, pod, service, slice, variant};
use testbed::kube::{Faults, Kind};
use testbed::{eventually, require_privilege};

use crate::Result;
use crate::shop::{NODE, PORT, SOON, Shop, logged};

/// Every way to fail, each followed by a change that must arrive.
#[test]
fn whatever_fails_changes_arrive() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("streams")?;
    shop.label_client()?;
    let agent = shop.agent()?;
    let mut labelled = false;
    let mut turn = |what: &str| -> Result {
        labelled = !labelled;
        if labelled {
            shop.label_service()?;
        } else {
            shop.server.apply(service("cart-pr-1", shop.unused()))?;
        }
        let who = if labelled { "cart-pr-1" } else { "cart" };
        shop.until_served_by(who).map_err(|error| format!("{what}: {error}").into())
    };
    turn("at first")?;
    shop.server.cut();
    turn("connections cut")?;
    // In the middle of a line, again and again.
    shop.server.fail(|faults| faults.cut_after = Some(1));
    turn("streams cut after an event")?;
    shop.server.fail(|faults| faults.cut_after = Some(0));
    shop.server.fail(|faults| *faults = Faults::default());
    turn("streams whole again")?;
    shop.server.fail(|faults| faults.slow = Some(Duration::from_millis(300)));
    turn("slow")?;
    for gone_at_once in [false, true] {
        shop.server.fail(|faults| *faults = Faults { gone_at_once, ..Faults::default() });
        shop.server.set_there(false);
        shop.server.delete(Kind::Service, "shop", "cart-pr-1")?;
        labelled_off(&shop)?;
        shop.server.compact();
        shop.server.set_there(true);
    }
    shop.server.fail(|faults| *faults = Faults::default());
    shop.until_served_by("cart")?;
    let before = agent.log_lines().len();
    shop.server.fail(|faults| faults.unauthorized = true);
    shop.server.cut();
    logged(&agent, before, "cannot follow the cluster's objects")?;
    shop.server.fail(|faults| faults.unauthorized = false);
    shop.label_service()?;
    shop.until_served_by("cart-pr-1")?;
    // No list was needed but the first ones and those after 410.
    let lists = shop
        .server
        .requests()
        .iter()
        .filter(|it| it.contains("/services?") && !it.contains("watch="))
        .count();
    assert!((1..=4).contains(&lists), "{lists} lists of Services");
    Ok(())
}

fn labelled_off(shop: &Shop) -> Result {
    Ok(shop.server.apply(service("cart-pr-1", shop.unused()))?)
}

#[test]
fn without_its_own_kinds() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("no-kinds")?;
    shop.server.set_definitions(false);
    shop.label_client()?;
    shop.label_service()?;
    let agent = shop.agent()?;
    assert_eq!(shop.who()?, "cart-pr-1");
    assert!(agent.is_ready());
    Ok(())
}

const PODS: usize = 200;
const SERVICES: usize = 10_000;

/// 10,000 Services and 50,000 endpoints, some of them variants, in bursts; then what the agent needs for them.
#[test]
fn a_large_cluster() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("large")?;
    shop.label_client()?;
    shop.label_service()?;
    let small = {
        let agent = shop.agent()?;
        assert_eq!(shop.who()?, "cart-pr-1");
        agent.resident()?
    };
    let at = |n: usize, port| {
        let [_, _, high, low] = u32::try_from(n).unwrap_or_default().to_be_bytes();
        std::net::SocketAddr::from(([10, 100, high, low], port))
    };
    let objects = (0..SERVICES).flat_map(|n| {
        let name = format!("service-{n}");
        let endpoints: Vec<_> = (0..5).map(|e| at(n * 5 + e, 8080)).collect();
        let of = match n % 10 {
            0 => variant(&name, at(n, PORT), &format!("service-{}", n + 1), "pr-1"),
            _ => service(&name, at(n, PORT)),
        };
        [of, slice(&name, &endpoints)]
    });
    shop.server.apply_all(objects)?;
    // As many Pods as a node may have, and as many elsewhere.
    shop.server.apply_all((0..PODS * 2).map(|n| {
        let node = if n < PODS { NODE } else { "node-2" };
        let labels = json!({"picop.dev/environment": format!("pr-{n}"), "app": "large"});
        labelled(pod(&format!("pod-{n}"), &format!("00000000-0000-4000-9000-{n:012x}"), node), labels)
    }))?;
    let agent = shop.agent()?;
    assert_eq!(shop.who()?, "cart-pr-1");
    let listed = agent.resident()?;
    // Every one changes, at once.
    let before = agent.log_lines().len();
    shop.server.apply_all((0..SERVICES).filter(|n| n % 10 == 1).map(|n| {
        let of = if n % 20 == 1 { n + 1 } else { n - 1 };
        variant(&format!("service-{n}"), at(n, PORT), &format!("service-{of}"), "pr-2")
    }))?;
    logged(&agent, before, "routes in effect")?;
    shop.server.delete(Kind::Service, "shop", "cart-pr-1")?;
    shop.until_served_by("cart")?;
    assert!(eventually(SOON, || agent.is_ready()));
    let burst = agent.resident()?;
    let mb = |bytes: u64| bytes / (1 << 20);
    println!(
        "resident: {} MB with a small cluster, {} MB with {SERVICES} Services, {} endpoints and {PODS} Pods of its own, {} MB after a burst",
        mb(small),
        mb(listed),
        SERVICES * 5,
        mb(burst)
    );
    assert!(burst - small < 64 << 20, "{} MB more than for a small cluster", mb(burst - small));
    Ok(())
}

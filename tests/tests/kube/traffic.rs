//! Labels change while traffic flows.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use testbed::kube::Kind;
use testbed::{Proc, require_privilege, wait_until};

use crate::Result;
use crate::shop::{SOON, Shop, logged};

/// The promise.
const WITHIN: Duration = Duration::from_secs(1);

/// One request of `hop load`.
#[derive(Debug, Deserialize)]
struct Sample {
    answer: Option<String>,
    error: Option<String>,
}

fn count(load: &Proc, who: &str) -> usize {
    load.stdout().matches(&format!("\\\"{who}\\\"")).count()
}

#[test]
fn a_label_routes_and_its_end_routes_back() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("labelled")?;
    shop.label_client()?;
    let agent = shop.agent()?;
    let mut command = shop.client.hop(["load", "--to", &shop.cart.to_string()])?;
    command.stdin(Stdio::piped());
    let mut load = shop.client.spawn("load", command)?;
    let served = |who: &str, since: usize| {
        wait_until(&format!("{who} serves"), SOON, || (count(&load, who) > since).then_some(()))
    };
    served("cart", 50)?;
    assert_eq!(count(&load, "cart-pr-1"), 0);

    let labelled = Instant::now();
    shop.label_service()?;
    served("cart-pr-1", 0)?;
    let took = labelled.elapsed();
    assert!(took < WITHIN, "routed after {took:?}");
    served("cart-pr-1", 50)?;

    let (version, before) = (agent.log_lines().len(), count(&load, "cart"));
    shop.server.delete(Kind::Service, "shop", "cart-pr-1")?;
    served("cart", before)?;
    logged(&agent, version, "routes in effect")?;
    let settled = count(&load, "cart");
    served("cart", settled + 50)?;

    drop(load.take_stdin());
    load.wait(SOON)?;
    let output = load.stdout();
    let samples: Vec<Sample> =
        output.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let failed: Vec<_> =
        samples.iter().filter(|sample| sample.answer.is_none()).map(|it| &it.error).collect();
    assert!(failed.is_empty(), "{} of {} requests failed: {failed:?}", failed.len(), samples.len());
    println!("routed {took:?} after the label; {} requests, none failed", samples.len());
    Ok(())
}

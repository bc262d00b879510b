//! The API server goes, and comes back.

use std::path::Path;
use std::time::{Duration, Instant};

use testbed::kube::Kind;
use testbed::{Agent, AgentOptions, BpfFs, eventually, require_privilege};

use crate::Result;
use crate::shop::{SOON, Shop, logged};

/// What users are promised.
const OUTAGE: Duration = Duration::from_secs(60);

#[test]
fn the_last_known_state_holds() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("outage")?;
    shop.label_client()?;
    shop.label_service()?;
    let agent = shop.agent()?;
    assert_eq!(shop.who()?, "cart-pr-1");
    shop.server.set_there(false);
    let (since, mut count) = (Instant::now(), 0_u32);
    // Longer than the grace: not ready, and otherwise as before.
    logged(&agent, 0, "the cluster is not followed")?;
    assert!(eventually(SOON, || !agent.is_ready()));
    // For a whole minute connections go where they went: nothing that is forgotten after a while is needed.
    while since.elapsed() < OUTAGE {
        assert_eq!(shop.who()?, "cart-pr-1", "after {:?}", since.elapsed());
        count += 1;
        std::thread::sleep(OUTAGE / 600);
    }
    assert!(count >= 100, "{count} connections in a minute");
    // What happened meanwhile is known afterwards: also when the server has forgotten what was seen last.
    shop.server.delete(Kind::Service, "shop", "cart-pr-1")?;
    shop.server.compact();
    assert_eq!(shop.who()?, "cart-pr-1");
    shop.server.set_there(true);
    shop.until_served_by("cart")?;
    logged(&agent, 0, "the cluster is followed again")?;
    assert!(eventually(SOON, || agent.is_ready()));
    shop.label_service()?;
    shop.until_served_by("cart-pr-1")?;
    Ok(())
}

fn pinned(shop: &Shop, dir: &Path, unready: bool) -> Result<Agent> {
    let args = vec!["--pin-dir".to_owned(), dir.display().to_string()];
    Ok(Agent::start_with(&shop.cluster, AgentOptions { args, unready, ..shop.options()? })?)
}

#[test]
fn an_agent_that_starts_meanwhile_changes_nothing() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("outage-restart")?;
    shop.label_client()?;
    shop.label_service()?;
    let bpf = BpfFs::mount(&shop.cluster)?;
    let first = pinned(&shop, &bpf.pin_dir(), false)?;
    assert_eq!(shop.who()?, "cart-pr-1");
    shop.server.set_there(false);
    assert!(first.stop()?.success());
    assert_eq!(shop.who()?, "cart-pr-1");
    let second = pinned(&shop, &bpf.pin_dir(), true)?;
    logged(&second, 0, "cannot follow the cluster's objects")?;
    assert!(!second.is_ready());
    for _ in 0..3 {
        assert_eq!(shop.who()?, "cart-pr-1");
    }
    shop.server.set_there(true);
    logged(&second, 0, "ready")?;
    assert_eq!(shop.who()?, "cart-pr-1");
    shop.server.delete(Kind::Service, "shop", "cart-pr-1")?;
    shop.until_served_by("cart")?;
    // One that waits for its cluster ends when it is told to.
    shop.server.set_there(false);
    let mut third = Agent::start_with(&shop.cluster, AgentOptions { unready: true, ..shop.options()? })?;
    logged(&third, 0, "cannot follow the cluster's objects")?;
    third.signal(rustix::process::Signal::TERM)?;
    assert!(third.wait(SOON)?.success());
    Ok(())
}

//! The direct path needs no agent that answers, only one that exists.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use testbed::{eventually, require_privilege};

use super::{Direct, pr_1};
use crate::common::{Result, answer, hello, soon};

/// Longer than the kernel believes in an agent that does not answer.
const PAST_STALE: Duration = Duration::from_millis(2500);

#[test]
fn an_agent_that_hangs_is_not_missed() -> Result {
    require_privilege!(Ok(()));
    for policy in ["propagate", "strip"] {
        let it = Direct::new(&format!("hangs-{policy}"), policy)?;
        it.agent.signal(Signal::STOP)?;
        let start = Instant::now();
        let mut number = 0;
        while start.elapsed() < PAST_STALE {
            for vip in [it.vip, it.vip6] {
                assert_eq!(answer(&hello(vip).run(&it.scene.client)?), "variant");
                let front = if policy == "propagate" { pr_1() } else { Vec::new() };
                assert_eq!(it.server.whole(number)?.0, [front, b"hello".to_vec()].concat());
                number += 1;
            }
        }
        it.agent.signal(Signal::CONT)?;
    }
    Ok(())
}

#[test]
fn without_pins_everything_goes_with_the_agent() -> Result {
    require_privilege!(Ok(()));
    let mut it = Direct::new("no-pins", "propagate")?;
    assert_eq!(answer(&hello(it.vip).run(&it.scene.client)?), "variant");
    it.agent.kill9()?;
    let gone = eventually(soon(), || {
        hello(it.vip).run(&it.scene.client).is_ok_and(|report| report.stage.as_deref() == Some("connect"))
    });
    assert!(gone, "connections are routed still");
    Ok(())
}

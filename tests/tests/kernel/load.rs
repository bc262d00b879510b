//! Many connections at the same time.

use std::fs;

use testbed::{Agent, Client, eventually, require_privilege};

use crate::common::{Result, Routes, Scene, answer, base, hello, scaled, soon, variants};

/// Payload of each.
const BYTES: u64 = 3000;

#[test]
fn two_thousand_connections_at_once() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("many")?;
    let main = scene.recorder("main")?;
    let (variant, _echo) = scene.echo("variant")?;
    let vip = scene.vip();
    let settings =
        format!("expect_header: always, {}, {}", base(&[main.at]), variants(&[("pr-1", &[variant])]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload("context: header"));
    let agent = scene.agent(&routes, &["--header-timeout", "2m"])?;
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "main");
    agent.wait_access(1, |_| true)?;
    let before = descriptors(&agent)?;

    let count = scaled(2000);
    // All are connected before the first one sends its header.
    let client = Client::to(vip).header("env", "pr-1").upload(BYTES).half_close().read_all().expect_blob();
    let summary = client.arg("--together").timeout(soon() * 6).run_many(&scene.client, count, count)?;
    assert!(summary.ok, "{summary:?}");
    assert_eq!((summary.succeeded, summary.bytes), (count, BYTES * count as u64));

    let lines = agent.wait_access(count, |line| line["reason"] == "variant")?;
    assert_eq!(lines.len(), count);
    for line in &lines {
        assert_eq!(line["outcome"], "ok", "{line}");
        assert_eq!(
            (line["bytes_up"].as_u64(), line["bytes_down"].as_u64()),
            (Some(BYTES), Some(BYTES)),
            "{line}"
        );
    }
    assert_eq!((agent.access_lines().len(), main.count()), (count + 1, 1));
    let mut left = 0;
    let closed = eventually(soon(), || {
        left = descriptors(&agent).unwrap_or(usize::MAX);
        left <= before
    });
    assert!(closed, "{left} descriptors are open, and {before} were before");
    Ok(())
}

#[test]
fn one_after_the_other_leaves_nothing_open() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("churn")?;
    let (variant, _echo) = scene.echo("variant")?;
    let vip = scene.vip();
    let routes = Routes::new()
        .service("cart", &[vip], &variants(&[("pr-1", &[variant])]))
        .workload(scene.workload("environment: pr-1"));
    let agent = scene.agent(&routes, &[])?;
    let client = Client::to(vip).text("x").half_close().read_all().timeout(soon());
    assert!(client.run(&scene.client)?.ok);
    agent.wait_access(1, |_| true)?;
    let before = descriptors(&agent)?;
    let count = scaled(2000);
    let summary = client.run_many(&scene.client, count, 8)?;
    assert!(summary.ok && summary.bytes == count as u64, "{summary:?}");
    agent.wait_access(count + 1, |line| line["outcome"] == "ok" && line["bytes_down"] == 1)?;
    assert!(eventually(soon(), || descriptors(&agent).is_ok_and(|now| now <= before)));
    Ok(())
}

fn descriptors(agent: &Agent) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count())
}

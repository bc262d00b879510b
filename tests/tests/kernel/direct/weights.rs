//! Endpoints of different weights, on both paths.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use testbed::{Agent, Client, Pod, require_privilege};

use super::AUTO;
use super::routing::{EJECTION_S, echoes};
use crate::common::{Result, Routes, Scene, expect, hello, scaled, soon, workload};

/// The last one is drained.
const WEIGHTS: [u32; 4] = [1, 2, 5, 0];
const HEAVIEST: usize = 2;

/// A share that is drawn by the right weights is told to be wrong less than once in 10^9 times: e^-21.4 is half of that,
/// one for each direction, with some to spare for the number of shares.
const SURELY: f64 = 25.0;

/// A list of endpoints with weights, as YAML.
fn weighted(endpoints: &[(SocketAddr, u32)]) -> String {
    let entries: Vec<_> =
        endpoints.iter().map(|(at, weight)| format!("{{address: \"{at}\", weight: {weight}}}")).collect();
    format!("[{}]", entries.join(", "))
}

/// Checks that each count is what its share of the weights makes likely. By Chernoff's bound, which holds for any number of
/// connections: the chance of a share like the one seen, or worse, is at most e to the -(count * divergence).
#[track_caller]
fn expect_shares(name: &str, counts: &[usize], weights: &[u32]) {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap());
    let (total, weight) = (number(counts.iter().sum()), f64::from(weights.iter().sum::<u32>()));
    for (count, of) in counts.iter().zip(weights) {
        let (seen, fair) = (number(*count) / total, f64::from(*of) / weight);
        let term = |seen: f64, fair: f64| if seen == 0.0 { 0.0 } else { seen * (seen / fair).ln() };
        let divergence = term(seen, fair) + term(1.0 - seen, 1.0 - fair);
        assert!(total * divergence < SURELY, "{name}: {counts:?} of {weights:?}");
    }
    assert!(total > 0.0, "{name}: nothing counted");
}

/// How many connections of a pod, after the first `known` lines, went to which endpoint.
fn counts(agent: &Agent, pod: &Pod, at: &[SocketAddr], known: usize, count: usize) -> Result<Vec<usize>> {
    let of_pod = |line: &serde_json::Value| line["workload"] == pod.cgroup_path_rel();
    let lines = agent.wait_access(known + count, of_pod)?;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for line in &lines[known..] {
        *counts.entry(line["backend"].as_str().unwrap_or_default()).or_default() += 1;
    }
    assert_eq!(lines.len(), known + count);
    Ok(at.iter().map(|at| counts.get(at.to_string().as_str()).copied().unwrap_or(0)).collect())
}

#[test]
fn connections_are_spread_by_weight_and_the_share_of_a_dead_endpoint_too() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("weights")?;
    let mut servers = echoes(&scene, WEIGHTS.len())?;
    let relayed = scene.cluster.pod("relayed")?;
    let vip = scene.vip();
    let at: Vec<_> = servers.iter().map(|(_, at, _)| *at).collect();
    let list = weighted(&at.iter().copied().zip(WEIGHTS).collect::<Vec<_>>());
    let routes = Routes::new()
        .service("cart", &[vip], &format!("header: strip, variants: {{pr-1: {list}}}"))
        .workload(scene.workload(AUTO))
        .workload(workload(&relayed, "environment: pr-1"));
    let agent = scene.agent(&routes, &[])?;
    let client = Client::to(vip).text("hello").half_close().read_all().timeout(soon());
    let paths = [("direct", &scene.client), ("relay", &relayed)];
    let many = scaled(4000);
    for (path, pod) in paths {
        let summary = client.run_many(pod, many, 4)?;
        assert!(summary.ok, "{path}: {summary:?}");
        let counts = counts(&agent, pod, &at, 0, many)?;
        assert_eq!(counts[3], 0, "{path}: a drained endpoint got some");
        expect_shares(path, &counts[..3], &WEIGHTS[..3]);
        expect(
            &agent.wait_access(1, |line| line["workload"] == pod.cgroup_path_rel())?[0],
            &[("path", path)],
        );
    }

    servers[HEAVIEST].2.take();
    for (path, pod) in paths {
        let start = Instant::now();
        let summary = client.run_many(pod, many, 1)?;
        // By the kernel, once each time that it is tried again; the relay goes on to the next one by itself.
        let most = if path == "direct" { 1 + start.elapsed().as_secs() / EJECTION_S } else { 0 };
        assert!(summary.failed as u64 <= most, "{path}: {summary:?}");
        let mut counts = counts(&agent, pod, &at, many, many)?;
        assert_eq!(counts[3], 0, "{path}: a drained endpoint stood in");
        assert_eq!(counts.remove(HEAVIEST), summary.failed, "{path}");
        expect_shares(&format!("{path}, without the heaviest"), &counts[..2], &WEIGHTS[..2]);
    }
    Ok(())
}

/// Nothing but weights of 0 is a variant that has nothing ready, and fills when a weight changes.
#[test]
fn a_variant_that_is_drained_is_empty() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("drained")?;
    let (main, variant) = (scene.recorder("main")?, scene.recorder("variant")?);
    let relayed = scene.cluster.pod("relayed")?;
    let (vip, strict) = (scene.vip(), scene.vip());
    let routes = |weight: u32| {
        let settings = format!(
            "base: {}, variants: {{pr-1: {}}}",
            weighted(&[(main.at, 1)]),
            weighted(&[(variant.at, weight)])
        );
        Routes::new()
            .service("cart", &[vip], &settings)
            .service("strict", &[strict], &format!("fallback: refuse, {settings}"))
            .workload(scene.workload(AUTO))
            .workload(workload(&relayed, "environment: pr-1"))
    };
    let agent = scene.agent(&routes(1), &[])?;
    let pods = [&scene.client, &relayed];
    let ask = |to| -> Result<Vec<_>> {
        pods.iter().map(|pod| Ok(hello(to).run(pod)?)).map(|report: Result<_>| Ok(report?.text)).collect()
    };
    assert_eq!((ask(vip)?, ask(strict)?), (vec!["variant\n".to_owned(); 2], vec!["variant\n".to_owned(); 2]));
    agent.routes(&routes(0).to_string())?;
    assert_eq!((ask(vip)?, ask(strict)?), (vec!["main\n".to_owned(); 2], vec![String::new(); 2]));
    for pod in pods {
        let lines = agent.wait_access(4, |line| line["workload"] == pod.cgroup_path_rel())?;
        let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().unwrap_or_default()).collect();
        assert_eq!(reasons, ["variant", "variant", "variant_empty_base", "variant_empty_refused"]);
    }
    agent.routes(&routes(1_000_000).to_string())?;
    assert_eq!(ask(strict)?, vec!["variant\n".to_owned(); 2]);
    Ok(())
}

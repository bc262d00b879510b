//! Clients that stay with an endpoint: the same one on both paths, and another one when it fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use testbed::{Client, Pod, require_privilege};

use super::AUTO;
use super::routing::echoes;
use crate::common::{Result, Routes, Scene, change_workloads, scaled, soon, workload};

const SERVERS: usize = 6;
const CLIENTS: usize = 8;

#[test]
fn a_client_stays_with_an_endpoint_on_both_paths() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("by-client")?;
    let mut servers = echoes(&scene, SERVERS)?;
    let at: Vec<_> = servers.iter().map(|(_, at, _)| *at).collect();
    let mut pods = Vec::new();
    for number in 1..CLIENTS {
        pods.push(scene.cluster.pod(format!("client-{number}").as_str())?);
    }
    let pods: Vec<_> = pods.iter().chain([&scene.client]).collect();
    let vip = scene.vip();
    let list = at.iter().map(|at| format!("\"{at}\"")).collect::<Vec<_>>().join(", ");
    let routes = |path: &str| {
        let routes = Routes::new().service(
            "cart",
            &[vip],
            &format!("header: strip, balancing: client, variants: {{pr-1: [{list}]}}"),
        );
        pods.iter().fold(routes, |routes, pod| routes.workload(workload(pod, path)))
    };
    let agent = scene.agent(&routes(AUTO), &[])?;
    let client = Client::to(vip).text("hello").half_close().read_all().timeout(soon());
    let many = scaled(200);
    // Where each client's connections went, of the lines that its pod has now.
    let mut seen = 0;
    let mut went = |count: usize, lost: usize| -> Result<BTreeMap<String, SocketAddr>> {
        let mut homes = BTreeMap::new();
        for pod in &pods {
            let of_pod = |line: &serde_json::Value| line["workload"] == pod.cgroup_path_rel();
            let lines = agent.wait_access(seen + count, of_pod)?;
            let mut to: Vec<SocketAddr> =
                lines[seen..].iter().filter_map(|line| line["backend"].as_str()?.parse().ok()).collect();
            to.sort();
            to.dedup_by_key(|at| *at);
            assert!(to.len() == 1 || lost > 0, "{}: {to:?}", pod.name());
            homes.insert(pod.name().to_owned(), *to.last().ok_or("nowhere")?);
        }
        seen += count;
        Ok(homes)
    };
    let all = |pods: &[&Pod]| -> Result {
        for pod in pods {
            let summary = client.run_many(pod, many, 4)?;
            assert!(summary.ok, "{}: {summary:?}", pod.name());
        }
        Ok(())
    };
    all(&pods)?;
    let direct = went(many, 0)?;
    let used: std::collections::BTreeSet<_> = direct.values().collect();
    // Eight clients with one of six servers: once in 6^7 times.
    assert!(used.len() > 1, "{direct:?}");

    change_workloads(&agent, &routes("environment: pr-1, path: relay"))?;
    all(&pods)?;
    assert_eq!(went(many, 0)?, direct, "relayed");
    let relayed = agent.access_lines().iter().filter(|line| line["path"] == "relay").count();
    assert_eq!(relayed, many * pods.len());

    // A server goes without a word. The relay's connections go on to the next one of each client, and none fails.
    let gone = direct[scene.client.name()];
    let number = at.iter().position(|at| *at == gone).ok_or("a server")?;
    servers[number].2.take();
    all(&pods)?;
    let after = went(many, 0)?;
    for (client, home) in &direct {
        if *home == gone {
            assert_ne!(after[client], gone);
        } else {
            assert_eq!(after[client], *home, "{client} has lost nothing");
        }
    }
    Ok(())
}

//! Pods are found wherever kubelet and runtime put them, and followed through restarts.

use std::fs;

use serde_json::json;
use testbed::kube::objects::{labelled, pod, variant};
use testbed::kube::{Kind, Layout};
use testbed::{PodSpec, Talker, eventually, require_privilege};

use crate::Result;
use crate::shop::{CLIENT_UID, NODE, SOON, Shop, logged};

/// Ends all that runs in a cgroup.
fn end_all(cgroup: &std::path::Path) -> Result {
    fs::write(cgroup.join("cgroup.kill"), "1")?;
    let empty = || fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty());
    assert!(eventually(SOON, empty), "the processes of {} do not end", cgroup.display());
    Ok(())
}

#[test]
fn every_layout() -> Result {
    require_privilege!(Ok(()));
    for layout in Layout::ALL {
        let shop = Shop::with("layout", layout)?;
        shop.label_service()?;
        shop.label_client()?;
        let agent = shop.agent()?;
        let line = logged(&agent, 0, "managing workload")?;
        assert_eq!(line["workload"], "shop/client", "{layout:?}");
        assert_eq!(shop.who()?, "cart-pr-1", "{layout:?}");
        // Nobody else is routed.
        assert_eq!(shop.who_from(&shop.pr_1)?, "cart", "{layout:?}");
        let access = agent.wait_access(1, |line| line["workload"] == "shop/client")?;
        assert_eq!(access[0]["service"], format!("shop/cart:{}", shop.cart.port()), "{layout:?}");
    }
    Ok(())
}

/// CRI-O puts a monitor of the node's own network namespace beside the containers, and other runtimes may.
#[test]
fn a_monitor_is_not_the_pod() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::with("monitor", Layout::CgroupfsCrio)?;
    let container = shop.client.cgroup_dir().to_owned();
    let pod_dir = container.parent().ok_or("a pod's cgroup")?.to_owned();
    let mut monitors = Vec::new();
    // Both come before the container by name; one has a name that says what it is.
    for name in ["aa-monitor", "crio-conmon-0001.scope"] {
        let dir = pod_dir.join(name);
        fs::create_dir(&dir)?;
        let mut sleep = std::process::Command::new("sleep").arg("1000").spawn()?;
        fs::write(dir.join("cgroup.procs"), sleep.id().to_string()).inspect_err(|_| drop(sleep.kill()))?;
        monitors.push(Ended(sleep));
    }
    shop.label_service()?;
    shop.label_client()?;
    let agent = shop.agent()?;
    logged(&agent, 0, "managing workload")?;
    // By the relay, which needs the right namespace.
    shop.server.edit(Kind::Pod, "shop", "client", |it| {
        it["metadata"]["annotations"] = json!({"picop.dev/path": "relay"});
    })?;
    logged(&agent, 0, "workload changed")?;
    assert_eq!(shop.who()?, "cart-pr-1");
    let access = agent.wait_access(1, |line| line["path"] == "relay")?;
    assert_eq!(access[0]["outcome"], "ok");
    Ok(())
}

struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended with its cgroup.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A new sandbox under the same UID: a crash of the pause process, or of the node.
#[test]
fn a_pods_second_sandbox() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("sandbox")?;
    let relay = json!({"picop.dev/path": "relay"});
    shop.label_service()?;
    shop.label_client()?;
    shop.server.edit(Kind::Pod, "shop", "client", |it| it["metadata"]["annotations"] = relay.clone())?;
    let agent = shop.agent()?;
    assert_eq!(shop.who()?, "cart-pr-1");
    let before = agent.log_lines().len();
    end_all(shop.client.cgroup_dir())?;
    // Another container below the same pod, in a namespace of its own.
    let (pod_cgroup, _) = Layout::Systemd.cgroups(CLIENT_UID, "");
    let again = PodSpec::new("again").cgroup(format!("{pod_cgroup}/cri-containerd-cd34.scope"));
    let again = shop.cluster.pod(again)?;
    shop.cluster.lead_more(&again, shop.cart, &shop.base)?;
    logged(&agent, before, "workload is gone")?;
    logged(&agent, before, "managing workload")?;
    for _ in 0..3 {
        assert_eq!(shop.who_from(&again)?, "cart-pr-1");
    }
    Ok(())
}

/// Crash, pause, crash again, in the same sandbox: the pod is managed once, and stays so.
#[test]
fn a_crash_loop_changes_nothing() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("crash-loop")?;
    shop.label_service()?;
    shop.label_client()?;
    let agent = shop.agent()?;
    logged(&agent, 0, "managing workload")?;
    let before = agent.log_lines().len();
    let pod_dir = shop.client.cgroup_dir().parent().ok_or("a pod's cgroup")?.to_owned();
    for n in 0..5 {
        let container = pod_dir.join(format!("cri-containerd-{n:04}.scope"));
        fs::create_dir(&container)?;
        // The container's process is in the sandbox's namespace, and ends at once.
        let talker = Talker::in_pod(&shop.client)?;
        fs::write(container.join("cgroup.procs"), talker.pid().to_string())?;
        assert_eq!(shop.who()?, "cart-pr-1");
        drop(talker);
        assert!(eventually(SOON, || fs::remove_dir(&container).is_ok()), "{}", container.display());
        shop.server.edit(Kind::Pod, "shop", "client", |it| it["status"]["restarts"] = json!(n))?;
        assert_eq!(shop.who()?, "cart-pr-1");
    }
    let lines = agent.log_lines();
    let gone = lines.iter().skip(before).filter(|line| line["message"] == "workload is gone").count();
    assert_eq!(gone, 0);
    Ok(())
}

/// The pod goes from the API first, while its connections still run and its cgroup is still there.
#[test]
fn a_pod_is_deleted_while_it_talks() -> Result {
    require_privilege!(Ok(()));
    let shop = Shop::new("deleted")?;
    shop.label_service()?;
    shop.label_client()?;
    shop.server.edit(Kind::Pod, "shop", "client", |it| {
        it["metadata"]["annotations"] = json!({"picop.dev/path": "relay"});
    })?;
    let agent = shop.agent()?;
    let talker = Talker::in_pod(&shop.client)?;
    let running = talker.open(shop.cart)?;
    let before = agent.log_lines().len();
    shop.server.delete(Kind::Pod, "shop", "client")?;
    logged(&agent, before, "workload is gone")?;
    // What runs goes on, what begins is nobody's business.
    running.send(b"who\n")?;
    assert_eq!(running.receive_all()?.text(), "[\"cart-pr-1\"]\n");
    assert_eq!(shop.who()?, "cart");
    // A pod of another UID comes with another cgroup.
    let uid = "22222222-0000-4000-8000-000000000001";
    let new = shop.cluster.pod(Layout::Cgroupfs.pod("new", uid))?;
    shop.cluster.lead_more(&new, shop.cart, &shop.base)?;
    shop.server.apply(labelled(pod("new", uid, NODE), json!({"picop.dev/environment": "pr-1"})))?;
    shop.server.apply(variant("cart-pr-1", shop.unused(), "cart", "pr-1"))?;
    logged(&agent, before, "managing workload")?;
    assert_eq!(shop.who_from(&new)?, "cart-pr-1");
    Ok(())
}

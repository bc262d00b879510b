//! Clusters: pods on one bridge, and service addresses that belong to nobody.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::cgroup::v2_mount;
use crate::gate;
use crate::id::ClusterId;
use crate::net::{in_netns, ip, netns_path};
use crate::pod::{Pod, PodSpec};
use crate::process::Proc;
use crate::sweep;

/// A bridge in a network namespace of its own with pods on it.
///
/// Clusters do not see one another, so every one uses the same addresses: pods in 10.244.0.0/16 and fd00:244::/64,
/// services in 10.96.0.0/16 and fd00:96::/64, to which pods have no route ("unreachable", at once).
#[derive(Debug)]
pub struct Cluster {
    id: ClusterId,
    name: String,
    v2: PathBuf,
    dir: PathBuf,
    pods: Mutex<Vec<(Pod, Proc)>>,
    next_pod: AtomicU16,
    next_service: AtomicU16,
    kept: bool,
}

impl Cluster {
    /// Makes an empty cluster; `name` is for messages only.
    pub fn new(name: &str) -> Result<Self> {
        let (id, v2) = (ClusterId::next(), v2_mount()?);
        // From here on Drop cleans up whatever was made.
        let cluster = Self {
            id,
            name: name.to_owned(),
            v2,
            dir: sweep::work_dir(id),
            pods: Mutex::default(),
            next_pod: AtomicU16::new(2),
            next_service: AtomicU16::new(10),
            kept: false,
        };
        {
            let _open = gate::enter()?;
            fs::create_dir(&cluster.dir).with_context(|| format!("creating {}", cluster.dir.display()))?;
        }
        create_cgroup(&cluster.cgroup_dir())?;
        cluster.create_bridge().with_context(|| format!("making the network of cluster {name}"))?;
        Ok(cluster)
    }

    /// Its unique name.
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// The cgroup that holds all of its pods: what the agent attaches to.
    pub fn cgroup_dir(&self) -> PathBuf {
        self.v2.join(self.id.to_string())
    }

    /// Where the cgroup v2 hierarchy is mounted.
    pub fn v2_mount(&self) -> &Path {
        &self.v2
    }

    /// A directory for the cluster's files, among them its programs' output; goes with the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a pod, with a process that only pauses in it.
    pub fn pod(&self, spec: impl Into<PodSpec>) -> Result<Pod> {
        let PodSpec { name, cgroup } = spec.into();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        ensure!(!name.is_empty() && name.chars().all(plain), "`{name}` is no name for a pod");
        let index = self.next_pod.fetch_add(1, Ordering::Relaxed);
        let [high, low] = index.to_be_bytes();
        let netns = self.netns_name(&name);
        let pod = Pod {
            netns: netns_path(&netns),
            cgroup_dir: self.cgroup_dir().join(&cgroup),
            cgroup_rel: format!("{}/{}", self.id, cgroup.display()),
            logs: self.dir.clone(),
            addr4: Ipv4Addr::new(10, 244, high, low),
            addr6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, index),
            name,
        };
        create_cgroup(&pod.cgroup_dir)?;
        self.connect_pod(&pod, &netns, index)
            .with_context(|| format!("making the network of pod {}", pod.name))?;
        let mut pause = pod.command("sleep")?;
        pause.arg("infinity");
        let pause = pod.spawn("pause", pause)?;
        self.lock_pods().push((pod.clone(), pause));
        Ok(pod)
    }

    /// An IPv4 address for a service, given out once.
    pub fn service_addr4(&self) -> Ipv4Addr {
        let [high, low] = self.next_service.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ipv4Addr::new(10, 96, high, low)
    }

    /// An IPv6 address for a service, given out once.
    pub fn service_addr6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, self.next_service.fetch_add(1, Ordering::Relaxed))
    }

    /// Has a service's address lead to a pod for all pods there are now, as a cluster's own proxy does: what is connected to
    /// it without picop arrives there.
    pub fn lead(&self, address: Ipv4Addr, to: &Pod) -> Result<()> {
        let name = |pod: &Pod| self.netns_name(&pod.name);
        ip(Some(&name(to)), &[format!("addr add {address}/32 dev lo")])?;
        let pods: Vec<_> = self.lock_pods().iter().map(|(pod, _)| pod.clone()).collect();
        let others = pods.iter().filter(|pod| pod.name != to.name);
        others
            .map(name)
            .try_for_each(|name| ip(Some(&name), &[format!("route replace {address}/32 via {}", to.addr4)]))
    }

    /// The same for a pod that came later.
    pub fn lead_more(&self, pod: &Pod, address: SocketAddr, to: &Pod) -> Result<()> {
        let line = format!("route replace {}/32 via {}", address.ip(), to.addr4);
        ip(Some(&self.netns_name(&pod.name)), &[line])
    }

    /// Leaves everything up when this process ends, until [`remove_kept`](crate::remove_kept).
    pub fn keep(mut self) -> Result<()> {
        fs::write(self.dir.join(sweep::KEEP_MARKER), "").context("marking the cluster as kept")?;
        self.kept = true;
        for (_, pause) in self.lock_pods().drain(..) {
            pause.detach();
        }
        Ok(())
    }

    fn netns_name(&self, part: &str) -> String {
        format!("{}-{part}", self.id)
    }

    fn lock_pods(&self) -> std::sync::MutexGuard<'_, Vec<(Pod, Proc)>> {
        self.pods.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn create_bridge(&self) -> Result<()> {
        let node = self.netns_name("node");
        ip(None, &[format!("netns add {node}")])?;
        quiet_ipv6(&netns_path(&node))?;
        let lines = [
            "link set lo up",
            // No multicast snooping: neighbour solicitations then reach every pod from the first moment on.
            "link add name br0 type bridge mcast_snooping 0 forward_delay 0",
            "addr add 10.244.0.1/16 dev br0",
            "addr add fd00:244::1/64 dev br0 nodad",
            "link set br0 up",
        ];
        ip(Some(&node), &lines.map(str::to_owned))
    }

    fn connect_pod(&self, pod: &Pod, netns: &str, index: u16) -> Result<()> {
        ip(None, &[format!("netns add {netns}")])?;
        quiet_ipv6(&pod.netns)?;
        let node_side = [
            format!("link add name v{index} master br0 type veth peer name eth0 netns {netns}"),
            format!("link set v{index} up"),
        ];
        ip(Some(&self.netns_name("node")), &node_side)?;
        let pod_side = [
            "link set lo up".to_owned(),
            format!("addr add {}/16 dev eth0", pod.addr4),
            format!("addr add {}/64 dev eth0 nodad", pod.addr6),
            "link set eth0 up".to_owned(),
            "route add default via 10.244.0.1".to_owned(),
            "route add default via fd00:244::1".to_owned(),
            "route add unreachable 10.96.0.0/16".to_owned(),
            "route add unreachable fd00:96::/64".to_owned(),
        ];
        ip(Some(netns), &pod_side)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if thread::panicking() {
            sweep::show_logs(&self.name, &self.dir);
        }
        self.lock_pods().clear();
        if let Err(error) = sweep::teardown(self.id) {
            // A second panic would abort and hide the first; the next sweep tries again.
            eprintln!("testbed: cluster {} ({}) is not wholly removed: {error:#}", self.name, self.id);
        }
    }
}

/// Addresses that can be used at once: no duplicate detection, no router's advertisements.
fn quiet_ipv6(netns: &Path) -> Result<()> {
    let settings = [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")];
    in_netns(netns, || {
        for (name, value) in settings {
            let path = format!("/proc/sys/net/ipv6/conf/default/{name}");
            fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))?;
        }
        Ok(())
    })
    .with_context(|| format!("entering {}", netns.display()))?
}

pub(crate) fn create_cgroup(dir: &Path) -> Result<()> {
    let _open = gate::enter()?;
    fs::create_dir_all(dir).with_context(|| format!("creating cgroup {}", dir.display()))
}

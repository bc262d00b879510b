//! Whose connections are routed, and whose are left alone. What is left alone is shown beside what is not: the programs
//! were live all the time.

use std::fs;
use std::net::SocketAddr;

use testbed::{Agent, Client, Pod, PodSpec, Talker, Target, require_privilege};

use crate::common::{
    Recorder, Result, Routes, Scene, access, answer, change_workloads, expect, expect_reset, hello,
    until_routed, variants, workload,
};

/// A real server whose address is a service, and a variant that nobody but managed processes gets to.
struct Beside {
    scene: Scene,
    real: Recorder,
    variant: Recorder,
    vip: SocketAddr,
    services: Routes,
}

impl Beside {
    fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let (real, variant) = (scene.recorder("real")?, scene.recorder("variant")?);
        let vip = scene.vip();
        let to = variants(&[("pr-1", &[variant.at])]);
        let services =
            Routes::new().service("itself", &[real.at, real.at6], &to).service("virtual", &[vip], &to);
        Ok(Self { scene, real, variant, vip, services })
    }

    /// Starts the agent, with the client pod in `pr-1`.
    fn agent(&self) -> Result<Agent> {
        self.scene.agent(&self.services.clone().workload(self.scene.workload("environment: pr-1")), &[])
    }

    /// The positive control: a managed connection is routed.
    fn is_live(&self, agent: &Agent) -> Result {
        let report = hello(self.real.at).run(&self.scene.client)?;
        assert_eq!(answer(&report), "variant");
        expect(&access(agent, report.local)?, &[("reason", "variant"), ("outcome", "ok")]);
        Ok(())
    }
}

/// A connection from `pod` goes where it would without picop: straight from its own address.
fn untouched(pod: &Pod, to: SocketAddr) -> Result {
    let report = hello(to).run(pod)?;
    assert_eq!(answer(&report), "real");
    assert_eq!(report.peer, Some(to));
    let own = report.local.map(|local| local.ip());
    assert!(own == Some(pod.addr4().into()) || own == Some(pod.addr6().into()), "{report:?}");
    Ok(())
}

#[test]
fn unmanaged_processes() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("unmanaged")?;
    let agent = it.agent()?;
    // Below the cgroup that the programs are attached to, and beside it.
    let stranger = it.scene.cluster.pod("stranger")?;
    let outsider =
        it.scene.cluster.pod(PodSpec::new("outsider").cgroup(format!("../{}-out", it.scene.cluster.id())))?;
    for round in 1..=3 {
        it.is_live(&agent)?;
        for pod in [&stranger, &outsider] {
            untouched(pod, it.real.at)?;
            untouched(pod, it.real.at6)?;
            let report = hello(it.vip).run(pod)?;
            assert_eq!(report.error.as_deref(), Some("HostUnreachable"), "{report:?}");
        }
        assert_eq!(agent.access_lines().len(), round, "only the managed ones");
    }
    it.is_live(&agent)?;
    assert_eq!((it.variant.count(), it.real.count()), (4, 12));
    Ok(())
}

#[test]
fn other_destinations() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("elsewhere")?;
    let plain = it.scene.cluster.pod("plain")?;
    // A server of no service, and another port of one that has one.
    let _echo = plain.serve::<&str>("echo", plain.at4(7), [])?;
    let agent = it.agent()?;
    it.is_live(&agent)?;
    let report = Client::to(plain.at4(7)).text("x").half_close().read_all().run(&it.scene.client)?;
    assert_eq!(answer(&report), "x");
    assert_eq!(report.local.map(|local| local.ip()), Some(it.scene.client.addr4().into()));
    let other_port = SocketAddr::new(it.vip.ip(), it.vip.port() + 1);
    assert_eq!(hello(other_port).run(&it.scene.client)?.error.as_deref(), Some("HostUnreachable"));
    it.is_live(&agent)?;
    assert_eq!(agent.access_lines().len(), 2);
    Ok(())
}

#[test]
fn sockets_that_cannot_be_relayed() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("special")?;
    let agent = it.agent()?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let own4 = Some(it.scene.client.addr4().into());
    let own6 = Some(it.scene.client.addr6().into());
    it.is_live(&agent)?;
    // UDP: the destination stays what it is, port and all.
    for (to, own) in [(it.real.at, own4), (it.real.at6, own6)] {
        let said = talker.try_open(Target::new(to).udp())?;
        assert_eq!((said.peer, said.local.map(|local| local.ip())), (Some(to), own), "{said:?}");
    }
    // Bound to an interface: the agent's listener is on another one.
    for (to, own) in [(it.real.at, own4), (it.real.at6, own6)] {
        let said = talker.try_open(Target::new(to).device("eth0"))?;
        assert_eq!((said.peer, said.local.map(|local| local.ip())), (Some(to), own), "{said:?}");
        let talk = talker.made(&said)?;
        talk.send(b"hello")?;
        assert_eq!(talk.receive(5)?.text(), "real\n");
        talk.close()?;
    }
    it.is_live(&agent)?;
    let lines = agent.wait_access(4, |_| true)?;
    let count = |name: &str, value: &str| lines.iter().filter(|line| line[name] == value).count();
    assert_eq!((count("path", "relay"), count("reason", "bound_to_device")), (2, 2), "{lines:?}");
    Ok(())
}

#[test]
fn a_process_of_the_workload_in_another_namespace() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("other-netns")?;
    let other = it.scene.cluster.pod("other")?;
    let agent = it.agent()?;
    let abroad = Talker::across(&it.scene.client, &other)?;
    it.is_live(&agent)?;
    for to in [it.real.at, it.real.at6] {
        let talk = abroad.open(to)?;
        talk.send(b"hello")?;
        assert_eq!(talk.receive(5)?.text(), "real\n");
        let own = talk.names()?.local.map(|local| local.ip());
        assert!(own == Some(other.addr4().into()) || own == Some(other.addr6().into()), "{own:?}");
        talk.close()?;
    }
    it.is_live(&agent)?;
    let lines = agent.wait_access(4, |_| true)?;
    let count = |name: &str, value: &str| lines.iter().filter(|line| line[name] == value).count();
    assert_eq!((count("path", "relay"), count("reason", "other_netns")), (2, 2), "{lines:?}");
    Ok(())
}

#[test]
fn a_workload_that_is_bypassed() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("bypass")?;
    let second = it.scene.cluster.pod("second")?;
    let routes = |settings: &str| {
        let routes = it.services.clone().workload(it.scene.workload(settings));
        routes.workload(workload(&second, "environment: pr-1"))
    };
    let agent = it.scene.agent(&routes("environment: pr-1"), &[])?;
    let talker = Talker::in_pod(&it.scene.client)?;
    it.is_live(&agent)?;
    let running = talker.open(it.real.at)?;
    running.send(b"hello")?;
    assert_eq!(running.receive(8)?.text(), "variant\n");

    change_workloads(&agent, &routes("environment: pr-1, bypass: true"))?;
    untouched(&it.scene.client, it.real.at)?;
    untouched(&it.scene.client, it.real.at6)?;
    let report = hello(it.vip).run(&it.scene.client)?;
    assert_eq!(report.error.as_deref(), Some("HostUnreachable"), "{report:?}");
    // Nobody else is, and what runs goes on.
    assert_eq!(answer(&hello(it.real.at).run(&second)?), "variant");
    running.send(b", again")?;
    running.finish()?;
    assert!(running.receive(1)?.eof);

    change_workloads(&agent, &routes("environment: pr-1"))?;
    it.is_live(&agent)
}

#[test]
fn workloads_named_by_a_pattern() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("pattern")?;
    let cluster = &it.scene.cluster;
    let make = |name: &str, cgroup: &str| cluster.pod(PodSpec::new(name).cgroup(cgroup));
    let (one, deep) = (make("one", "web-1")?, make("deep", "web-2/inner/container")?);
    let (two, not) = (make("two", "apps/any/where/db-1")?, make("not", "apps/any/web-3")?);
    let id = cluster.id();
    let routes = it
        .services
        .clone()
        .workload(format!("{{cgroup: \"{id}/web-*\", environment: pr-1, path: relay}}"))
        .workload(format!("{{cgroup: \"{id}/apps/**/db-?\", environment: pr-1, path: relay}}"));
    let agent = it.scene.agent(&routes, &[])?;
    for pod in [&one, &deep, &two] {
        let report = hello(it.real.at).run(pod)?;
        assert_eq!(answer(&report), "variant", "{}", pod.name());
    }
    untouched(&not, it.real.at)?;
    let names = agent.wait_access(3, |_| true)?;
    let names: Vec<_> = names.iter().filter_map(|line| line["workload"].as_str()).collect();
    assert_eq!(names, [format!("{id}/web-1"), format!("{id}/web-2"), format!("{id}/apps/any/where/db-1")]);

    // A pod that comes later.
    let late = make("late", "web-4")?;
    until_routed(&agent, &late, it.real.at)?;
    assert_eq!(answer(&hello(it.real.at).run(&late)?), "variant");
    Ok(())
}

#[test]
fn whoever_connects_to_the_listener_itself() -> Result {
    require_privilege!(Ok(()));
    let it = Beside::new("loop")?;
    let agent = it.agent()?;
    it.is_live(&agent)?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let listeners = listeners(&it.scene.client)?;
    assert_eq!(listeners.len(), 2, "one for each family: {listeners:?}");
    for (number, at) in listeners.into_iter().enumerate() {
        let said = talker.try_open(at)?;
        match said.socket {
            Some(_) => expect_reset(&talker.made(&said)?.receive(1)?),
            None => expect_reset(&said),
        }
        let lines = agent.wait_access(number + 1, |line| line["outcome"] == "no_original")?;
        expect(&lines[number], &[("original", "-"), ("backend", "-"), ("reason", "-"), ("relayed_for", "-")]);
    }
    it.is_live(&agent)
}

/// Where programs listen on a pod's loopback interface.
fn listeners(pod: &Pod) -> Result<Vec<SocketAddr>> {
    const LISTEN: &str = "0A";
    const V4: &str = "0100007F";
    const V6: &str = "00000000000000000000000001000000";
    let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}"));
    let tables = pod.in_netns(|| Ok::<_, std::io::Error>([read("tcp")?, read("tcp6")?]))??;
    let mut found = Vec::new();
    for line in tables.iter().flat_map(|table| table.lines().skip(1)) {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (address, port) = fields[1].split_once(':').ok_or("no port")?;
        let port = u16::from_str_radix(port, 16)?;
        match (fields[3], address) {
            (LISTEN, V4) => found.push(SocketAddr::from(([127, 0, 0, 1], port))),
            (LISTEN, V6) => found.push(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))),
            _ => {}
        }
    }
    Ok(found)
}

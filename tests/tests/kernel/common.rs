//! What the tests share: a cluster with a client pod and named servers, the routes between them, and what the agent said.

use std::error::Error;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use testbed::{
    Agent, AgentOptions, Client, ClientReport, Cluster, Pod, Proc, Said, Talker, hex, in_netns, wait_until,
};

pub use testbed::emulated;

pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Where the servers listen.
pub const PORT: u16 = 8080;

/// A size or a number, made smaller where everything is slow.
pub fn scaled(full: usize) -> usize {
    if emulated() { full / 20 } else { full }
}

/// How long something may take that should take no time worth mentioning.
pub fn soon() -> Duration {
    Duration::from_secs(if emulated() { 60 } else { 10 })
}

/// What may be added to a time that the agent promises, before the promise counts as broken.
pub fn slack() -> Duration {
    Duration::from_millis(if emulated() { 10_000 } else { 1500 })
}

/// A cluster with a pod for the clients.
pub struct Scene {
    pub cluster: Cluster,
    pub client: Pod,
}

/// A server that answers with its name, and writes down what it got.
pub struct Recorder {
    pub at: SocketAddr,
    pub at6: SocketAddr,
    dir: PathBuf,
    _proc: Proc,
}

impl Scene {
    pub fn new(name: &str) -> Result<Self> {
        let cluster = Cluster::new(name)?;
        let client = cluster.pod("client")?;
        Ok(Self { cluster, client })
    }

    /// A pod with a recorder in it, of one name.
    pub fn recorder(&self, name: &str) -> Result<Recorder> {
        self.recorder_with(name, &[])
    }

    /// The same, with further arguments of `hop recorder`.
    pub fn recorder_with(&self, name: &str, args: &[&str]) -> Result<Recorder> {
        let pod = self.cluster.pod(name)?;
        let dir = self.cluster.dir().join(format!("recorded-{name}"));
        let dir_text = dir.to_str().context("a path of plain ASCII")?.to_owned();
        let answer = format!("{name}\n");
        let all = ["--dir", &dir_text, "--answer", &answer].into_iter().chain(args.iter().copied());
        let proc = pod.serve("recorder", SocketAddr::new(IpAddr::V6(0.into()), PORT), all)?;
        Ok(Recorder { at: pod.at4(PORT), at6: pod.at6(PORT), dir, _proc: proc })
    }

    /// A pod with an echo server in it.
    pub fn echo(&self, name: &str) -> Result<(SocketAddr, Proc)> {
        let pod = self.cluster.pod(name)?;
        let proc = pod.serve::<&str>("echo", pod.at4(PORT), [])?;
        Ok((pod.at4(PORT), proc))
    }

    /// A service address of neither pod nor anybody.
    pub fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.cluster.service_addr4().into(), 80)
    }

    /// An IPv6 one.
    pub fn vip6(&self) -> SocketAddr {
        SocketAddr::new(self.cluster.service_addr6().into(), 80)
    }

    /// The entry of the client pod in a route file, with these settings.
    pub fn workload(&self, settings: &str) -> String {
        workload(&self.client, settings)
    }

    /// Starts the agent, and waits until it manages the client pod.
    pub fn agent(&self, routes: &Routes, args: &[&str]) -> Result<Agent> {
        let options = AgentOptions {
            routes: routes.to_string(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..AgentOptions::default()
        };
        Ok(Agent::start_with(&self.cluster, options)?)
    }
}

impl Recorder {
    /// How many connections it got.
    pub fn count(&self) -> usize {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "from")).count()
    }

    /// What the `number`th connection brought, once it has ended, and how it ended (`eof` or an error).
    pub fn whole(&self, number: usize) -> Result<(Vec<u8>, String)> {
        let end = self.read(number, "end")?;
        Ok((hex::decode(&self.read(number, "hex")?)?, end))
    }

    /// Whom the `number`th connection came from.
    pub fn from(&self, number: usize) -> Result<IpAddr> {
        let from: SocketAddr = self.read(number, "from")?.parse()?;
        Ok(from.ip().to_canonical())
    }

    fn read(&self, number: usize, end: &str) -> Result<String> {
        let path = self.dir.join(format!("{number}.{end}"));
        let read = wait_until(&path.display().to_string(), soon(), || fs::read_to_string(&path).ok());
        Ok(read?)
    }
}

/// The entry of a pod in a route file. `settings` are YAML, in braces: `environment: pr-1`. Relayed unless they say
/// otherwise: what the relay does with bytes and ends is what most tests look at.
pub fn workload(pod: &Pod, settings: &str) -> String {
    let path = if settings.contains("path:") { "" } else { ", path: relay" };
    format!("{{cgroup: {}, {settings}{path}}}", pod.cgroup_path_rel())
}

/// A route file in the making.
#[derive(Clone, Default)]
pub struct Routes {
    services: Vec<String>,
    workloads: Vec<String>,
}

impl Routes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service; `settings` are YAML, in braces: `header: strip, base: ["..."]`.
    pub fn service(mut self, name: &str, addresses: &[SocketAddr], settings: &str) -> Self {
        let addresses = list(addresses);
        self.services.push(format!("{{name: {name}, addresses: {addresses}, {settings}}}"));
        self
    }

    /// Adds a workload, as [`workload`] writes it.
    pub fn workload(mut self, entry: String) -> Self {
        self.workloads.push(entry);
        self
    }
}

impl std::fmt::Display for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "services: [{}]", self.services.join(", "))?;
        writeln!(f, "workloads: [{}]", self.workloads.join(", "))
    }
}

/// Addresses as a list in YAML.
pub fn list(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// `variants: {environment: [addresses], ...}`.
pub fn variants(of: &[(&str, &[SocketAddr])]) -> String {
    let entries: Vec<_> = of.iter().map(|(env, at)| format!("{env}: {}", list(at))).collect();
    format!("variants: {{{}}}", entries.join(", "))
}

/// `base: [addresses]`.
pub fn base(at: &[SocketAddr]) -> String {
    format!("base: {}", list(at))
}

/// A PiCoP header of these entries, written by hand.
pub fn header(entries: &[(&str, &str)]) -> Vec<u8> {
    let body = entries.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join("\r\n");
    let len = u8::try_from(body.len()).expect("a header of 255 bytes at most");
    [&b"\r\n\r\n\0\r\nQUIT\n\x01"[..], &[len], body.as_bytes()].concat()
}

/// A client that says hello, shuts down its side and reads everything.
pub fn hello(to: SocketAddr) -> Client {
    Client::to(to).text("hello").half_close().read_all().timeout(soon())
}

/// What a client read, if all went well.
pub fn answer(report: &ClientReport) -> &str {
    assert!(report.ok, "{report:?}");
    report.text.trim_end()
}

/// The access line of the connection that a client made from `local`, the only one from there.
pub fn access(agent: &Agent, local: Option<SocketAddr>) -> Result<Value> {
    access_again(agent, local, 0)
}

/// The same where ports are used again: `before` lines are of earlier connections.
pub fn access_again(agent: &Agent, local: Option<SocketAddr>, before: usize) -> Result<Value> {
    let port = local.context("the client has a socket")?.port();
    let of_client = |line: &Value| {
        let client = line["client"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        client.is_some_and(|client| client.port() == port)
    };
    let earlier = agent.access_lines().into_iter().take(before).filter(of_client).count();
    let mut lines = agent.wait_access(earlier + 1, of_client)?;
    assert_eq!(lines.len(), earlier + 1, "one line a connection: {lines:?}");
    Ok(lines.remove(earlier))
}

/// Checks some fields of an access line; `-` stands for one that is absent.
#[track_caller]
pub fn expect(line: &Value, fields: &[(&str, &str)]) {
    for (name, wanted) in fields {
        let value = &line[*name];
        let text = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(text, *wanted, "{name} of {line}");
    }
}

/// Whether a step ended in a reset.
#[track_caller]
pub fn expect_reset(said: &Said) {
    assert_eq!(said.error.as_deref(), Some("ConnectionReset"), "{said:?}");
}

/// Whether a connection that the relay refuses ends in a reset. Its connect succeeds, unless the reset is there before the
/// client's thread runs again: then that is what connect answers.
#[track_caller]
pub fn expect_refused(talker: &Talker, to: SocketAddr) -> Result {
    let said = talker.try_open(to)?;
    match said.socket {
        None => expect_reset(&said),
        Some(_) => expect_reset(&talker.made(&said)?.receive(1)?),
    }
    Ok(())
}

/// Waits until the agent has logged a line with this message, from line `from` on.
pub fn logged(agent: &Agent, from: usize, message: &str) -> Result<Value> {
    let found = wait_until(&format!("`{message}` in the agent's log"), soon(), || {
        let mut lines = agent.log_lines().into_iter().skip(from);
        lines.find(|line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with(message)))
    });
    Ok(found.with_context(|| fs::read_to_string(agent.log_path()).unwrap_or_default())?)
}

/// Puts routes in effect that change something of the workloads, and waits until the kernel knows.
pub fn change_workloads(agent: &Agent, routes: &Routes) -> Result {
    let before = agent.log_lines().len();
    agent.routes(&routes.to_string())?;
    logged(agent, before, "workload changed")?;
    Ok(())
}

/// Connects from a pod until it is routed. The agent meets a pod that has just been made some time later, and perhaps first
/// when its process is in its cgroup already and in its network namespace not yet.
pub fn until_routed(agent: &Agent, pod: &Pod, to: SocketAddr) -> Result {
    let count = || {
        let of_pod = |line: &Value| line["workload"] == pod.cgroup_path_rel() && line["reason"] == "variant";
        agent.access_lines().into_iter().filter(of_pod).count()
    };
    let before = count();
    let routed = wait_until(&format!("a routed connection of {}", pod.name()), soon(), || {
        hello(to).run(pod).ok()?;
        (count() > before).then_some(())
    });
    Ok(routed.with_context(|| fs::read_to_string(agent.log_path()).unwrap_or_default())?)
}

/// Arguments by which the agent logs its kernel counters as they grow; see [`counted`].
pub fn counting() -> Vec<String> {
    ["--log", "info,picop_agent::intercept::upkeep=debug"].map(str::to_owned).to_vec()
}

/// What the kernel counted so far, as far as the agent has logged it: an `event` or a `reason`, and its name. The agent
/// runs with [`counting`].
pub fn counted(agent: &Agent, kind: &str, name: &str) -> u64 {
    let lines = agent.log_lines();
    let of_it = lines.iter().filter(|line| line["message"] == "counted" && line[kind] == name);
    of_it.filter_map(|line| line["connections"].as_u64()).sum()
}

/// Waits until it has counted that many, and sees that there are no more.
pub fn expect_counted(agent: &Agent, kind: &str, name: &str, wanted: u64) -> Result {
    let count =
        wait_until(name, soon(), || Some(counted(agent, kind, name)).filter(|count| *count >= wanted))?;
    assert_eq!(count, wanted, "{name}");
    Ok(())
}

/// A counter of TCP in a pod, as `/proc/net/netstat` names it.
pub fn netstat(pod: &Pod, name: &str) -> Result<u64> {
    let text = in_netns(pod.netns_path(), || fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(found, _)| *found == name).ok_or("no such counter")?;
    Ok(value.parse()?)
}

//! One service with a base and a variant, and clients of every kind.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testbed::{Agent, Cluster, Output, Pod, Proc};

use crate::routes::{Policy, file, in_environment, instrumented, service};
use crate::{Result, programs};

/// Bounds what one client program may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The environment that has a variant.
pub const ENV: &str = "pr-1";

/// Another, which has none.
pub const OTHER_ENV: &str = "pr-2";

/// How long a PiCoP header that holds [`ENV`] alone is.
pub const HEADER_LEN: u64 = 14 + "Env-Id:pr-1".len() as u64;

/// A service at an address of each family, and the pods around it. Servers are up to the test.
pub struct Scene {
    pub agent: Agent,
    /// The service's addresses, which no host has.
    pub vip4: SocketAddr,
    pub vip6: SocketAddr,
    /// A pod that the agent does not know.
    pub stranger: Pod,
    /// A pod that belongs to [`ENV`].
    pub member: Pod,
    /// A pod that belongs to [`OTHER_ENV`].
    pub other: Pod,
    /// A pod whose programs may send a header.
    pub instrumented: Pod,
    /// Where the base's server belongs.
    pub base: Pod,
    /// Where [`ENV`]'s server belongs.
    pub variant: Pod,
    // Last: it takes everything else down.
    pub cluster: Cluster,
}

impl Scene {
    /// Makes it, with the agent ready. `header` is the service's policy.
    pub fn new(name: &str, port: u16, header: &'static str) -> Result<Self> {
        Self::with(name, port, Policy::of(header))
    }

    /// Makes it, with the agent ready.
    pub fn with(name: &str, port: u16, policy: Policy) -> Result<Self> {
        let cluster = Cluster::new(name)?;
        let pod = |name| cluster.pod(name);
        let (stranger, member, other) = (pod("stranger")?, pod("member")?, pod("other")?);
        let (instrumented, base, variant) = (pod("instrumented")?, pod("base")?, pod("variant")?);
        let vip4 = SocketAddr::new(cluster.service_addr4().into(), port);
        let vip6 = SocketAddr::new(cluster.service_addr6().into(), port);
        let services = Self::services([vip4, vip6], policy, &base, &variant);
        let workloads = Self::workloads(&member, &other, &instrumented);
        let agent = Agent::start(&cluster, &file(&services, &workloads))?;
        Ok(Self { agent, vip4, vip6, stranger, member, other, instrumented, base, variant, cluster })
    }

    fn services([vip4, vip6]: [SocketAddr; 2], policy: Policy, base: &Pod, variant: &Pod) -> [Value; 2] {
        let port = vip4.port();
        [
            service("v4", vip4, policy, base.at4(port), variant.at4(port)),
            service("v6", vip6, policy, base.at6(port), variant.at6(port)),
        ]
    }

    fn workloads(member: &Pod, other: &Pod, with_header: &Pod) -> [Value; 3] {
        [in_environment(member, ENV), in_environment(other, OTHER_ENV), instrumented(with_header)]
    }

    /// Changes the service's header policy.
    pub fn set_header(&self, header: &'static str) -> Result {
        let Self { agent, vip4, vip6, member, other, instrumented, base, variant, .. } = self;
        let services = Self::services([*vip4, *vip6], Policy::of(header), base, variant);
        agent.routes(&file(&services, &Self::workloads(member, other, instrumented)))
    }

    /// Makes a forwarder in the instrumented pod, and tells where programs there reach `to` through it with a header.
    pub fn forward(&self, to: SocketAddr, mapped: bool) -> Result<(Proc, SocketAddr)> {
        let pod = &self.instrumented;
        let port = pod.free_port(Ipv4Addr::LOCALHOST.into())?;
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let to = to.to_string();
        let mut args = vec!["--to", &to, "--header", "env=pr-1"];
        args.extend(mapped.then_some("--mapped"));
        Ok((pod.serve("prefix", listen, args)?, listen))
    }

    /// The ways to reach the variant by a header: a forwarder for each family, and for v4-mapped.
    pub fn forwards(&self) -> Result<Vec<(&'static str, SocketAddr, Proc)>> {
        let ways = [("v4", self.vip4, false), ("v6", self.vip6, false), ("v4-mapped", self.vip4, true)];
        let forward = |(name, to, mapped)| self.forward(to, mapped).map(|(proc, at)| (name, at, proc));
        ways.into_iter().map(forward).collect()
    }

    /// Waits for `count` access lines of connections that were routed for `reason`.
    pub fn access(&self, count: usize, reason: &str) -> Result<Vec<Value>> {
        self.agent.wait_access(count, |line| line["reason"] == reason)
    }

    /// Checks, at the end of a test, that the agent has nothing to complain of: neither an error nor a panic. What its
    /// canary says is not asked: on a machine that is too busy to run the agent, connections rightly go to the base.
    pub fn finish(&self) -> Result {
        let of_canary =
            |line: &Value| line["target"].as_str().is_some_and(|target| target.ends_with("::canary"));
        let complaint = |line: &Value| line.is_string() || line["level"] == "ERROR" && !of_canary(line);
        let complaints: Vec<_> = self.agent.log_lines().into_iter().filter(complaint).collect();
        ensure!(complaints.is_empty(), "the agent complains: {complaints:?}");
        Ok(())
    }

    /// A directory of the cluster's.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.cluster.dir().join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(dir)
    }
}

/// A command for one of the installed programs in `pod`.
pub fn command<S: AsRef<OsStr>>(
    pod: &Pod,
    program: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<Command> {
    let mut command = pod.command(programs::path(program)?)?;
    command.args(args);
    Ok(command)
}

/// Runs a client to its end, which must be a success, and gives its standard output.
pub fn ask<S: AsRef<OsStr>>(pod: &Pod, program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let output = attempt(pod, program, args)?;
    Ok(output.success().with_context(|| format!("{program} in pod {}", pod.name()))?.stdout)
}

/// Runs a client to its end, however that is.
pub fn attempt<S: AsRef<OsStr>>(
    pod: &Pod,
    program: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<Output> {
    pod.run(command(pod, program, args)?, PATIENCE)
}

/// Runs a client with a file as its standard input; it must succeed.
pub fn feed(pod: &Pod, mut command: Command, input: &std::path::Path) -> Result<Output> {
    let file = std::fs::File::open(input).with_context(|| format!("opening {}", input.display()))?;
    command.stdin(Stdio::from(file));
    pod.run(command, PATIENCE)?.success()
}

/// Checks that an access line tells of a connection that ended well. A relayed one's tells its payload bytes, up and down;
/// a direct one is told of when it begins, and nobody but its ends counts its bytes.
pub fn carried(line: &Value) -> Result<Option<(u64, u64)>> {
    if line["path"] == "direct" {
        ensure!(line["outcome"] == "routed" && line["env_source"] == "workload", "not a good line: {line}");
        return Ok(None);
    }
    ensure!(line["outcome"] == "ok", "not a good end: {line}");
    let count = |name: &str| line[name].as_u64().with_context(|| format!("no {name}: {line}"));
    Ok(Some((count("bytes_up")?, count("bytes_down")?)))
}

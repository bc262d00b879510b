//! A cluster with two clients, one that belongs to an environment and one that is instrumented, and servers that say where
//! they were met.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use testbed::{Agent, AgentOptions, Asked, Cluster, Pod, Proc, hex, wait_until};

pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

pub const SOON: Duration = Duration::from_secs(20);

pub struct Scene {
    pub cluster: Cluster,
    /// Of environment pr-1; its connections are direct.
    pub member: Pod,
    /// Sends headers; its connections are relayed.
    pub instrumented: Pod,
    pub cart: SocketAddr,
    pub db: SocketAddr,
    /// Refuses pr-1.
    pub billing: SocketAddr,
    /// Where cart's variant in pr-1 and the base of all is.
    pub variant: SocketAddr,
    pub base: SocketAddr,
    _servers: Vec<Proc>,
}

impl Scene {
    pub fn new(name: &str) -> Result<Self> {
        let cluster = Cluster::new(name)?;
        let vip = || SocketAddr::new(cluster.service_addr4().into(), 80);
        let (cart, db, billing) = (vip(), vip(), vip());
        let server = |name: &str| -> Result<(SocketAddr, Proc)> {
            let pod = cluster.pod(name)?;
            let proc = pod.serve::<&str>("tell", pod.at4(9000), [])?;
            Ok((pod.at4(9000), proc))
        };
        let ((variant, one), (base, two)) = (server("variant")?, server("base")?);
        Ok(Self {
            member: cluster.pod("member")?,
            instrumented: cluster.pod("instrumented")?,
            cart,
            db,
            billing,
            variant,
            base,
            _servers: vec![one, two],
            cluster,
        })
    }

    pub fn routes(&self) -> String {
        let Self { cart, db, billing, variant, base, .. } = self;
        format!(
            "services:\n\
             - {{name: cart, addresses: [\"{cart}\"], base: [\"{base}\"], variants: {{pr-1: [\"{variant}\"]}}, expect_header: always}}\n\
             - {{name: db, addresses: [\"{db}\"], base: [\"{base}\"]}}\n\
             - {{name: billing, addresses: [\"{billing}\"], base: [\"{base}\"], variants: {{pr-1: []}}, fallback: refuse}}\n\
             workloads:\n\
             - {{cgroup: {}, environment: pr-1}}\n\
             - {{cgroup: {}, context: header}}\n",
            self.member.cgroup_path_rel(),
            self.instrumented.cgroup_path_rel()
        )
    }

    /// Starts the agent, as users run it, and waits until it manages both clients.
    pub fn agent(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Agent> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = AgentOptions {
            routes: self.routes(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: env.iter().map(own).collect(),
            plain: true,
            ..AgentOptions::default()
        };
        let agent = Agent::start_with(&self.cluster, options)?;
        let mut asked = Asked::at(agent.admin_socket())?;
        let managed = || {
            let status = asked.get("/v1/status").ok()?;
            (status["workloads_managed"] == 2).then_some(())
        };
        wait_until("both clients to be managed", SOON, managed)?;
        Ok(agent)
    }
}

/// Makes so many connections from a pod, and returns what became of each. With entries for a header, each begins with it.
pub fn connect(
    scene: &Scene,
    pod: &Pod,
    to: SocketAddr,
    count: usize,
    entries: &[(&str, &str)],
) -> Result<Vec<String>> {
    let mut say = if entries.is_empty() { Vec::new() } else { header(entries) };
    say.push(b'x');
    let input = scene.cluster.dir().join(format!("asks-{}-{}", pod.name(), to.ip()));
    fs::write(&input, format!("{to} {}\n", hex::encode(&say)).repeat(count))?;
    let mut command = pod.hop(["asks"])?;
    command.stdin(Stdio::from(fs::File::open(&input)?));
    let output = pod.run(command, Duration::from_secs(120))?.success()?;
    Ok(output.stdout.lines().map(str::to_owned).collect())
}

/// A PiCoP header of these entries, written by hand.
fn header(entries: &[(&str, &str)]) -> Vec<u8> {
    let body = entries.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join("\r\n");
    let len = u8::try_from(body.len()).expect("a header of 255 bytes at most");
    [&b"\r\n\r\n\0\r\nQUIT\n\x01"[..], &[len], body.as_bytes()].concat()
}

/// The address at which the agent says that it serves something.
pub fn served(agent: &Agent, option: &str) -> Result<SocketAddr> {
    let message = format!("{option} is served");
    let line = agent.log_lines().into_iter().find(|line| line["message"] == message.as_str());
    let line = line.with_context(|| format!("no line says that {message}"))?;
    Ok(line["address"].as_str().context("an address")?.parse()?)
}

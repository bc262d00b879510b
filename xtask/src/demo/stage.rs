//! The demo's cluster: its pods, its servers, its routes.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use testbed::{Agent, Cluster, Pod, Proc, leftovers_of};

const HTTP: u16 = 80;
const REDIS: u16 = 6379;

/// The clients: pod and environment.
pub const CLIENTS: [(&str, Option<&str>); 3] =
    [("client", None), ("client-pr-1", Some("pr-1")), ("client-pr-2", Some("pr-2"))];

/// A cart of pr-1's, by number: the second one takes over during the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cart {
    First,
    Second,
}

impl Cart {
    /// The instance's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "cart-pr-1",
            Self::Second => "cart-pr-1-v2",
        }
    }
}

/// Everything that runs. Servers come first: they end before their pods.
pub struct Stage {
    agent: Option<Agent>,
    servers: Vec<Proc>,
    pods: Vec<Pod>,
    /// The service addresses clients connect to; no host has them.
    pub frontend: SocketAddr,
    pub cart: SocketAddr,
    pub db: SocketAddr,
    cluster: Cluster,
}

impl Stage {
    /// Makes the pods and starts the servers, without picop.
    pub fn build() -> Result<Self> {
        let cluster = Cluster::new("demo")?;
        let service = |port| SocketAddr::new(cluster.service_addr4().into(), port);
        let (frontend, cart, db) = (service(HTTP), service(HTTP), service(REDIS));
        let mut stage =
            Self { agent: None, servers: Vec::new(), pods: Vec::new(), frontend, cart, db, cluster };
        for (client, _) in CLIENTS {
            stage.add_pod(client)?;
        }
        for name in ["db-base", "db-pr-2"] {
            stage.add_redis(name)?;
        }
        for name in ["cart-base", Cart::First.name(), Cart::Second.name()] {
            stage.add_service(name, "--redis", db)?;
        }
        stage.add_service("frontend-base", "--next", cart)?;
        Ok(stage)
    }

    /// Starts the agent over the cluster.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(Agent::start(&self.cluster, &self.routes(Cart::First)?)?);
        Ok(())
    }

    /// The running agent.
    pub fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("the agent was not started")
    }

    /// A pod by its name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.name() == name).with_context(|| format!("there is no pod {name}"))
    }

    /// The route file, with one or the other cart for pr-1.
    pub fn routes(&self, cart: Cart) -> Result<String> {
        let at = |name: &str, port: u16| self.pod(name).map(|pod| pod.at4(port));
        let cgroup = |name: &str| self.pod(name).map(|pod| pod.cgroup_path_rel().to_owned());
        Ok(format!(
            "\
services:
  - name: frontend
    addresses: [\"{frontend}\"]
    header: propagate
    base: [\"{frontend_base}\"]
  - name: cart
    addresses: [\"{cart}\"]
    header: propagate
    base: [\"{cart_base}\"]
    variants:
      pr-1: [\"{cart_pr_1}\"]
  - name: db
    addresses: [\"{db}\"]
    header: strip
    base: [\"{db_base}\"]
    variants:
      pr-2: [\"{db_pr_2}\"]
workloads:
  # Says nothing of its own: what it sends has no header.
  - {{cgroup: {client}, context: header}}
  - {{cgroup: {client_pr_1}, environment: pr-1}}
  - {{cgroup: {client_pr_2}, environment: pr-2}}
  # Instrumented: they send on the header of the request they are serving.
  - {{cgroup: {frontend_pod}, context: header}}
  - {{cgroup: \"{carts}*\", context: header}}
",
            frontend = self.frontend,
            frontend_base = at("frontend-base", HTTP)?,
            cart = self.cart,
            cart_base = at("cart-base", HTTP)?,
            cart_pr_1 = at(cart.name(), HTTP)?,
            db = self.db,
            db_base = at("db-base", REDIS)?,
            db_pr_2 = at("db-pr-2", REDIS)?,
            client = cgroup("client")?,
            client_pr_1 = cgroup("client-pr-1")?,
            client_pr_2 = cgroup("client-pr-2")?,
            frontend_pod = cgroup("frontend-base")?,
            carts = format_args!("{}/cart-", self.cluster.id()),
        ))
    }

    /// Where a redis really listens, past picop.
    pub fn redis_at(&self, pod: &str) -> Result<SocketAddr> {
        Ok(self.pod(pod)?.at4(REDIS))
    }

    /// Removes everything, and makes sure of it.
    pub fn remove(self) -> Result<()> {
        let Self { agent, servers, cluster, .. } = self;
        let id = cluster.id();
        if let Some(agent) = agent {
            let status = agent.stop()?;
            ensure!(status.success(), "picop ended badly when asked to stop: {status}");
        }
        drop(servers);
        drop(cluster);
        let left = leftovers_of(id);
        ensure!(left.is_empty(), "not removed: {}", left.join(", "));
        Ok(())
    }

    /// Leaves everything up.
    pub fn keep(self) -> Result<()> {
        let Self { agent, servers, cluster, .. } = self;
        cluster.keep()?;
        servers.into_iter().for_each(Proc::detach);
        if let Some(agent) = agent {
            agent.detach();
        }
        Ok(())
    }

    fn add_pod(&mut self, name: &str) -> Result<Pod> {
        let pod = self.cluster.pod(name)?;
        self.pods.push(pod.clone());
        Ok(pod)
    }

    fn add_service(&mut self, name: &str, option: &str, next: SocketAddr) -> Result<()> {
        let pod = self.add_pod(name)?;
        let server = pod.serve("serve", pod.at4(HTTP), ["--name", name, option, &next.to_string()])?;
        self.servers.push(server);
        Ok(())
    }

    /// A real redis that knows its own name and nothing of picop.
    fn add_redis(&mut self, name: &str) -> Result<()> {
        let pod = self.add_pod(name)?;
        let program = crate::workspace::program("redis-server").context("redis-server is not installed")?;
        let mut command = pod.command(program)?;
        command.args(["--port", &REDIS.to_string(), "--bind", &pod.addr4().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"]);
        command.arg("--dir").arg(self.cluster.dir());
        let mut server = pod.spawn("redis", command)?;
        server.wait_for_port(REDIS)?;
        self.servers.push(server);
        let mut redis = super::proof::Redis::connect(&pod, pod.at4(REDIS))?;
        redis.expect_ok(&["SET", "who", name])
    }
}

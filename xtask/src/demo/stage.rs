//! The demo's cluster: its pods, its servers, its routes.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use testbed::kube::objects::{self, annotated, labelled};
use testbed::kube::{ApiServer, Kind, Layout};
use testbed::{Agent, AgentOptions, Cluster, Pod, PodSpec, Proc, leftovers_of};

const HTTP: u16 = 80;
const REDIS: u16 = 6379;
const NODE: &str = "node-1";

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
    /// Where routes come from, if not from a file.
    server: Option<ApiServer>,
    cluster: Cluster,
}

impl Stage {
    /// Makes the pods and starts the servers, without picop.
    pub fn build(kubernetes: bool) -> Result<Self> {
        let cluster = Cluster::new("demo")?;
        let service = |port| SocketAddr::new(cluster.service_addr4().into(), port);
        let (frontend, cart, db) = (service(HTTP), service(HTTP), service(REDIS));
        let server = kubernetes.then(ApiServer::start).transpose()?;
        let (servers, pods) = (Vec::new(), Vec::new());
        let mut stage = Self { agent: None, servers, pods, frontend, cart, db, server, cluster };
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
        if let Some(server) = &stage.server {
            server.apply_all(stage.objects()?)?;
            // What a cluster's own proxy does: the base is the service's address.
            for (service, base) in [(frontend, "frontend-base"), (cart, "cart-base"), (db, "db-base")] {
                stage.cluster.lead(ipv4(service)?, stage.pod(base)?)?;
            }
        }
        Ok(stage)
    }

    /// Starts the agent over the cluster.
    pub fn start_agent(&mut self) -> Result<()> {
        let options = match &self.server {
            None => AgentOptions { routes: self.routes(Cart::First)?, ..AgentOptions::default() },
            Some(server) => AgentOptions::kubernetes(server.kubeconfig(self.cluster.dir())?, NODE),
        };
        self.agent = Some(Agent::start_with(&self.cluster, options)?);
        Ok(())
    }

    /// What picop calls a service.
    pub fn service_name(&self, service: &str) -> String {
        let port = if service == "db" { REDIS } else { HTTP };
        match &self.server {
            None => service.to_owned(),
            Some(_) => format!("{}/{service}:{port}", objects::NAMESPACE),
        }
    }

    /// Puts one or the other cart in pr-1's place, and waits until it is.
    pub fn put(&self, cart: Cart) -> Result<()> {
        let agent = self.agent()?;
        let Some(server) = &self.server else { return agent.routes(&self.routes(cart)?) };
        let before = agent.log_lines().len();
        server.apply(objects::slice(Cart::First.name(), &[self.pod(cart.name())?.at4(HTTP)]))?;
        match agent.verdict_since(before)? {
            None => Ok(()),
            Some(refusal) => bail!("the agent refused the routes: {refusal}"),
        }
    }

    /// The cluster's objects: what `examples/shop` says, and what the cluster makes of it.
    fn objects(&self) -> Result<Vec<serde_json::Value>> {
        let unused = |port| SocketAddr::new(self.cluster.service_addr4().into(), port);
        let slice = |service: &str, pod: &str, port| {
            Ok::<_, anyhow::Error>(objects::slice(service, &[self.pod(pod)?.at4(port)]))
        };
        let propagate = json!({"picop.dev/header": "propagate"});
        let mut all = vec![
            objects::object(Kind::Namespace, objects::NAMESPACE),
            objects::object(Kind::Node, NODE),
            annotated(objects::service("frontend", self.frontend), propagate.clone()),
            annotated(objects::service("cart", self.cart), propagate),
            objects::service("db", self.db),
            objects::variant(Cart::First.name(), unused(HTTP), "cart", "pr-1"),
            objects::variant("db-pr-2", unused(REDIS), "db", "pr-2"),
            slice("frontend", "frontend-base", HTTP)?,
            slice("cart", "cart-base", HTTP)?,
            slice("db", "db-base", REDIS)?,
            slice(Cart::First.name(), Cart::First.name(), HTTP)?,
            slice("db-pr-2", "db-pr-2", REDIS)?,
        ];
        for (pod, number) in self.pods.iter().zip(1..) {
            let object = objects::pod(pod.name(), &uid(number), NODE);
            all.push(match pod.name() {
                "client-pr-1" => labelled(object, json!({"picop.dev/environment": "pr-1"})),
                "client-pr-2" => labelled(object, json!({"picop.dev/environment": "pr-2"})),
                name if name.starts_with("db-") => object,
                // Instrumented.
                _ => annotated(object, json!({"picop.dev/context": "header"})),
            });
        }
        Ok(all)
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
        let spec = match &self.server {
            None => PodSpec::new(name),
            Some(_) => Layout::Systemd.pod(name, &uid(self.pods.len() + 1)),
        };
        let pod = self.cluster.pod(spec)?;
        self.pods.push(pod.clone());
        Ok(pod)
    }

    fn add_service(&mut self, name: &str, option: &str, next: SocketAddr) -> Result<()> {
        let pod = self.add_pod(name)?;
        // At the service's address too, if it leads here.
        let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), HTTP);
        let server = pod.serve("serve", listen, ["--name", name, option, &next.to_string()])?;
        self.servers.push(server);
        Ok(())
    }

    /// A real redis that knows its own name and nothing of picop.
    fn add_redis(&mut self, name: &str) -> Result<()> {
        let pod = self.add_pod(name)?;
        let program = crate::workspace::program("redis-server").context("redis-server is not installed")?;
        let mut command = pod.command(program)?;
        command.args(["--port", &REDIS.to_string(), "--bind", "0.0.0.0"]);
        command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"]);
        command.arg("--dir").arg(self.cluster.dir());
        let mut server = pod.spawn("redis", command)?;
        server.wait_for_port(REDIS)?;
        self.servers.push(server);
        let mut redis = super::proof::Redis::connect(&pod, pod.at4(REDIS))?;
        redis.expect_ok(&["SET", "who", name])
    }
}

fn ipv4(address: SocketAddr) -> Result<Ipv4Addr> {
    match address {
        SocketAddr::V4(v4) => Ok(*v4.ip()),
        SocketAddr::V6(_) => bail!("the demo's services have IPv4 addresses"),
    }
}

/// The UID of the pod of a number.
fn uid(number: usize) -> String {
    format!("5a1e0000-0000-4000-8000-{number:012x}")
}

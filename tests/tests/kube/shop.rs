//! A shop: the Service `cart` with its base, a variant of pr-1, and a client of pr-1.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use testbed::kube::objects::{labelled, object, pod, service, slice, variant};
use testbed::kube::{ApiServer, Kind, Layout};
use testbed::{Agent, AgentOptions, Client, Cluster, Pod, Proc, wait_until};

use crate::Result;

pub type Boxed = Box<dyn std::error::Error>;

pub const NODE: &str = "node-1";
pub const SOON: Duration = Duration::from_secs(10);
pub const PORT: u16 = 80;
pub const CLIENT_UID: &str = "0f6bd6f4-1c3e-4a8e-9d5f-2b1f3c4d5e6f";

pub struct Shop {
    pub server: ApiServer,
    pub client: Pod,
    pub base: Pod,
    pub pr_1: Pod,
    /// Where clients connect.
    pub cart: SocketAddr,
    _procs: Vec<Proc>,
    pub cluster: Cluster,
}

impl Shop {
    /// Everything but the agent; in the API: the Services, their endpoints and the client's Pod, and no label yet.
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, Layout::Systemd)
    }

    pub fn with(name: &str, layout: Layout) -> Result<Self> {
        let cluster = Cluster::new(name)?;
        let client = cluster.pod(layout.pod("client", CLIENT_UID))?;
        let (base, pr_1) = (cluster.pod("cart")?, cluster.pod("cart-pr-1")?);
        let procs = vec![serve(&base)?, serve(&pr_1)?];
        let address = cluster.service_addr4();
        cluster.lead(address, &base)?;
        let server = ApiServer::start()?;
        let shop = Self {
            server,
            client,
            base,
            pr_1,
            cart: SocketAddr::new(address.into(), PORT),
            _procs: procs,
            cluster,
        };
        shop.server.apply_all([
            object(Kind::Namespace, "shop"),
            object(Kind::Node, NODE),
            service("cart", shop.cart),
            slice("cart", &[shop.base.at4(PORT)]),
            service("cart-pr-1", shop.unused()),
            slice("cart-pr-1", &[shop.pr_1.at4(PORT)]),
            pod("client", CLIENT_UID, NODE),
            pod("elsewhere", "1111-1", "node-2"),
        ])?;
        Ok(shop)
    }

    /// A cluster IP that leads nowhere.
    pub fn unused(&self) -> SocketAddr {
        SocketAddr::new(self.cluster.service_addr4().into(), PORT)
    }

    /// Labels the variant's Service as that.
    pub fn label_service(&self) -> Result {
        Ok(self.server.apply(variant("cart-pr-1", self.unused(), "cart", "pr-1"))?)
    }

    /// Labels the client's Pod.
    pub fn label_client(&self) -> Result {
        let labels = json!({"picop.dev/environment": "pr-1"});
        Ok(self.server.apply(labelled(pod("client", CLIENT_UID, NODE), labels))?)
    }

    pub fn kubeconfig(&self) -> Result<PathBuf> {
        Ok(self.server.kubeconfig(self.cluster.dir())?)
    }

    pub fn options(&self) -> Result<AgentOptions> {
        Ok(AgentOptions::kubernetes(self.kubeconfig()?, NODE))
    }

    pub fn agent(&self) -> Result<Agent> {
        Ok(Agent::start_with(&self.cluster, self.options()?)?)
    }

    /// Who serves the client.
    pub fn who(&self) -> Result<String> {
        self.who_from(&self.client)
    }

    pub fn who_from(&self, pod: &Pod) -> Result<String> {
        let report = Client::to(self.cart).text("who\n").read_all().timeout(SOON).run(pod)?;
        if !report.ok {
            return Err(format!("{report:?}").into());
        }
        Ok(report.text.trim().trim_matches(['[', ']', '"']).to_owned())
    }

    /// Waits until the client is served by somebody. Nothing may fail meanwhile.
    #[track_caller]
    pub fn until_served_by(&self, who: &str) -> Result {
        let mut failed = None;
        let served = wait_until(&format!("{who} serves"), SOON, || match self.who() {
            Ok(name) => (name == who).then_some(()),
            Err(error) => {
                failed = Some(error);
                Some(())
            }
        });
        failed.map_or(Ok(()), Err)?;
        Ok(served?)
    }
}

/// A server that says its pod's name, at every address of it.
pub fn serve(pod: &Pod) -> Result<Proc> {
    let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    Ok(pod.serve("serve", listen, ["--name", pod.name()])?)
}

/// Waits for a line of the agent's log.
pub fn logged(agent: &Agent, from: usize, message: &str) -> Result<serde_json::Value> {
    let line = wait_until(message, SOON * 3, || {
        agent
            .log_lines()
            .into_iter()
            .skip(from)
            .find(|line| line["message"].as_str().is_some_and(|it| it.contains(message)))
    });
    Ok(line.map_err(|error| {
        format!("{error:#}\n{:#?}", agent.log_lines().iter().rev().take(20).collect::<Vec<_>>())
    })?)
}

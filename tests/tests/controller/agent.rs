//! A node agent that is a proxy of the controller.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use testbed::{Agent, AgentOptions, Client, Cluster, Pod, Proc, require_privilege, wait_until};
use tokio::task::block_in_place;

use crate::Result;
use crate::running::Controller;

const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(20);

struct Scene {
    agent: Agent,
    options: AgentOptions,
    client: Pod,
    service: SocketAddr,
    feature: (Pod, Proc),
    _base: (Pod, Proc),
    // Last: it takes everything else down.
    cluster: Cluster,
}

/// A pod whose server answers with its name.
fn server(cluster: &Cluster, name: &str) -> Result<(Pod, Proc)> {
    let pod = cluster.pod(name)?;
    let dir = cluster.dir().join(format!("recorded-{name}"));
    let dir = dir.to_str().context("a path of plain ASCII")?;
    let at = SocketAddr::new(IpAddr::V6(0.into()), PORT);
    let proc = pod.serve("recorder", at, ["--dir", dir, "--answer", name])?;
    Ok((pod, proc))
}

impl Scene {
    fn new(controller: SocketAddr) -> Result<Self> {
        let cluster = Cluster::new("proxy")?;
        let client = cluster.pod("client")?;
        let (base, feature) = (server(&cluster, "base")?, server(&cluster, "feature")?);
        let service = SocketAddr::new(cluster.service_addr4().into(), 80);
        let routes = format!(
            "services: [{{name: cart, addresses: [\"{service}\"], base: [\"{}\"]}}]\n\
             workloads: [{{cgroup: {}, environment: pr-1}}]\n",
            base.0.at4(PORT),
            client.cgroup_path_rel()
        );
        let (url, state) = (format!("http://{controller}"), cluster.dir().join("controller-state"));
        let state = state.display().to_string();
        let args = ["--controller-url", &url, "--id", "node-1", "--controller-listen", "127.0.0.1:0"];
        let args = args.into_iter().chain(["--controller-state", &state]).map(str::to_owned).collect();
        let options = AgentOptions { routes, args, ..AgentOptions::default() };
        let agent = Agent::start_with(&cluster, options.clone())?;
        Ok(Self { agent, options, client, service, feature, _base: base, cluster })
    }

    /// One after this one, of which it is not waited that it is ready.
    fn another_agent(&mut self) -> Result {
        self.agent.signal(Signal::TERM)?;
        anyhow::ensure!(self.agent.wait(SOON)?.success());
        let options = AgentOptions { unready: true, ..self.options.clone() };
        self.agent = Agent::start_with(&self.cluster, options)?;
        Ok(())
    }

    /// Waits until a connection of the client's gets to that server.
    fn until_served_by(&self, name: &str) -> Result {
        let served = || {
            let client = Client::to(self.service).text("hello").half_close().read_all().timeout(SOON);
            block_in_place(|| client.run(&self.client)).ok().filter(|report| report.ok).map(|it| it.text)
        };
        let found = wait_until(name, SOON, || served().filter(|text| text == name));
        found.with_context(|| std::fs::read_to_string(self.agent.log_path()).unwrap_or_default())?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_routes_as_its_controller_says_and_goes_on_without_it() -> Result {
    require_privilege!(Ok(()));
    let dir = tempfile::tempdir()?;
    let database = format!("sqlite:{}", dir.path().join("controller.db").display());
    let controller = Controller::start(&database).await?;
    let mut it = block_in_place(|| Scene::new(controller.place().now()))?;
    it.until_served_by("base")?;
    let to = it.feature.0.at4(PORT).to_string();
    let route = json!([{"proxy_id": "node-1", "env_id": "pr-1", "destination": to}]);
    controller.good("PUT", "/routes", &route).await?;
    it.until_served_by("feature")?;
    controller.good("DELETE", "/routes", &route).await?;
    it.until_served_by("base")?;
    controller.good("PUT", "/routes", &route).await?;
    it.until_served_by("feature")?;

    // Without the controller, the routes stay.
    controller.stop().await?;
    it.until_served_by("feature")?;
    // Also those of the next agent, which is not ready until the controller knows it.
    block_in_place(|| it.another_agent())?;
    it.until_served_by("feature")?;
    let lost = |line: &Value| line["message"] == "not ready: the source of routes is not followed";
    let said = || it.agent.log_lines().into_iter().find(lost);
    block_in_place(|| wait_until("it says that it is not ready", SOON, said)).map(drop)
}

//! PiCoP's demo through the node agent: services A, B and C and a database in three environments, of which feature-1 has its own A,
//! feature-2 its own B, and each of both its own database. There is no gateway and no proxy: services reach each other by their
//! addresses, with the context they were reached with; clients know nothing of contexts, and belong to an environment by where
//! they run.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::mysql::{Engine, on_each_engine};
use testbed::{Agent, Client, Cluster, Pod, Proc};

use crate::Result;
use crate::mariadb::{PORT as DATABASE_PORT, Template};
use crate::programs::require;
use crate::routes::{SNIFF, file, in_environment, instrumented};

const PORT: u16 = 8080;
const ENVIRONMENTS: [&str; 4] = ["main", "feature-1", "feature-2", "feature-100"];

struct Demo {
    agent: Agent,
    clients: [Pod; 4],
    /// The addresses of A, B, C and the database, which no host has.
    at: [SocketAddr; 4],
    /// Pods of the base and of variants.
    services: Vec<Pod>,
    _servers: Vec<Proc>,
    // Last: it takes everything else down.
    _cluster: Cluster,
}

/// A service, its base's pod, and of variants the environment and the pod.
type Service<'a> = (&'a str, SocketAddr, &'a str, &'a Pod, Vec<(&'a str, &'a Pod)>);

fn entry((name, address, header, base, variants): Service<'_>) -> Value {
    let port = address.port();
    let variants: serde_json::Map<_, _> =
        variants.into_iter().map(|(env, pod)| (env.to_owned(), json!([pod.at4(port)]))).collect();
    json!({
        "name": name,
        "addresses": [address],
        "header": header,
        "expect_header": format!("sniff({}ms)", SNIFF.as_millis()),
        "base": [base.at4(port)],
        "variants": variants,
    })
}

impl Demo {
    fn start(engine: &Engine) -> Result<Self> {
        let cluster = Cluster::new("demo")?;
        let address = |port| SocketAddr::new(cluster.service_addr4().into(), port);
        let at = [address(PORT), address(PORT), address(PORT), address(DATABASE_PORT)];
        let names = [
            "a-main",
            "a-feature-1",
            "b-main",
            "b-feature-2",
            "c-main",
            "a-feature-100",
            "db-main",
            "db-feature-1",
            "db-feature-2",
        ];
        let services: Vec<Pod> = names.into_iter().map(|name| cluster.pod(name)).collect::<Result<_>>()?;
        let mut servers = Vec::new();
        for (pod, next) in services.iter().zip([
            Some(("--next", at[1])),
            Some(("--next", at[1])),
            Some(("--next", at[2])),
            Some(("--next", at[2])),
            Some(("--mariadb", at[3])),
            None,
        ]) {
            let mut args = vec!["--name".to_owned(), pod.name().to_owned()];
            args.extend(next.into_iter().flat_map(|(kind, to)| [kind.to_owned(), to.to_string()]));
            servers.push(pod.serve("serve", pod.at4(PORT), args)?);
        }
        let template = Template::new(engine, &cluster, &services[6])?;
        for pod in &services[6..] {
            servers.push(template.serve(&cluster, pod, pod.name())?);
        }
        let clients = ENVIRONMENTS.map(|environment| cluster.pod(environment));
        let [main, one, two, unknown] = clients;
        let clients = [main?, one?, two?, unknown?];
        let agent = Agent::start(&cluster, &Self::routes(at, &services, &clients, false))?;
        Ok(Self { agent, clients, at, services, _servers: servers, _cluster: cluster })
    }

    fn routes(at: [SocketAddr; 4], pods: &[Pod], clients: &[Pod], own_a: bool) -> String {
        let mut variants_of_a = vec![("feature-1", &pods[1])];
        if own_a {
            variants_of_a.push(("feature-100", &pods[5]));
        }
        let services: [Service<'_>; 4] = [
            ("a", at[0], "propagate", &pods[0], variants_of_a),
            ("b", at[1], "propagate", &pods[2], vec![("feature-2", &pods[3])]),
            ("c", at[2], "propagate", &pods[4], vec![]),
            // A database does not read headers.
            ("db", at[3], "strip", &pods[6], vec![("feature-1", &pods[7]), ("feature-2", &pods[8])]),
        ];
        let members = clients.iter().zip(ENVIRONMENTS).map(|(pod, env)| in_environment(pod, env));
        let workloads: Vec<_> = members.chain(pods[..6].iter().map(instrumented)).collect();
        file(&services.map(entry), &workloads)
    }

    /// What a client of that environment gets from A.
    fn ask(&self, environment: &str, request: &str) -> Result<Value> {
        let number = ENVIRONMENTS.iter().position(|name| *name == environment).expect("one of them");
        let client = Client::to(self.at[0]).text(&format!("{request}\n")).read_all();
        let report = client.timeout(Duration::from_secs(30)).run(&self.clients[number])?;
        anyhow::ensure!(report.ok, "{environment}: {report:?}");
        Ok(serde_json::from_str(&report.text)?)
    }

    /// In every environment: the services that took part, and what the database has.
    fn expect(&self, shared: &[&str], one: &[&str], two: &[&str], unknown: Value) -> Result {
        for (environment, answer) in [
            ("main", json!(["a-main", "b-main", "c-main", { "mariadb": shared }])),
            ("feature-1", json!(["a-feature-1", "b-main", "c-main", { "mariadb": one }])),
            ("feature-2", json!(["a-main", "b-feature-2", "c-main", { "mariadb": two }])),
            ("feature-100", unknown),
        ] {
            assert_eq!(self.ask(environment, "list")?, answer, "{environment}");
        }
        Ok(())
    }
}

on_each_engine!(the_references_demo_through_the_node_agent);

fn the_references_demo_through_the_node_agent(engine: &Engine) -> Result {
    require!("mariadb");
    let demo = Demo::start(engine)?;
    let as_main = |shared: &[&str]| json!(["a-main", "b-main", "c-main", { "mariadb": shared }]);
    demo.expect(&[], &[], &[], as_main(&[]))?;

    // What is written in feature-1 and in feature-2 stays in their databases; all others share one.
    for environment in ENVIRONMENTS {
        demo.ask(environment, &format!("add {}", environment.replace('-', "")))?;
    }
    let (shared, one, two) = (["main", "feature100"], ["feature1"], ["feature2"]);
    demo.expect(&shared, &one, &two, as_main(&shared))?;

    // A new environment, while all of it runs; and gone again.
    let Demo { agent, at, services, clients, .. } = &demo;
    agent.routes(&Demo::routes(*at, services, clients, true))?;
    demo.expect(&shared, &one, &two, json!(["a-feature-100"]))?;
    agent.routes(&Demo::routes(*at, services, clients, false))?;
    demo.expect(&shared, &one, &two, as_main(&shared))?;

    // Clients' connections went straight to A, the header written in the kernel; the services' were read by the agent.
    let lines =
        demo.agent.wait_access(4, |line| line["service"] == "a" && line["environment"] == "feature-1")?;
    for line in lines.iter().filter(|line| line["service"] == "a") {
        assert_eq!((&line["path"], &line["env_source"]), (&json!("direct"), &json!("workload")), "{line}");
    }
    let lines =
        demo.agent.wait_access(1, |line| line["service"] == "db" && line["environment"] == "feature-1")?;
    for line in lines.iter().filter(|line| line["service"] == "db") {
        assert_eq!((&line["path"], &line["env_source"]), (&json!("relay"), &json!("header")), "{line}");
        assert_eq!(line["header"], "strip", "{line}");
    }
    Ok(())
}

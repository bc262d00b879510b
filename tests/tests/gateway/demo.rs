//! PiCoP's demo: services A, B and C and a database in three environments. feature-1 has its own A, feature-2 its own B, and
//! each of both its own database. Clients come in by a gateway, and everything else is found by proxies, which a controller
//! tells. Operators do in the order in which the reference's demo has them do: they start everything, register the proxies, and
//! then the routes. No agent has a part in it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use testbed::mysql::{Engine, Kind, on_each_engine};
use testbed::{eventually, wait_until};

use crate::Result;
use crate::database::{Database, install, query};
use crate::program::{Gateway, Proxy, SOON, said, tell};
use crate::services::{Asked, ask, named, serve};

const ENVIRONMENTS: [&str; 4] = ["main", "feature-1", "feature-2", "feature-100"];

struct Demo {
    gateways: BTreeMap<&'static str, SocketAddr>,
    /// Of A, B, C and the database, by their names at the controller.
    proxies: BTreeMap<&'static str, Proxy>,
    controller: String,
    _controller: Gateway,
    _gateways: Vec<Gateway>,
    databases: Vec<Database>,
    _dir: tempfile::TempDir,
}

/// A gateway for each environment, in front of one destination.
fn gateways(
    dir: &Path,
    destination: SocketAddr,
    running: &mut Vec<Gateway>,
) -> Result<BTreeMap<&'static str, SocketAddr>> {
    let destination = destination.to_string();
    let mut found = BTreeMap::new();
    for environment in ENVIRONMENTS {
        let args = ["tcp", "--port", "0", "--env-id", environment, "--destination", &destination];
        let gateway = Gateway::start(dir, &args)?;
        found.insert(environment, gateway.address("connections")?);
        running.push(gateway);
    }
    Ok(found)
}

/// `/` lists what the database of the request's environment has, `/add/NAME` adds to it. MariaDB's client is not
/// instrumented: a gateway names the environment for it.
fn with_database(
    name: &'static str,
    databases: &BTreeMap<&'static str, SocketAddr>,
    asked: &Asked,
) -> Result<String> {
    let environment = asked.environment.as_deref().ok_or("a request without an environment")?;
    let at = *databases.get(environment).ok_or("an environment without a gateway")?;
    if let Some(thing) = asked.path.strip_prefix("/add/") {
        query(at, &format!("INSERT INTO demo.things VALUES ('{thing}')"))?;
    }
    Ok(format!("{name} [{}]", query(at, "SELECT name FROM demo.things ORDER BY name")?))
}

impl Demo {
    fn start(engine: &Engine) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let template = dir.path().join("template");
        install(engine, &template)?;
        // Those of this process have addresses of their own.
        let numbers = match engine.kind() {
            Kind::MariaDb => [1, 2, 3],
            Kind::MySql => [4, 5, 6],
        };
        let [main, one, two] = numbers.map(|number| Database::start(engine, &template, dir.path(), number));
        let databases = [main?, one?, two?];
        let kept = format!("sqlite:{}", dir.path().join("controller.db").display());
        let controller = Gateway::controller(dir.path(), &kept)?;
        let url = format!("http://{}", controller.answers_at()?);
        let proxy = |id: &str, default: SocketAddr, propagate: bool| {
            Proxy::of_controller(dir.path(), default, propagate, &url, id)
        };
        let mut running = Vec::new();
        // A database does not read headers.
        let data = proxy("service-mysql", databases[0].at, false)?;
        let data_gateways = gateways(dir.path(), data.at, &mut running)?;
        let c =
            proxy("service-c", serve(move |asked| with_database("C-main", &data_gateways, asked))?, true)?;
        let b = proxy("service-b", named("B-main", Some(c.at))?, true)?;
        let b_feature = named("B-feature-2", Some(c.at))?;
        let a = proxy("service-a", named("A-main", Some(b.at))?, true)?;
        let a_feature = named("A-feature-1", Some(b.at))?;
        let gateways = gateways(dir.path(), a.at, &mut running)?;
        let demo = Self {
            gateways,
            proxies: [("service-a", a), ("service-b", b), ("service-c", c), ("service-mysql", data)].into(),
            controller: url,
            _controller: controller,
            _gateways: running,
            databases: databases.into(),
            _dir: dir,
        };
        demo.register()?;
        demo.routes(
            "PUT",
            &[
                ("service-a", "feature-1", a_feature),
                ("service-mysql", "feature-1", demo.databases[1].at),
                ("service-b", "feature-2", b_feature),
                ("service-mysql", "feature-2", demo.databases[2].at),
            ],
        )?;
        Ok(demo)
    }

    /// Says where the proxies are. They have not been known until now, and ask to be activated by themselves.
    fn register(&self) -> Result {
        for (id, proxy) in &self.proxies {
            let at = json!({"endpoint": format!("http://localhost:{}", proxy.admin.port())});
            tell("PUT", &format!("{}/proxy/{id}/register", self.controller), &at.to_string())?;
        }
        Ok(())
    }

    /// Has the controller set routes, or remove them, and waits until the proxies have been told.
    fn routes(&self, method: &str, routes: &[(&str, &str, SocketAddr)]) -> Result {
        let entry = |(id, env, to): &(&str, &str, SocketAddr)| json!({"proxy_id": id, "env_id": env, "destination": to.to_string()});
        let body: Value = routes.iter().map(entry).collect();
        tell(method, &format!("{}/routes", self.controller), &body.to_string())?;
        for (id, env, to) in routes {
            let wanted = (method == "PUT").then(|| json!({"env_id": env, "destination": to.to_string()}));
            let told = || self.proxies[id].get(env).ok().filter(|found| *found == wanted);
            wait_until(&format!("{id} is told of {env}"), SOON, told)?;
        }
        Ok(())
    }

    /// What a client outside of everything gets by way of an environment's gateway.
    fn get(&self, environment: &str, path: &str) -> Result<String> {
        ask(self.gateways[environment], b"", path)
    }

    /// What clients of all environments get, through gateways and by writing the header themselves.
    fn expect(&self, shared: &str, one: &str, two: &str) -> Result {
        for (environment, told) in [
            ("main", format!("A-main B-main C-main [{shared}]")),
            ("feature-1", format!("A-feature-1 B-main C-main [{one}]")),
            ("feature-2", format!("A-main B-feature-2 C-main [{two}]")),
            ("feature-100", format!("A-main B-main C-main [{shared}]")),
        ] {
            assert_eq!(self.get(environment, "/")?, told, "{environment}");
            let url = format!("http://{}/", self.proxies["service-a"].at);
            assert_eq!(said(&["curl", "--env-id", environment, "--url", &url])?, told, "{environment}");
        }
        Ok(())
    }
}

on_each_engine!(the_references_demo_through_gateways_and_proxies);

fn the_references_demo_through_gateways_and_proxies(engine: &Engine) -> Result {
    let demo = Demo::start(engine)?;
    demo.expect("", "", "")?;
    // What is written in feature-1 and in feature-2 stays in their databases; all others share one.
    for environment in ENVIRONMENTS {
        demo.get(environment, &format!("/add/by-{environment}"))?;
    }
    demo.expect("by-feature-100,by-main", "by-feature-1", "by-feature-2")?;

    // A new environment, while all of it runs; and gone again.
    let own = ("service-a", "feature-100", named("A-feature-100", None)?);
    demo.routes("PUT", &[own])?;
    assert_eq!(demo.get("feature-100", "/")?, "A-feature-100");
    demo.routes("DELETE", &[own])?;
    demo.expect("by-feature-100,by-main", "by-feature-1", "by-feature-2")?;
    // Operators register proxies again, at the address that they have: nothing changes.
    demo.register()?;
    demo.routes("PUT", &[own])?;
    assert_eq!(demo.get("feature-100", "/")?, "A-feature-100");
    Ok(())
}

#[test]
fn a_gateway_ends_when_its_connections_have() -> Result {
    let dir = tempfile::tempdir()?;
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let destination = server.local_addr()?.to_string();
    let args = ["tcp", "--port", "0", "--env-id", "pr-1", "--destination", &destination];
    for (patience, orderly, signals) in [("60s", true, 1), ("1ms", false, 1), ("300s", false, 2)] {
        let mut gateway = Gateway::start(dir.path(), &[&args[..], &["--drain-timeout", patience]].concat())?;
        let at = gateway.address("connections")?;
        let client = TcpStream::connect(at)?;
        let (mut at_server, _) = server.accept()?;
        gateway.signal(Signal::TERM)?;
        let stops = || gateway.lines().iter().any(|line| line["message"] == "stopping");
        assert!(eventually(SOON, stops), "it does not stop");
        if signals == 2 {
            gateway.signal(Signal::INT)?;
        }
        if orderly {
            drop(client);
            at_server.read_to_end(&mut Vec::new())?;
            drop(at_server);
        }
        assert!(gateway.wait()?.success());
        let access = gateway.access();
        assert_eq!(access.len(), 1, "{access:?}");
        assert_eq!(access[0]["outcome"], if orderly { "ok" } else { "drained" }, "{access:?}");
        assert_eq!(access[0]["environment"], "pr-1");
    }
    Ok(())
}

//! PiCoP's demo: services A, B and C and a database, of which feature-1 has its own B and database, and feature-2 its own C.
//! Clients come in by a gateway, and everything else is found by proxies. No agent has a part in it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use testbed::eventually;
use testbed::mysql::{Engine, Kind, on_each_engine};

use crate::Result;
use crate::database::{Database, install, query};
use crate::program::{Gateway, Proxy, SOON, run, said};
use crate::services::{Asked, ask, named, serve};

const ENVIRONMENTS: [&str; 4] = ["main", "feature-1", "feature-2", "nobodys"];

struct Demo {
    gateways: BTreeMap<&'static str, SocketAddr>,
    proxy: Proxy,
    _others: Vec<Proxy>,
    _gateways: Vec<Gateway>,
    _databases: Vec<Database>,
    _dir: tempfile::TempDir,
}

/// A gateway for each environment, in front of one destination.
fn gateways(
    dir: &std::path::Path,
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
        let [first, second] = match engine.kind() {
            Kind::MariaDb => [1, 2],
            Kind::MySql => [3, 4],
        };
        let start = |number| Database::start(engine, &template, dir.path(), number);
        let databases = [start(first)?, start(second)?];
        let mut running = Vec::new();
        // A database does not read headers.
        let data = Proxy::start(dir.path(), databases[0].at, false)?;
        data.put("feature-1", databases[1].at)?;
        let data_gateways = gateways(dir.path(), data.at, &mut running)?;
        let own = data_gateways.clone();
        let c_main = serve(move |asked| with_database("C-main", &own, asked))?;
        let c_feature = serve(move |asked| with_database("C-feature-2", &data_gateways, asked))?;
        let c = Proxy::start(dir.path(), c_main, true)?;
        c.put("feature-2", c_feature)?;
        let b = Proxy::start(dir.path(), named("B-main", Some(c.at))?, true)?;
        b.put("feature-1", named("B-feature-1", Some(c.at))?)?;
        let a = Proxy::start(dir.path(), named("A-main", Some(b.at))?, true)?;
        let gateways = gateways(dir.path(), a.at, &mut running)?;
        Ok(Self {
            gateways,
            proxy: a,
            _others: vec![b, c, data],
            _gateways: running,
            _databases: databases.into(),
            _dir: dir,
        })
    }

    /// What a client outside of everything gets by way of an environment's gateway.
    fn get(&self, environment: &str, path: &str) -> Result<String> {
        ask(self.gateways[environment], b"", path)
    }
}

on_each_engine!(the_references_demo_through_gateways_and_proxies);

fn the_references_demo_through_gateways_and_proxies(engine: &Engine) -> Result {
    let demo = Demo::start(engine)?;
    for (environment, told) in [
        ("main", "A-main B-main C-main []"),
        ("feature-1", "A-main B-feature-1 C-main []"),
        ("feature-2", "A-main B-main C-feature-2 []"),
        ("nobodys", "A-main B-main C-main []"),
    ] {
        assert_eq!(demo.get(environment, "/")?, told, "{environment}");
    }
    // What is written in feature-1 stays in its database; all others share one.
    demo.get("feature-1", "/add/own")?;
    demo.get("feature-2", "/add/shared")?;
    for (environment, told) in [
        ("main", "A-main B-main C-main [shared]"),
        ("feature-1", "A-main B-feature-1 C-main [own]"),
        ("feature-2", "A-main B-main C-feature-2 [shared]"),
        ("nobodys", "A-main B-main C-main [shared]"),
    ] {
        assert_eq!(demo.get(environment, "/")?, told, "{environment}");
        // The same without a gateway, by a client that writes the header itself.
        let url = format!("http://{}/", demo.proxy.at);
        assert_eq!(said(&["curl", "--env-id", environment, "--url", &url])?, told, "{environment}");
    }

    // A new environment, while all of it runs; and gone again.
    let own = named("A-nobodys", None)?;
    demo.proxy.put("nobodys", own)?;
    assert_eq!(demo.get("nobodys", "/")?, "A-nobodys");
    let url = format!("http://{}/admin/env/nobodys", demo.proxy.admin);
    let entry = format!("{{\"env_id\":\"nobodys\",\"destination\":\"{own}\"}}");
    assert_eq!(said(&["curl", "--url", &url])?, entry);
    assert_eq!(said(&["curl", "--url", &url, "--method", "DELETE", "--fail"])?, "");
    assert_eq!(demo.get("nobodys", "/")?, "A-main B-main C-main [shared]");
    assert_eq!(run(&["curl", "--url", &url, "--fail"])?.status.code(), Some(1));
    Ok(())
}

#[test]
fn a_gateway_ends_when_its_connections_have() -> Result {
    let dir = tempfile::tempdir()?;
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let destination = server.local_addr()?.to_string();
    let args = ["tcp", "--port", "0", "--env-id", "pr-1", "--destination", &destination];
    for (patience, orderly) in [("60s", true), ("1ms", false)] {
        let mut gateway = Gateway::start(dir.path(), &[&args[..], &["--drain-timeout", patience]].concat())?;
        let at = gateway.address("connections")?;
        let client = TcpStream::connect(at)?;
        let (mut at_server, _) = server.accept()?;
        gateway.signal(Signal::TERM)?;
        let stops = || gateway.lines().iter().any(|line| line["message"] == "stopping");
        assert!(eventually(SOON, stops), "it does not stop");
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

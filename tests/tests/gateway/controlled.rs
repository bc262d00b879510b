//! A gateway proxy that takes its destinations from the controller, both as programs: a client is routed as the controller is told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use serde_json::json;
use testbed::wait_until;

use crate::Result;
use crate::program::{self, Gateway, SOON, feed};

/// A server that answers each connection with its name, once the client has said all. It lives as long as the test.
fn server(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answered = stream.and_then(|mut stream| {
                stream.read_to_end(&mut Vec::new())?;
                stream.write_all(name.as_bytes())
            });
            if let Err(error) = answered {
                eprintln!("{name}: a client is gone: {error}");
            }
        }
    });
    Ok(at)
}

/// One that registers itself.
fn proxy(dir: &Path, controller: SocketAddr, default: SocketAddr) -> Result<Gateway> {
    let (url, default) = (format!("http://{controller}"), default.to_string());
    let ports = ["--proxy-port", "0", "--admin-port", "0"];
    let by_controller =
        ["--default-addr", &default, "--controller-url", &url, "--id", "edge-1", "--endpoint", "auto"];
    Gateway::start(dir, &[&["proxy"], &ports[..], &by_controller].concat())
}

/// Who answers a client of an environment.
fn served(at: SocketAddr, environment: &str) -> Result<String> {
    let output = feed(&["connect", environment, &at.to_string()], b"hello")?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until a client of pr-1 gets there, and then asks for one of another environment.
fn until_served_by(name: &str, proxy: &Gateway) -> Result {
    let at = proxy.address("connections")?;
    let is_there = || served(at, "pr-1").ok().filter(|by| by == name);
    wait_until(name, SOON, is_there).map_err(|error| format!("{error:#}: {:?}", proxy.lines()))?;
    assert_eq!(served(at, "pr-2")?, "base");
    Ok(())
}

#[test]
fn destinations_come_from_the_controller() -> Result {
    let dir = tempfile::tempdir()?;
    let (base, first, second) = (server("base")?, server("first")?, server("second")?);
    let database = format!("sqlite:{}", dir.path().join("controller.db").display());
    let controller = Gateway::controller(dir.path(), &database)?;
    let url = format!("http://{}/routes", controller.answers_at()?);
    let tell = |method: &str, to: SocketAddr| -> Result {
        let route = json!([{"proxy_id": "edge-1", "env_id": "pr-1", "destination": to.to_string()}]);
        program::tell(method, &url, &route.to_string())
    };

    let edge = proxy(dir.path(), controller.answers_at()?, base)?;
    let activated = || edge.lines().into_iter().find(|line| line["message"] == "activated");
    wait_until("it is activated", SOON, activated)
        .map_err(|error| format!("{error:#}: {:?}", edge.lines()))?;
    until_served_by("base", &edge)?;
    tell("PUT", first)?;
    until_served_by("first", &edge)?;
    tell("PUT", second)?;
    until_served_by("second", &edge)?;
    // Another one of the same name knows nothing, and is told everything.
    drop(edge);
    let edge = proxy(dir.path(), controller.answers_at()?, base)?;
    until_served_by("second", &edge)?;
    tell("DELETE", second)?;
    until_served_by("base", &edge)?;
    // Without the controller, what was said last holds.
    tell("PUT", first)?;
    until_served_by("first", &edge)?;
    drop(controller);
    until_served_by("first", &edge)
}

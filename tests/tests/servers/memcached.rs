//! memcached, which has no client of its own: its text protocol is spoken by the testbed's.

use std::net::SocketAddr;

use testbed::{Client, Pod, Proc};

use crate::Result;
use crate::programs::require;
use crate::scene::{ENV, Scene, carried, command};

const PORT: u16 = 11211;

/// A memcached in `pod` whose item `who` says which it is.
fn serve(pod: &Pod, who: &str) -> Result<Proc> {
    let server =
        command(pod, "memcached", ["--user=root", "--listen=0.0.0.0,::", "--port=11211", "--udp-port=0"])?;
    let mut proc = pod.spawn("memcached", server)?;
    proc.wait_for_port(PORT)?;
    let at = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), PORT);
    assert_eq!(say(Client::to(at), pod, &set("who", who))?, "STORED\r\n");
    Ok(proc)
}

fn set(key: &str, value: &str) -> String {
    format!("set {key} 0 0 {}\r\n{value}\r\n", value.len())
}

fn value(key: &str, value: &str) -> String {
    format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
}

/// Sends commands, and gives all that is answered until memcached hangs up.
fn say(client: Client, pod: &Pod, commands: &str) -> Result<String> {
    let report = client.text(&format!("{commands}quit\r\n")).read_all().run(pod)?;
    anyhow::ensure!(report.ok, "{report:?}");
    Ok(report.text)
}

#[test]
fn memcached_is_picked_by_workload_and_by_header() -> Result {
    require!("memcached");
    let scene = Scene::new("memcached", PORT, "strip")?;
    let _servers = [serve(&scene.base, "base")?, serve(&scene.variant, ENV)?];
    let (v4, v6) = (scene.vip4, scene.vip6);
    let commands = format!("get who\r\n{}get cart\r\n", set("cart", "3 apples"));
    let expected = |who| format!("{}STORED\r\n{}", value("who", who), value("cart", "3 apples"));

    for client in [Client::to(v4), Client::to(v6), Client::to(v4).mapped()] {
        assert_eq!(say(client.clone(), &scene.member, &commands)?, expected(ENV), "{client:?}");
        let with_header = client.clone().header("env", ENV);
        assert_eq!(say(with_header, &scene.instrumented, &commands)?, expected(ENV), "{client:?}");
        assert_eq!(
            say(client.clone(), &scene.instrumented, "get who\r\n")?,
            value("who", "base"),
            "{client:?}"
        );
    }
    for line in scene.access(6, "variant")? {
        let sent = commands.len() + "quit\r\n".len();
        let counted = (sent as u64, expected(ENV).len() as u64);
        assert_eq!(carried(&line)?.unwrap_or(counted), counted, "{line}");
    }
    let at = |pod: &Pod| say(Client::to(pod.at4(PORT)), &scene.stranger, "get cart\r\n");
    assert_eq!(at(&scene.base)?, "END\r\n");
    assert_eq!(at(&scene.variant)?, value("cart", "3 apples"));
    scene.finish()
}

/// What `strip` is for.
#[test]
fn memcached_chokes_on_a_header_that_is_propagated() -> Result {
    require!("memcached");
    let scene = Scene::new("memcached-raw", PORT, "propagate")?;
    let _server = serve(&scene.variant, ENV)?;
    let client = Client::to(scene.vip4);
    let answer = say(client.clone(), &scene.member, "get who\r\n")?;
    assert!(answer.contains("ERROR"), "{answer:?}");
    scene.set_header("strip")?;
    assert_eq!(say(client, &scene.member, "get who\r\n")?, value("who", ENV));
    scene.finish()
}

//! A client that is driven by edges, as Go's runtime is; thousands of its connections, and large ones.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use testbed::{Client, Proc, Verdict, require_privilege};

use super::{Propagate, Sum, scene};
use crate::Result;

const PORT: u16 = 80;
const ECHO: u16 = 8080;

/// Instances that send back what they get.
fn echo(name: &str) -> Result<(Propagate, [Proc; 2])> {
    let scene = scene(name, PORT)?;
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ECHO);
    let serve = |pod: &testbed::Pod| pod.serve::<&str>("echo", at, []);
    let servers = [serve(&scene.base)?, serve(&scene.variant)?];
    Ok((Propagate::new(scene, ECHO)?, servers))
}

/// A client of a stream of its own that must come back whole.
fn client(to: SocketAddr, bytes: u64) -> Client {
    let client = Client::to(to).edge_triggered().timeout(Duration::from_secs(20));
    client.upload(bytes).half_close().read_all().expect_blob()
}

#[test]
fn an_edge_triggered_client_loses_neither_byte_nor_wake_up() -> Result {
    const MANY: usize = 500;
    const LARGE: u64 = 2_000_000;
    require_privilege!(Ok(()));
    let (it, _servers) = echo("propagate-edge")?;
    for (pod, _) in it.clients() {
        let (mut connections, mut bytes) = (0, 0);
        // Short ones, many at once: of one byte, and of more than a segment.
        for (to, each) in [(it.scene.vip4, 1), (it.scene.vip6, 3_000)] {
            let summary = client(to, each).run_many(pod, MANY, 250)?;
            assert!(summary.ok && summary.succeeded == MANY, "{to}: {summary:?}");
            assert_eq!(summary.bytes, MANY as u64 * each, "{to}");
            (connections, bytes) = (connections + MANY, bytes + summary.bytes);
        }
        // Large ones, whose writes are cut short, from the first one on.
        for client in [client(it.scene.vip4, LARGE), client(it.scene.vip4, LARGE).mapped()] {
            let summary = client.send_buffer(16_384).run_many(pod, 4, 4)?;
            assert!(summary.ok && summary.bytes == 4 * LARGE, "{summary:?}");
            (connections, bytes) = (connections + 4, bytes + summary.bytes);
        }
        let report = client(it.scene.vip6, LARGE).run(pod)?;
        assert!(report.ok && report.eof && report.peer == Some(it.scene.vip6), "{report:?}");
        let sum = Sum { connections: connections + 1, up: bytes + LARGE, down: bytes + LARGE };
        assert_eq!(it.check(pod, sum.connections)?, sum);
    }
    it.notices(Verdict::NoHeader, |pod, to| Ok(client(to, 3_000).run(pod)?.ok))?;
    it.scene.finish()
}

//! TCP Fast Open: a connection that is made by its first send.

use testbed::{Deed, Pod, Talk, Talker, hex, in_netns, require_privilege};

use super::{AUTO, pr_1};
use crate::common::{Result, Routes, Scene, logged, variants};

/// Client and server, every listener of which takes data in the SYN (`tcp_fastopen` 0x400; 1 and 2 are the default for
/// clients and the switch for servers).
struct Fast {
    server: Talker,
    client: Talker,
    server_pod: Pod,
    listener: usize,
    vip: std::net::SocketAddr,
    agent: testbed::Agent,
    _scene: Scene,
}

impl Fast {
    fn new(name: &str, policy: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let server_pod = scene.cluster.pod("server")?;
        for pod in [&server_pod, &scene.client] {
            set_fast_open(pod, "1027")?;
        }
        let vip = scene.vip();
        let at = server_pod.at4(crate::common::PORT);
        let settings = format!("header: {policy}, {}", variants(&[("pr-1", &[at])]));
        let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
        let agent = scene.agent(&routes, &[])?;
        let (server, client) = (Talker::in_pod(&server_pod)?, Talker::in_pod(&scene.client)?);
        let listener = server.listen(at)?;
        Ok(Self { server, client, server_pod, listener, vip, agent, _scene: scene })
    }

    /// A connection made by a send of `bytes`: `MSG_FASTOPEN`, or by a write after a connect that waits for it.
    fn open(&self, by_option: bool, bytes: &[u8]) -> Result<(Talk<'_>, Talk<'_>)> {
        let client = self.client.raw(false)?;
        if by_option {
            client.to(Deed::FastOpenConnect)?;
            client.to(Deed::Connect(self.vip))?;
            client.send(bytes)?;
        } else {
            let said = client.to(Deed::FastOpenSend(self.vip, hex::encode(bytes)))?;
            assert_eq!(said.value, Some(bytes.len() as u64));
        }
        Ok((client, self.server.accept(self.listener)?))
    }

    /// How often a server here has got data in a SYN.
    fn in_syn(&self) -> Result<u64> {
        let text = in_netns(self.server_pod.netns_path(), || {
            std::fs::read_to_string("/proc/thread-self/net/netstat")
        })??;
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, value) = pairs.find(|(name, _)| *name == "TCPFastOpenPassive").ok_or("no such counter")?;
        Ok(value.parse()?)
    }
}

fn set_fast_open(pod: &Pod, bits: &str) -> Result {
    Ok(in_netns(pod.netns_path(), || std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", bits))??)
}

/// All of what the client sends is at the server, and both can go on.
fn carries(client: Talk<'_>, server: Talk<'_>, wanted: &[u8]) -> Result {
    let said = server.receive(wanted.len())?;
    assert_eq!(said.hex, hex::encode(wanted), "{said:?}");
    server.send(b"reply")?;
    assert_eq!(client.receive(5)?.text(), "reply");
    client.send(b"more")?;
    assert_eq!(server.receive(4)?.text(), "more");
    client.finish()?;
    assert!(server.receive(1)?.eof);
    client.close()?;
    server.close()?;
    Ok(())
}

#[test]
fn with_strip_it_works() -> Result {
    require_privilege!(Ok(()));
    let it = Fast::new("fastopen-strip", "strip")?;
    for by_option in [false, true, false, true] {
        let (client, server) = it.open(by_option, b"hello")?;
        assert_eq!(client.names()?.peer, Some(it.vip));
        carries(client, server, b"hello")?;
    }
    // After the first, which fetches the cookie, the data was in the SYN.
    assert_eq!(it.in_syn()?, 3);
    Ok(())
}

#[test]
fn with_propagate_a_connect_that_is_not_deferred_has_its_header() -> Result {
    require_privilege!(Ok(()));
    let it = Fast::new("fastopen-first", "propagate")?;
    // Without a cookie, TCP_FASTOPEN_CONNECT connects as usual.
    let (client, server) = it.open(true, b"hello")?;
    carries(client, server, &[pr_1(), b"hello".to_vec()].concat())?;
    assert_eq!(it.in_syn()?, 0);
    Ok(())
}

/// The known hole: a send that makes its connection has begun before anybody can look at it. The stream is what the
/// application wrote, never with a header in the middle, and the agent says that one is missing.
#[test]
fn with_propagate_a_send_that_connects_has_none_and_that_is_told() -> Result {
    require_privilege!(Ok(()));
    let cases = [
        (false, false, true),
        (false, true, true),
        (true, true, true),
        // The server has changed its mind since it gave the cookie: what is in the SYN is sent again.
        (true, true, false),
    ];
    for (by_option, cookie, taken) in cases {
        let it = Fast::new("fastopen-hole", "propagate")?;
        if cookie {
            let (client, server) = it.open(true, b"fetch")?;
            carries(client, server, &[pr_1(), b"fetch".to_vec()].concat())?;
        }
        if !taken {
            set_fast_open(&it.server_pod, "0")?;
        }
        let (client, server) = it.open(by_option, b"hello")?;
        assert_eq!(client.names()?.peer, Some(it.vip));
        carries(client, server, b"hello")
            .map_err(|error| format!("by option: {by_option}, cookie: {cookie}: {error}"))?;
        assert_eq!(it.in_syn()?, u64::from(cookie && taken), "by option: {by_option}");
        let line = logged(&it.agent, 0, "connections went wrong")?;
        assert_eq!((line["event"].as_str(), line["connections"].as_u64()), (Some("header_missed"), Some(1)));
    }
    Ok(())
}

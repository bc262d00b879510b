//! TCP Fast Open: a connection that is made by its first send.

use std::net::SocketAddr;

use testbed::{Agent, AgentOptions, Deed, Pod, Talk, Talker, hex, in_netns, require_privilege, wait_until};

use super::{AUTO, pr_1};
use crate::common::{
    Result, Routes, Scene, counted, counting, expect, expect_counted, logged, netstat, soon, variants,
};

/// Client and server. Every listener in their namespaces takes data in the SYN, also the agent's, if it does not see to
/// that (`tcp_fastopen` 0x400; 1 and 2 are the default for clients and the switch for servers).
struct Fast {
    server: Talker,
    client: Talker,
    server_pod: Pod,
    /// IPv4, IPv6.
    families: [Family; 2],
    agent: Agent,
    scene: Scene,
}

#[derive(Clone, Copy)]
struct Family {
    vip: SocketAddr,
    at: SocketAddr,
    listener: usize,
}

/// A shell's script: runs its arguments where the kernel shows no BTF. In a mount namespace of its own.
const HIDE: &str = "mount -o bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\"";

/// Both ways to ask for it: `MSG_FASTOPEN`, and a write after a connect that waits for it.
const BY_OPTION: [bool; 2] = [false, true];

impl Fast {
    fn new(name: &str, policy: &str, options: AgentOptions) -> Result<Self> {
        let scene = Scene::new(name)?;
        let server_pod = scene.cluster.pod("server")?;
        for pod in [&server_pod, &scene.client] {
            set_fast_open(pod, "1027")?;
        }
        let (server, client) = (Talker::in_pod(&server_pod)?, Talker::in_pod(&scene.client)?);
        let family = |vip, at| -> Result<Family> { Ok(Family { vip, at, listener: server.listen(at)? }) };
        let port = crate::common::PORT;
        let families =
            [family(scene.vip(), server_pod.at4(port))?, family(scene.vip6(), server_pod.at6(port))?];
        // One service for each: the relay may go to an endpoint of the other family.
        let mut routes = Routes::new().workload(scene.workload(AUTO));
        for (name, family) in ["four", "six"].into_iter().zip(families) {
            let settings = format!("header: {policy}, {}", variants(&[("pr-1", &[family.at])]));
            routes = routes.service(name, &[family.vip], &settings);
        }
        let routes = routes.to_string();
        let agent = Agent::start_with(&scene.cluster, AgentOptions { routes, args: counting(), ..options })?;
        Ok(Self { server, client, server_pod, families, agent, scene })
    }

    /// A connection made by a send of `bytes`.
    fn open(&self, family: Family, by_option: bool, bytes: &[u8]) -> Result<(Talk<'_>, Talk<'_>)> {
        let client = send_to(&self.client, by_option, family.vip, bytes)?;
        Ok((client, self.server.accept(family.listener)?))
    }

    /// Has the client learn the cookie of the server, and use it: of an address that is no service.
    fn fetch_cookies(&self) -> Result {
        for family in self.families {
            for _ in 0..2 {
                let client = send_to(&self.client, false, family.at, b"fetch")?;
                carries(client, self.server.accept(family.listener)?, b"fetch")?;
            }
        }
        Ok(())
    }
}

fn send_to<'a>(client: &'a Talker, by_option: bool, to: SocketAddr, bytes: &[u8]) -> Result<Talk<'a>> {
    let client = client.raw(to.is_ipv6())?;
    if by_option {
        client.to(Deed::FastOpenConnect)?;
        client.to(Deed::Connect(to))?;
        client.send(bytes)?;
    } else {
        let said = client.to(Deed::FastOpenSend(to, hex::encode(bytes)))?;
        assert_eq!(said.value, Some(bytes.len() as u64));
    }
    Ok(client)
}

/// How often a server in this pod has got data in a SYN.
fn in_syn(pod: &Pod) -> Result<u64> {
    netstat(pod, "TCPFastOpenPassive")
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
    let it = Fast::new("fastopen-strip", "strip", AgentOptions::default())?;
    for family in it.families {
        for by_option in [BY_OPTION, BY_OPTION].concat() {
            let (client, server) = it.open(family, by_option, b"hello")?;
            assert_eq!(client.names()?.peer, Some(family.vip));
            carries(client, server, b"hello")?;
        }
        expect(&super::told(&it.agent, family.vip, 4)?[3], &[("path", "direct"), ("reason", "variant")]);
    }
    // After the first of each family, which fetches the cookie, the data was in the SYN.
    assert_eq!(in_syn(&it.server_pod)?, 6);
    Ok(())
}

/// Data in a SYN would be past the programs before anything could write the header: such a connection is relayed, whether
/// there is a cookie for the server, and for the agent's listener, or not.
#[test]
fn with_propagate_it_has_its_header_by_the_relay() -> Result {
    require_privilege!(Ok(()));
    let it = Fast::new("fastopen-header", "propagate", AgentOptions::default())?;
    let own = it.client.listen("127.0.0.1:0".parse()?)?;
    let own_at = it.client.ask(&testbed::talk::Ask::Names(own))?.local;
    let mut count = 0;
    for cookies in [false, true] {
        if cookies {
            it.fetch_cookies()?;
            // Another listener on the client's loopback gives cookies away: they are good for all there.
            let at = own_at.ok_or("a listener has an address")?;
            for _ in 0..2 {
                carries(send_to(&it.client, false, at, b"fetch")?, it.client.accept(own)?, b"fetch")?;
            }
        }
        let before = [in_syn(&it.server_pod)?, in_syn(&it.scene.client)?];
        assert_eq!(before, if cookies { [2, 1] } else { [0, 0] });
        for family in it.families {
            for by_option in [BY_OPTION, BY_OPTION].concat() {
                let (client, server) = it.open(family, by_option, b"hello")?;
                assert_eq!(client.names()?.peer, Some(family.vip));
                carries(client, server, &[pr_1(), b"hello".to_vec()].concat())
                    .map_err(|error| format!("by option: {by_option}, cookies: {cookies}: {error}"))?;
                count += 1;
            }
            let lines = super::told(&it.agent, family.vip, if cookies { 8 } else { 4 })?;
            for line in &lines {
                expect(line, &[("path", "relay"), ("relayed_for", "relay_fast_open")]);
                expect(line, &[("reason", "variant"), ("outcome", "ok")]);
            }
        }
        assert_eq!([in_syn(&it.server_pod)?, in_syn(&it.scene.client)?], before);
    }
    expect_counted(&it.agent, "reason", "relay_fast_open", count)?;
    let lines = it.agent.log_lines();
    assert!(!lines.iter().any(|line| line["message"] == "connections went wrong"), "{lines:?}");
    Ok(())
}

/// On the direct path again as soon as it does not ask for Fast Open: the reason is the socket's, not the workload's.
#[test]
fn with_propagate_a_plain_connect_beside_it_stays_direct() -> Result {
    require_privilege!(Ok(()));
    let it = Fast::new("fastopen-beside", "propagate", AgentOptions::default())?;
    it.fetch_cookies()?;
    for family in it.families {
        let client = it.client.open(family.vip)?;
        let server = it.server.accept(family.listener)?;
        client.send(b"hello")?;
        carries(client, server, &[pr_1(), b"hello".to_vec()].concat())?;
        expect(&super::told(&it.agent, family.vip, 1)?[0], &[("path", "direct"), ("header", "propagate")]);
    }
    wait_until("counters", soon(), || (counted(&it.agent, "reason", "variant") >= 2).then_some(()))?;
    assert_eq!(counted(&it.agent, "reason", "relay_fast_open"), 0);
    Ok(())
}

/// Where the kernel does not say what its sockets look like, a send that makes its connection has begun before anybody can
/// look at it. The stream is what the application wrote, never with a header in the middle, and the agent says that one is
/// missing.
#[test]
fn with_propagate_and_no_btf_it_has_none_and_that_is_told() -> Result {
    require_privilege!(Ok(()));
    let cases = [
        (false, false, true),
        (false, true, true),
        (true, true, true),
        // The server has changed its mind since it gave the cookie: what is in the SYN is sent again.
        (true, true, false),
    ];
    for (by_option, cookie, taken) in cases {
        let through = ["unshare", "-m", "sh", "-c", HIDE, "sh"].map(str::to_owned).to_vec();
        let options = AgentOptions { through, ..AgentOptions::default() };
        let it = Fast::new("fastopen-hole", "propagate", options)?;
        logged(&it.agent, 0, "this kernel does not show which connections use TCP Fast Open")?;
        let family = it.families[0];
        if cookie {
            // Without a cookie, TCP_FASTOPEN_CONNECT connects as usual.
            let (client, server) = it.open(family, true, b"fetch")?;
            carries(client, server, &[pr_1(), b"fetch".to_vec()].concat())?;
        }
        if !taken {
            set_fast_open(&it.server_pod, "0")?;
        }
        let (client, server) = it.open(family, by_option, b"hello")?;
        assert_eq!(client.names()?.peer, Some(family.vip));
        carries(client, server, b"hello")
            .map_err(|error| format!("by option: {by_option}, cookie: {cookie}: {error}"))?;
        assert_eq!(in_syn(&it.server_pod)?, u64::from(cookie && taken), "by option: {by_option}");
        let line = logged(&it.agent, 0, "connections went wrong")?;
        assert_eq!((line["event"].as_str(), line["connections"].as_u64()), (Some("header_missed"), Some(1)));
    }
    Ok(())
}

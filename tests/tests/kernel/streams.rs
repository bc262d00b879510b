//! What is carried: every byte, both ends of the stream, and resets.

use std::net::SocketAddr;

use testbed::{Agent, Client, Pod, Talk, Talker, eventually, require_privilege};

use crate::common::{Result, Routes, Scene, access, expect, expect_reset, scaled, soon, variants};

/// How often what depends on a race is tried.
const ROUNDS: usize = 10;

/// A server and a client under the test's control, with the agent between them.
struct Ends {
    scene: Scene,
    agent: Agent,
    server_pod: Pod,
    server: Talker,
    client: Talker,
    vip: SocketAddr,
    at: SocketAddr,
}

impl Ends {
    fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let server_pod = scene.cluster.pod("server")?;
        let (vip, at) = (scene.vip(), server_pod.at4(8080));
        let routes = Routes::new()
            .service("cart", &[vip], &variants(&[("pr-1", &[at])]))
            .workload(scene.workload("environment: pr-1"));
        let agent = scene.agent(&routes, &[])?;
        let (server, client) = (Talker::in_pod(&server_pod)?, Talker::in_pod(&scene.client)?);
        Ok(Self { scene, agent, server_pod, server, client, vip, at })
    }

    /// One connection, both ends.
    fn connect(&self) -> Result<(Talk<'_>, Talk<'_>)> {
        let listener = self.server.listen(self.at)?;
        let client = self.client.open(self.vip)?;
        Ok((client, self.server.accept(listener)?))
    }

    /// Starts a server of `hop blob`.
    fn blob(&self, args: &[&str]) -> Result<testbed::Proc> {
        Ok(self.server_pod.serve("blob", self.at, args.iter().copied())?)
    }
}

#[test]
fn a_client_that_is_done_sending_gets_all_of_a_long_answer() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("half-close")?;
    let size = scaled(50_000_000) as u64;
    let _blob = ends.blob(&["--bytes", &size.to_string()])?;
    let client = Client::to(ends.vip).text("go").half_close().read_all().expect_blob().timeout(soon());
    for client in [client.clone(), client.nonblocking()] {
        let report = client.run(&ends.scene.client)?;
        assert!(report.ok && report.eof, "{report:?}");
        assert_eq!(report.bytes, size);
        let line = access(&ends.agent, report.local)?;
        expect(&line, &[("outcome", "ok"), ("bytes_up", "2"), ("bytes_down", &size.to_string())]);
    }
    Ok(())
}

#[test]
fn a_server_that_is_done_sending_still_gets_everything() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("server-closes-first")?;
    let (client, server) = ends.connect()?;
    let local = client.names()?.local;
    server.send(b"bye")?;
    server.finish()?;
    let said = client.receive_all()?;
    assert_eq!((said.text().as_str(), said.eof), ("bye", true));
    for round in 0..20 {
        let text = format!("round {round} ").repeat(1000);
        client.send(text.as_bytes())?;
        assert_eq!(server.receive(text.len())?.text(), text);
    }
    client.finish()?;
    assert!(server.receive(1)?.eof);
    expect(&access(&ends.agent, local)?, &[("outcome", "ok"), ("bytes_down", "3")]);
    Ok(())
}

#[test]
fn both_directions_at_once() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("duplex")?;
    let _echo = ends.server_pod.serve::<&str>("echo", ends.at, [])?;
    let size = scaled(20_000_000) as u64;
    let client = Client::to(ends.vip).upload(size).half_close().read_all().expect_blob().timeout(soon());
    for client in [client.clone(), client.nonblocking()] {
        let report = client.run(&ends.scene.client)?;
        assert!(report.ok, "{report:?}");
        assert_eq!((report.sent, report.bytes), (size, size));
        let line = access(&ends.agent, report.local)?;
        assert_eq!((line["bytes_up"].as_u64(), line["bytes_down"].as_u64()), (Some(size), Some(size)));
    }
    Ok(())
}

#[test]
fn a_clients_reset_reaches_the_server() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("client-resets")?;
    let (client, server) = ends.connect()?;
    let local = client.names()?.local;
    client.send(b"half a request")?;
    assert_eq!(server.receive(14)?.text(), "half a request");
    client.reset()?;
    expect_reset(&server.receive(1)?);
    let line = access(&ends.agent, local)?;
    expect(&line, &[("outcome", "client_reset"), ("bytes_up", "14"), ("bytes_down", "0")]);
    Ok(())
}

#[test]
fn a_servers_reset_reaches_the_client_after_what_it_sent() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("server-resets")?;
    let (client, server) = ends.connect()?;
    let local = client.names()?.local;
    client.send(b"go")?;
    assert_eq!(server.receive(2)?.text(), "go");
    // No more than what TCP sends before the first acknowledgement: a reset throws away what is not sent yet.
    let answer = "answer ".repeat(1000);
    server.send(answer.as_bytes())?;
    server.reset()?;
    let said = client.receive_all()?;
    assert_eq!((said.text(), said.eof), (answer, false));
    expect_reset(&said);
    let line = access(&ends.agent, local)?;
    expect(&line, &[("outcome", "upstream_reset"), ("bytes_up", "2"), ("bytes_down", "7000")]);
    Ok(())
}

#[test]
fn a_reset_is_carried_after_a_half_close_too() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("half-closed-resets")?;
    let listener = ends.server.listen(ends.at)?;
    // The client is done sending, and the server gives up.
    let (client, server) = (ends.client.open(ends.vip)?, ends.server.accept(listener)?);
    client.finish()?;
    assert!(server.receive(1)?.eof);
    server.reset()?;
    expect_reset(&client.receive(1)?);
    // The server is done sending, and the client gives up.
    let (client, server) = (ends.client.open(ends.vip)?, ends.server.accept(listener)?);
    server.finish()?;
    assert!(client.receive(1)?.eof);
    client.reset()?;
    expect_reset(&server.receive(1)?);
    let lines = ends.agent.wait_access(2, |_| true)?;
    expect(&lines[0], &[("outcome", "upstream_reset")]);
    expect(&lines[1], &[("outcome", "client_reset")]);
    Ok(())
}

#[test]
fn a_server_that_dies_while_it_answers() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("dies")?;
    let size = scaled(20_000_000) as u64;
    let _blob = ends.blob(&["--bytes", &size.to_string(), "--reset-after", &(size / 2).to_string()])?;
    let report = Client::to(ends.vip).text("go\n").read_all().expect_blob().run(&ends.scene.client)?;
    assert_eq!((report.stage.as_deref(), report.error.as_deref()), (Some("read"), Some("ConnectionReset")));
    assert!(report.bytes <= size / 2 && report.mismatch_at.is_none(), "{report:?}");
    let line = access(&ends.agent, report.local)?;
    expect(&line, &[("outcome", "upstream_reset")]);
    assert!(line["bytes_down"].as_u64().is_some_and(|bytes| bytes >= report.bytes), "{line} {report:?}");
    Ok(())
}

#[test]
fn a_server_that_stops_while_the_client_is_stuck_writing() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("stuck-client")?;
    let listener = ends.server.listen(ends.at)?;
    // More than all buffers on the way hold. Several times: the agent learns of the reset by a read or by a write, and must
    // pass it on as one either way. (A client that was told of the end of the stream first would meet a broken pipe.)
    let upload = Client::to(ends.vip).upload(1 << 30).timeout(soon());
    for round in 1..=ROUNDS {
        let mut client = upload.spawn(&ends.scene.client)?;
        let server = ends.server.accept(listener)?;
        assert_eq!(server.receive(100_000)?.hex.len(), 200_000);
        server.reset()?;
        let report = Client::report(&mut client, soon() * 2)?;
        let met = (report.stage.as_deref(), report.error.as_deref());
        assert_eq!(met, (Some("write"), Some("ConnectionReset")), "round {round}: {report:?}");
        expect(&access(&ends.agent, report.local)?, &[("outcome", "upstream_reset")]);
    }
    Ok(())
}

#[test]
fn a_client_that_goes_while_the_server_is_stuck_writing() -> Result {
    require_privilege!(Ok(()));
    let ends = Ends::new("stuck-server")?;
    let blob = ends.blob(&["--bytes", &(1_u64 << 32).to_string()])?;
    let before = resident_kb(&ends.agent)?;
    for round in 1..=ROUNDS {
        let client = ends.client.open(ends.vip)?;
        let local = client.names()?.local;
        client.send(b"go\n")?;
        for _ in 0..4 {
            assert_eq!(client.receive(64 * 1024)?.hex.len(), 128 * 1024);
        }
        // Gigabytes are waiting to come; the agent must not hold them.
        let grown = resident_kb(&ends.agent)?.saturating_sub(before);
        assert!(grown < 32 * 1024, "the agent grew by {grown} kB");
        client.reset()?;
        expect(&access(&ends.agent, local)?, &[("outcome", "client_reset"), ("bytes_up", "3")]);
        // The server says how each of its connections failed.
        let told = || blob.stderr().matches('\n').count() == round;
        assert!(eventually(soon(), told), "{}", blob.stderr());
    }
    let failures = blob.stderr();
    assert!(failures.lines().all(|line| line.contains("Connection reset")), "{failures}");
    Ok(())
}

fn resident_kb(agent: &Agent) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

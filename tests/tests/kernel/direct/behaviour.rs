//! An application keeps an ordinary socket: whatever it asks of one that the kernel routed and wrote a header for, it is
//! answered as an unmanaged pod is that went to the server by itself.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use testbed::{AgentOptions, Cluster, Deed, Pod, Said, Talk, Talker, Target, blob, hex, require_privilege};

use super::{AUTO, pr_1};
use crate::common::{Result, Routes, Scene, counting, emulated, expect_counted, scaled, variants};

/// Where a server listens, and where none does.
const OPEN: u16 = 8080;
const CLOSED: u16 = 8081;

/// A server that a test controls, and two clients: one that is routed to it, one that is not and needs not be.
struct Both {
    server: Talker,
    server_pod: Pod,
    managed: Talker,
    control: Talker,
    client: Pod,
    control_pod: Pod,
    open: SocketAddr,
    closed: SocketAddr,
    hole: SocketAddr,
    hole_at: SocketAddr,
    front: Vec<u8>,
    agent: testbed::Agent,
    _cluster: Cluster,
}

/// One of the clients, and what it is to connect to.
struct Side<'a> {
    it: &'a Both,
    client: &'a Talker,
    own: IpAddr,
    open: SocketAddr,
    closed: SocketAddr,
    hole: SocketAddr,
    front: &'a [u8],
    listener: usize,
}

/// What an application saw, in order.
type Seen = Vec<(&'static str, String)>;

impl Both {
    fn new(name: &str, policy: &str) -> Result<Self> {
        let Scene { cluster, client } = Scene::new(name)?;
        let (server_pod, control_pod, hole_pod) =
            (cluster.pod("server")?, cluster.pod("control")?, cluster.pod("hole")?);
        // It gets packets and answers none.
        for pod in [&client, &control_pod] {
            let mut command = hole_pod.command("ip")?;
            command.args(["route", "add", "blackhole", &format!("{}/32", pod.addr4())]);
            hole_pod.run(command, crate::common::soon())?.success()?;
        }
        let vip = |port| SocketAddr::new(cluster.service_addr4().into(), port);
        let (open, closed, hole) = (vip(80), vip(80), vip(80));
        let service = |at: SocketAddr| format!("header: {policy}, {}", variants(&[("pr-1", &[at])]));
        let routes = Routes::new()
            .service("open", &[open], &service(server_pod.at4(OPEN)))
            .service("closed", &[closed], &service(server_pod.at4(CLOSED)))
            .service("hole", &[hole], &service(hole_pod.at4(OPEN)))
            .workload(crate::common::workload(&client, AUTO));
        let options =
            AgentOptions { routes: routes.to_string(), args: counting(), ..AgentOptions::default() };
        let agent = testbed::Agent::start_with(&cluster, options)?;
        Ok(Self {
            server: Talker::in_pod(&server_pod)?,
            managed: Talker::in_pod(&client)?,
            control: Talker::in_pod(&control_pod)?,
            front: if policy == "propagate" { pr_1() } else { Vec::new() },
            hole_at: hole_pod.at4(OPEN),
            server_pod,
            client,
            control_pod,
            open,
            closed,
            hole,
            agent,
            _cluster: cluster,
        })
    }

    /// Has `script` run on both sides, and what both saw compared.
    fn compare(&self, script: impl Fn(&Side<'_>) -> Result<Seen>) -> Result {
        let listener = self.server.listen(self.server_pod.at4(OPEN))?;
        let control = script(&Side {
            it: self,
            client: &self.control,
            own: self.control_pod.addr4().into(),
            open: self.server_pod.at4(OPEN),
            closed: self.server_pod.at4(CLOSED),
            hole: self.hole_at,
            front: b"",
            listener,
        })?;
        let managed = script(&Side {
            it: self,
            client: &self.managed,
            own: self.client.addr4().into(),
            open: self.open,
            closed: self.closed,
            hole: self.hole,
            front: &self.front,
            listener,
        })?;
        assert_eq!(managed, control, "left: with the agent; right: without");
        Ok(())
    }
}

impl Side<'_> {
    /// A connection, both ends.
    fn connect(&self) -> Result<(Talk<'_>, Talk<'_>)> {
        let client = self.client.open(self.open)?;
        Ok((client, self.it.server.accept(self.listener)?))
    }

    /// One whose request has arrived.
    fn asked(&self) -> Result<(Talk<'_>, Talk<'_>)> {
        let (client, server) = self.connect()?;
        self.ask(client, server)?;
        Ok((client, server))
    }

    fn ask(&self, client: Talk<'_>, server: Talk<'_>) -> Result {
        client.send(b"request")?;
        self.arrives(server, b"request")
    }

    /// What the client sent first is at the server, behind the header.
    fn arrives(&self, server: Talk<'_>, bytes: &[u8]) -> Result {
        let wanted = [self.front, bytes].concat();
        let said = server.receive(wanted.len())?;
        assert_eq!(said.hex, hex::encode(&wanted), "{said:?}");
        Ok(())
    }
}

/// What an application can tell of an answer: no addresses, which differ between the sides.
fn saw(said: &Said) -> String {
    format!(
        "error={:?} errno={:?} text={:?} eof={} value={:?}",
        said.error,
        said.errno,
        said.text(),
        said.eof,
        said.value
    )
}

/// Milliseconds in which what is on its way has come.
fn patience() -> u64 {
    if emulated() { 20_000 } else { 5_000 }
}

#[test]
fn waiting_peeking_and_polling() -> Result {
    require_privilege!(Ok(()));
    for policy in ["propagate", "strip"] {
        Both::new(&format!("waiting-{policy}"), policy)?.compare(|side| {
            let (client, server) = side.asked()?;
            let mut seen = vec![("nothing yet", saw(&client.to(Deed::Waiting)?))];
            seen.push(("room to write", saw(&client.to(Deed::Poll(patience()))?)));
            server.send(b"reply")?;
            seen.push(("input", saw(&client.to(Deed::PollIn(patience()))?)));
            seen.push(("input and room", saw(&client.to(Deed::Poll(patience()))?)));
            seen.push(("FIONREAD", saw(&client.to(Deed::Waiting)?)));
            seen.push(("MSG_PEEK", saw(&client.to(Deed::Peek(64))?)));
            seen.push(("levels", saw(&client.to(Deed::Epoll(false, 100))?)));
            seen.push(("one edge", saw(&client.to(Deed::Epoll(true, 100))?)));
            seen.push(("FIONREAD again", saw(&client.to(Deed::Waiting)?)));
            seen.push(("read", saw(&client.receive(5)?)));
            seen.push(("FIONREAD of nothing", saw(&client.to(Deed::Waiting)?)));
            seen.push(("TCP_INFO", saw(&client.to(Deed::TcpState)?)));
            seen.push(("SO_ERROR", saw(&client.try_to(Deed::SoError)?)));
            server.finish()?;
            seen.push(("the end", saw(&client.to(Deed::PollIn(patience()))?)));
            seen.push(("eof", saw(&client.receive(1)?)));
            seen.push(("half closed", saw(&client.to(Deed::TcpState)?)));
            Ok(seen)
        })?;
    }
    Ok(())
}

#[test]
fn a_read_that_waits_for_the_answer() -> Result {
    require_privilege!(Ok(()));
    Both::new("reading", "propagate")?.compare(|side| {
        let mut seen = Vec::new();
        // By a blocking read, and by an edge; the answer comes meanwhile.
        for edge in [false, true] {
            let (client, server) = side.connect()?;
            client.send(b"request")?;
            let said = thread::scope(|scope| -> Result<Said> {
                let answering = scope.spawn(|| -> std::result::Result<(), String> {
                    side.arrives(server, b"request").map_err(|e| e.to_string())?;
                    server.send(b"reply").map_err(|e| e.to_string())
                });
                let said = if edge { client.to(Deed::Edges(1000)) } else { client.receive(5) };
                answering.join().map_err(|_| "the server's side panicked")??;
                Ok(said?)
            })?;
            seen.push((if edge { "an edge" } else { "a blocking read" }, saw(&said)));
        }
        // And nothing comes: before the first send, after it, and after the answer.
        let (client, server) = side.connect()?;
        client.to(Deed::ReadTimeout(100))?;
        seen.push(("SO_RCVTIMEO before", saw(&client.receive(1)?)));
        side.ask(client, server)?;
        seen.push(("SO_RCVTIMEO between", saw(&client.receive(1)?)));
        server.send(b"reply")?;
        seen.push(("read", saw(&client.receive(5)?)));
        seen.push(("SO_RCVTIMEO after", saw(&client.receive(1)?)));
        Ok(seen)
    })
}

/// A first write of `count` bytes while another thread reads, and what that thread met. The server reads all of it, and
/// answers.
fn write_while_reading<'a>(side: &'a Side<'_>, count: usize) -> Result<(Talk<'a>, Said)> {
    // What the machine is busy with besides is no reason for EAGAIN.
    let client = side.client.open(Target::new(side.open).timeout(Duration::from_secs(60)))?;
    let server = side.it.server.accept(side.listener)?;
    let (said, got) = thread::scope(|scope| -> Result<(Said, Said)> {
        let serving = scope.spawn(|| -> std::result::Result<Said, String> {
            let said = server.receive(side.front.len() + count).map_err(|e| e.to_string())?;
            server.send(b"reply").map_err(|e| e.to_string())?;
            Ok(said)
        });
        let said = client.try_to(Deed::SendWhileReading(count))?;
        Ok((said, serving.join().map_err(|_| "the server's side panicked")??))
    })?;
    let got = hex::decode(&got.hex)?;
    let sent = got.strip_prefix(side.front).ok_or("no header in front")?;
    assert_eq!((sent.len(), blob::mismatch(0, sent)), (count, None));
    Ok((client, said))
}

#[test]
fn a_first_write_while_another_thread_reads() -> Result {
    require_privilege!(Ok(()));
    // With a header, no more than the socket takes at once: see the next test.
    for (policy, size) in [("propagate", 10_000), ("strip", scaled(20_000_000))] {
        Both::new(&format!("duplex-{policy}"), policy)?
            .compare(|side| Ok(vec![("both", saw(&write_while_reading(side, size)?.1))]))?;
    }
    Ok(())
}

/// The one trap known to be left, which is the kernel's (`tcp_bpf_recvmsg` takes any wake-up for the last one): a thread that
/// waits in a read since before the header was sent may be told EAGAIN when another one, stuck in a long write, gets room.
/// Not a byte is wrong, and the next read is as it should be. How often connections are in that state is counted: the kernel
/// lets go of the socket, which has left the map, when the write returns.
#[test]
fn a_read_that_waits_since_before_a_write_that_is_stuck() -> Result {
    require_privilege!(Ok(()));
    let it = Both::new("duplex-stuck", "propagate")?;
    it.compare(|side| {
        // One that the socket takes at once is not counted.
        write_while_reading(side, 10_000)?;
        let (client, said) = write_while_reading(side, scaled(20_000_000))?;
        if !side.front.is_empty() && said.errno == Some(rustix::io::Errno::AGAIN.raw_os_error()) {
            // What the read would have brought is still there.
            return Ok(vec![("the reply", client.receive(5)?.text())]);
        }
        assert_eq!((said.error, said.value), (None, Some(5)));
        Ok(vec![("the reply", "reply".to_owned())])
    })?;
    expect_counted(&it.agent, "event", "lingered", 1)
}

#[test]
fn shutting_down_either_side() -> Result {
    require_privilege!(Ok(()));
    Both::new("shutdown", "propagate")?.compare(|side| {
        let mut seen = Vec::new();
        let (client, server) = side.asked()?;
        client.finish()?;
        seen.push(("the server sees it", saw(&server.receive(1)?)));
        seen.push(("a write after it", saw(&client.try_send(b"x")?)));
        server.send(b"late answer")?;
        seen.push(("the answer", saw(&client.receive(11)?)));
        server.finish()?;
        seen.push(("the end", saw(&client.receive(1)?)));

        // Request and end at once, and the answer after both.
        let (client, server) = side.connect()?;
        client.send(b"request")?;
        client.finish()?;
        side.arrives(server, b"request")?;
        seen.push(("the end behind it", saw(&server.receive(1)?)));
        server.send(b"reply")?;
        server.finish()?;
        seen.push(("all of it", saw(&client.receive_all()?)));

        // The server is done before the client has begun.
        let (client, server) = side.connect()?;
        server.finish()?;
        seen.push(("done already", saw(&client.receive(1)?)));
        side.ask(client, server)?;
        client.finish()?;
        seen.push(("and so is the client", saw(&server.receive(1)?)));

        let (client, server) = side.asked()?;
        client.to(Deed::ShutdownRead)?;
        seen.push(("a read after SHUT_RD", saw(&client.receive(1)?)));
        client.send(b"more")?;
        seen.push(("still writing", saw(&server.receive(4)?)));
        Ok(seen)
    })
}

#[test]
fn resets() -> Result {
    require_privilege!(Ok(()));
    Both::new("resets-direct", "propagate")?.compare(|side| {
        let mut seen = Vec::new();
        let (client, server) = side.connect()?;
        client.reset()?;
        seen.push(("a client's, before it sent", saw(&server.receive(1)?)));
        let (client, server) = side.asked()?;
        client.reset()?;
        seen.push(("a client's", saw(&server.receive(1)?)));

        let (client, server) = side.connect()?;
        server.reset()?;
        seen.push(("a server's, before anything", saw(&client.receive(1)?)));
        let (client, server) = side.asked()?;
        server.reset()?;
        seen.push(("poll", saw(&client.to(Deed::PollIn(patience()))?)));
        seen.push(("SO_ERROR", saw(&client.try_to(Deed::SoError)?)));
        seen.push(("closed", saw(&client.to(Deed::TcpState)?)));
        seen.push(("a write", saw(&client.try_send(b"x")?)));
        Ok(seen)
    })
}

#[test]
fn names_and_binding() -> Result {
    require_privilege!(Ok(()));
    Both::new("names-direct", "propagate")?.compare(|side| {
        let (client, server) = side.connect()?;
        let before = client.names()?;
        side.ask(client, server)?;
        let after = client.names()?;
        assert_eq!((before.peer, before.local), (after.peer, after.local));
        assert_eq!(after.peer, Some(side.open));
        assert_eq!(after.local.map(|local| local.ip()), Some(side.own));
        assert_eq!(server.names()?.peer, after.local);

        let client = side.client.raw(false)?;
        client.to(Deed::Bind(SocketAddr::new(side.own, 0)))?;
        let port = client.names()?.local;
        client.to(Deed::Connect(side.open))?;
        let server = side.it.server.accept(side.listener)?;
        side.ask(client, server)?;
        assert_eq!(client.names()?.local, port, "the port it was bound to");
        assert_eq!(server.names()?.peer, port);
        Ok(Vec::new())
    })
}

#[test]
fn connects_that_fail_and_are_tried_again() -> Result {
    require_privilege!(Ok(()));
    Both::new("refusals", "propagate")?.compare(|side| {
        let mut seen = Vec::new();
        let closed = SocketAddr::new(side.it.server_pod.addr4().into(), CLOSED);
        for blocking in [true, false] {
            let client = side.client.raw(false)?;
            client.to(Deed::Blocking(blocking))?;
            seen.push(("refused", saw(&client.try_to(Deed::Connect(side.closed))?)));
            seen.push(("poll", saw(&client.to(Deed::Poll(patience()))?)));
            seen.push(("SO_ERROR", saw(&client.try_to(Deed::SoError)?)));
            // The same socket again, elsewhere and at the same place.
            client.to(Deed::Blocking(true))?;
            seen.push(("again", saw(&client.try_to(Deed::Connect(side.closed))?)));
            let listener = side.it.server.listen(closed)?;
            seen.push(("at last", saw(&client.try_to(Deed::Connect(side.closed))?)));
            let server = side.it.server.accept(listener)?;
            side.ask(client, server)?;
            client.close()?;
            server.close()?;
            side.it.server.ask(&testbed::talk::Ask::Close(listener))?;
        }
        // A new one.
        side.asked()?;
        Ok(seen)
    })
}

#[test]
fn connects_that_do_not_block() -> Result {
    require_privilege!(Ok(()));
    Both::new("in-progress", "propagate")?.compare(|side| {
        let client = side.client.raw(false)?;
        client.to(Deed::Blocking(false))?;
        let mut seen = vec![("connect", saw(&client.try_to(Deed::Connect(side.open))?))];
        let server = side.it.server.accept(side.listener)?;
        seen.push(("poll", saw(&client.to(Deed::Poll(patience()))?)));
        seen.push(("SO_ERROR", saw(&client.try_to(Deed::SoError)?)));
        assert_eq!(client.names()?.peer, Some(side.open));
        seen.push(("nothing to read", saw(&client.receive(1)?)));
        side.ask(client, server)?;
        seen.push(("still nothing", saw(&client.receive(1)?)));
        server.send(b"reply")?;
        seen.push(("input", saw(&client.to(Deed::PollIn(patience()))?)));
        seen.push(("read", saw(&client.receive(5)?)));
        seen.push(("connected already", saw(&client.try_to(Deed::Connect(side.open))?)));
        Ok(seen)
    })
}

#[test]
fn connects_that_nobody_answers() -> Result {
    require_privilege!(Ok(()));
    Both::new("hole", "propagate")?.compare(|side| {
        let client = side.client.raw(false)?;
        client.to(Deed::SynRetries(1))?;
        let mut seen = vec![("connect", saw(&client.try_to(Deed::Connect(side.hole))?))];
        let client = side.client.raw(false)?;
        client.to(Deed::SynRetries(1))?;
        client.to(Deed::Blocking(false))?;
        seen.push(("started", saw(&client.try_to(Deed::Connect(side.hole))?)));
        seen.push(("waiting", saw(&client.to(Deed::Poll(0))?)));
        seen.push(("poll", saw(&client.to(Deed::Poll(30_000))?)));
        seen.push(("SO_ERROR", saw(&client.try_to(Deed::SoError)?)));
        Ok(seen)
    })
}

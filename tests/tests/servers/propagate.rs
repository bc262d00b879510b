//! Services with `header: propagate`: the kernel writes a header in front of what a program says, the program and its
//! server know nothing of it, and in between is what a server's library does: [`Front`].

mod curl;
mod edge;
mod java;
mod mariadb;
mod nginx;
mod postgres;
mod redis;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testbed::{Pod, Proc, Unwrapped, Verdict, wait_until};

use crate::Result;
use crate::routes::Policy;
use crate::scene::{ENV, OTHER_ENV, PATIENCE, Scene};

/// What reads the header of each connection to a pod, as a server's library does, and takes none without the right one.
struct Front(Proc);

impl Front {
    /// In `pod`, in front of a server behind `to` (of `hop unwrap`'s), for connections of `environment`.
    fn new(pod: &Pod, port: u16, [how, to]: [&str; 2], environment: &str) -> Result<Self> {
        let listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let header = format!("env={environment}");
        Ok(Self(pod.serve("unwrap", listen, [how, to, "--header", &header])?))
    }

    /// The connections that have ended.
    fn ended(&self) -> Result<Vec<Unwrapped>> {
        Unwrapped::told(&self.0)
    }
}

/// A service whose instances read headers. The `member` belongs to the variant's environment; the `other` pod belongs to
/// one that has no variant, so that its connections go to the base, with its own environment's header.
struct Propagate {
    scene: Scene,
    base: Front,
    variant: Front,
}

/// What came of the connections of one pod.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    connections: usize,
    /// Payload bytes, client to server.
    up: u64,
    /// Payload bytes, server to client.
    down: u64,
}

impl Propagate {
    /// Instances in front of servers in the same pod, at a port of `127.0.0.1`.
    fn new(scene: Scene, server: u16) -> Result<Self> {
        let to = format!("127.0.0.1:{server}");
        Self::fronts(scene, [["--to", &to]; 2])
    }

    /// The same at sockets in the file system: the base's and the variant's.
    fn at_paths(scene: Scene, base: &Path, variant: &Path) -> Result<Self> {
        let [base, variant] = [base, variant].map(|path| path.to_str().context("a path of plain ASCII"));
        Self::fronts(scene, [["--to-path", base?], ["--to-path", variant?]])
    }

    fn fronts(scene: Scene, [to_base, to_variant]: [[&str; 2]; 2]) -> Result<Self> {
        let port = scene.vip4.port();
        let base = Front::new(&scene.base, port, to_base, OTHER_ENV)?;
        let variant = Front::new(&scene.variant, port, to_variant, ENV)?;
        Ok(Self { scene, base, variant })
    }

    /// The pods whose connections are routed, and the name of the instance that is to get them.
    fn clients(&self) -> [(&Pod, &'static str); 2] {
        [(&self.scene.member, ENV), (&self.scene.other, "base")]
    }

    /// Checks, once the pod's connections have ended, that the kernel routed them all, with a header, and that just
    /// these, each with its one header, came to where they belong.
    fn check(&self, client: &Pod, at_least: usize) -> Result<Sum> {
        self.check_path(client, at_least, &[("path", "direct"), ("outcome", "routed")])
    }

    fn check_path(&self, client: &Pod, at_least: usize, wanted: &[(&str, &str)]) -> Result<Sum> {
        let is_member = client.name() == self.scene.member.name();
        let (front, environment, reason) =
            if is_member { (&self.variant, ENV, "variant") } else { (&self.base, OTHER_ENV, "no_variant") };
        let of_client = |line: &Value| line["workload"] == client.cgroup_path_rel();
        let (mut routed, mut ended) = (Vec::new(), Vec::new());
        wait_until("as many connections with a header as were opened", PATIENCE, || {
            routed = self.scene.agent.access_lines().into_iter().filter(of_client).collect();
            ended = front.ended().ok()?;
            (routed.len() >= at_least && routed.len() == ended.len()).then_some(())
        })
        .with_context(|| {
            format!("{}: {} opened, {} ended, {at_least} wanted", client.name(), routed.len(), ended.len())
        })?;
        ensure!(!ended.is_empty(), "no connection of {}", client.name());
        for line in &routed {
            let all = [("reason", reason), ("header", "propagate"), ("env_source", "workload")];
            for (name, value) in all.iter().chain(wanted) {
                ensure!(line[*name] == **value, "{name} is not {value}: {line}");
            }
            // An environment without any variant is not in the route table, and has no name there.
            ensure!(!is_member || line["environment"] == environment, "another environment: {line}");
        }
        for connection in &ended {
            let fine = connection.verdict == Verdict::Right && connection.error.is_none();
            ensure!(fine, "a connection of {} to {environment}: {connection:?}", client.name());
        }
        let sum = |bytes: fn(&Unwrapped) -> u64| ended.iter().map(bytes).sum();
        Ok(Sum { connections: ended.len(), up: sum(|one| one.up), down: sum(|one| one.down) })
    }

    /// Checks that the instance would notice: lets a client connect to it past the agent, without a header. For the end of a
    /// test. `client` says whether it succeeded, which it must not.
    fn notices(&self, verdict: Verdict, client: impl FnOnce(&Pod, SocketAddr) -> Result<bool>) -> Result {
        let Scene { variant, stranger, vip4, .. } = &self.scene;
        let others = |all: Vec<Unwrapped>| -> Vec<_> {
            all.into_iter().filter(|one| one.verdict != Verdict::Right).collect()
        };
        ensure!(others(self.variant.ended()?).is_empty());
        let succeeded = client(stranger, variant.at4(vip4.port()))?;
        ensure!(!succeeded, "a client without a header was served");
        let noticed = wait_until("a connection without a header", PATIENCE, || {
            let others = others(self.variant.ended().ok()?);
            (!others.is_empty()).then_some(others)
        })?;
        ensure!(noticed.iter().all(|one| one.verdict == verdict), "{noticed:?}");
        Ok(())
    }
}

/// A scene for servers that read headers, and whose clients speak first.
fn scene(name: &str, port: u16) -> Result<Scene> {
    Scene::with(name, port, Policy::of("propagate"))
}

//! The mariadb client waits for its server to speak, and so never makes the kernel write a header: with
//! `speaks_first: server` the agent does, in the relay.

use picop_common::connect::Reason;
use testbed::Verdict;
use testbed::mysql::{Engine, on_each_engine};

use super::Propagate;
use crate::Result;
use crate::counters::decided;
use crate::mariadb::{self, Template, WHO, query};
use crate::programs::require;
use crate::routes::Policy;
use crate::scene::{ENV, Scene, attempt, carried};

/// The service's; the database itself has its own.
const PORT: u16 = 3307;

on_each_engine!(a_server_that_speaks_first_gets_its_header_from_the_relay);

fn a_server_that_speaks_first_gets_its_header_from_the_relay(engine: &Engine) -> Result {
    require!("mariadb");
    let policy = Policy { speaks_first: "server", ..Policy::of("propagate") };
    let scene = Scene::with("propagate-mariadb", PORT, policy)?;
    let template = Template::new(engine, &scene.cluster, &scene.stranger)?;
    let _servers = [
        template.serve(&scene.cluster, &scene.base, "base")?,
        template.serve(&scene.cluster, &scene.variant, ENV)?,
    ];
    let it = Propagate::new(scene, mariadb::PORT)?;
    let large = "picop".repeat(800_000);
    let mut connections = 0;
    for (pod, who) in it.clients() {
        for to in [it.scene.vip4, it.scene.vip6] {
            assert_eq!(query(pod, to, WHO)?, format!("{who}\n"), "{to}");
        }
        let got = query(pod, it.scene.vip4, "SELECT REPEAT('picop', 800000)")?;
        assert!(got.trim_end() == large, "{} bytes", got.len());
        connections += it.check_path(pod, 3, &[("path", "relay"), ("outcome", "ok")])?.connections;
    }
    for line in it.scene.access(3, "variant")? {
        carried(&line)?;
    }
    assert_eq!(connections, 6);
    // The fallback has a name, and these had no other. (The canary counts under the same name.)
    let count = |reason| decided(&it.scene.agent, reason);
    assert!(count(Reason::RelayServerFirst)? >= connections as u64);
    for other in [Reason::RelayHeader, Reason::RelayAsked, Reason::RelayNoInject, Reason::RelayFull] {
        assert_eq!(count(other)?, 0, "{}", other.as_str());
    }
    assert_eq!(count(Reason::RelayFamily)?, 0);
    it.notices(Verdict::Silent, |pod, to| {
        let args = mariadb::at(to).into_iter().chain(["--connect-timeout=1".to_owned()]);
        Ok(attempt(pod, "mariadb", args.chain([format!("--execute={WHO}")]))?.status.success())
    })?;
    it.scene.finish()
}

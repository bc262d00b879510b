//! Clients whose header comes after the agent has stopped waiting for one.

use testbed::{Agent, Talker, eventually, require_privilege};

use crate::common::{
    Recorder, Result, Routes, Scene, access, base, expect, expect_reset, header, soon, variants,
};

struct Late {
    scene: Scene,
    main: Recorder,
    variant: Recorder,
    agent: Agent,
    vip: std::net::SocketAddr,
}

impl Late {
    /// The agent waits a millisecond for a header; the servers greet, if asked to.
    fn new(name: &str, servers: &[&str]) -> Result<Self> {
        let scene = Scene::new(name)?;
        let (main, variant) =
            (scene.recorder_with("main", servers)?, scene.recorder_with("variant", servers)?);
        let vip = scene.vip();
        let settings = format!(
            "expect_header: sniff(1ms), {}, {}",
            base(&[main.at]),
            variants(&[("pr-1", &[variant.at])])
        );
        let routes =
            Routes::new().service("cart", &[vip], &settings).workload(scene.workload("context: header"));
        let agent = scene.agent(&routes, &[])?;
        Ok(Self { scene, main, variant, agent, vip })
    }
}

#[test]
fn a_late_header_is_still_followed() -> Result {
    require_privilege!(Ok(()));
    let late = Late::new("late", &[])?;
    let talker = Talker::in_pod(&late.scene.client)?;
    let slow = talker.open(late.vip)?;
    let local = slow.names()?.local;
    // Once the base has a connection, the agent has given up waiting.
    assert!(eventually(soon(), || late.main.count() == 1), "no connection without a header");
    slow.send(&[&header(&[("Env-Id", "pr-1")])[..], b"hello"].concat())?;
    slow.finish()?;
    assert_eq!(slow.receive_all()?.text(), "variant\n");
    assert_eq!(late.variant.whole(0)?, (b"hello".to_vec(), "eof".to_owned()));
    assert_eq!(late.main.whole(0)?.0, b"", "the base was told nothing");
    let wanted = [("outcome", "ok"), ("reason", "variant"), ("env_source", "header"), ("bytes_up", "5")];
    expect(&access(&late.agent, local)?, &wanted);

    // One that only thinks for a while, and has no header, is at the right place.
    let thinker = talker.open(late.vip)?;
    assert!(eventually(soon(), || late.main.count() == 2), "no connection without a header");
    thinker.send(b"hello")?;
    thinker.finish()?;
    assert_eq!(thinker.receive_all()?.text(), "main\n");
    assert_eq!(late.main.whole(1)?.0, b"hello");
    Ok(())
}

#[test]
fn a_header_after_the_server_has_spoken_is_refused() -> Result {
    require_privilege!(Ok(()));
    let late = Late::new("too-late", &["--speak-first"])?;
    let talker = Talker::in_pod(&late.scene.client)?;
    let slow = talker.open(late.vip)?;
    let local = slow.names()?.local;
    assert_eq!(slow.receive(5)?.text(), "main\n");
    slow.send(&header(&[("Env-Id", "pr-1")]))?;
    expect_reset(&slow.receive(1)?);
    expect(&access(&late.agent, local)?, &[("outcome", "late_header"), ("reason", "no_environment")]);
    let (bytes, end) = late.main.whole(0)?;
    assert_eq!((bytes, end.as_str()), (vec![], "ConnectionReset"), "no byte of the header reached it");
    assert_eq!(late.variant.count(), 0);

    // The same server serves whoever has no header.
    let plain = talker.open(late.vip)?;
    assert_eq!(plain.receive(5)?.text(), "main\n");
    plain.send(b"hello")?;
    plain.finish()?;
    assert!(plain.receive(1)?.eof);
    assert_eq!(late.main.whole(1)?, (b"hello".to_vec(), "eof".to_owned()));
    Ok(())
}

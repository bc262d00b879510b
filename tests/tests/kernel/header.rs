//! The header on the wire: in pieces, late, broken, or not there at all.

use std::time::{Duration, Instant};

use testbed::{Agent, Client, Talker, require_privilege, wait_until};

use crate::common::{
    Recorder, Result, Routes, Scene, access, answer, base, emulated, expect, expect_reset, header, hello,
    soon, variants,
};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A service at which headers are looked for as `expect` says; it is told of them.
struct Wire {
    scene: Scene,
    main: Recorder,
    variant: Recorder,
    vip: std::net::SocketAddr,
    agent: Agent,
}

impl Wire {
    fn new(name: &str, expect: &str, args: &[&str]) -> Result<Self> {
        Self::with(name, expect, args, &[])
    }

    fn with(name: &str, expect: &str, args: &[&str], server: &[&str]) -> Result<Self> {
        let scene = Scene::new(name)?;
        let (main, variant) = (scene.recorder_with("main", server)?, scene.recorder_with("variant", server)?);
        let vip = scene.vip();
        let settings = format!(
            "header: propagate, expect_header: {expect}, {}, {}",
            base(&[main.at]),
            variants(&[("pr-1", &[variant.at])])
        );
        let routes =
            Routes::new().service("cart", &[vip], &settings).workload(scene.workload("context: header"));
        let agent = scene.agent(&routes, args)?;
        Ok(Self { scene, main, variant, vip, agent })
    }
}

#[test]
fn split_at_every_byte() -> Result {
    require_privilege!(Ok(()));
    let wire = Wire::new("split", "always", &["--header-timeout", "2m"])?;
    let talker = Talker::in_pod(&wire.scene.client)?;
    let bytes = [&header(&[("Env-Id", "pr-1")])[..], b"hello"].concat();
    // All of them have sent their first part long before the first one sends its second.
    let talks =
        (1..bytes.len()).map(|_| talker.open(wire.vip)).collect::<std::result::Result<Vec<_>, _>>()?;
    for (talk, cut) in talks.iter().zip(1..) {
        talk.send(&bytes[..cut])?;
    }
    for (talk, cut) in talks.iter().zip(1..) {
        talk.send(&bytes[cut..])?;
        talk.finish()?;
        let said = talk.receive_all()?;
        assert_eq!((said.text().as_str(), said.eof), ("variant\n", true), "cut at {cut}");
    }
    for number in 0..talks.len() {
        assert_eq!(wire.variant.whole(number)?, (bytes.clone(), "eof".to_owned()), "connection {number}");
    }
    assert_eq!((wire.variant.count(), wire.main.count()), (talks.len(), 0));
    let lines = wire.agent.wait_access(talks.len(), |line| line["reason"] == "variant")?;
    assert!(lines.iter().all(|line| line["bytes_up"] == 5 && line["outcome"] == "ok"), "{lines:?}");

    let report = Client::to(wire.vip).bytes(&bytes).arg("--split-every-byte").half_close().read_all();
    assert_eq!(answer(&report.timeout(soon()).run(&wire.scene.client)?), "variant");
    assert_eq!(wire.variant.whole(talks.len())?.0, bytes);
    Ok(())
}

#[test]
fn a_silent_client_delays_nobody() -> Result {
    require_privilege!(Ok(()));
    let wire = Wire::new("silent", "always", &["--header-timeout", "2m"])?;
    let talker = Talker::in_pod(&wire.scene.client)?;
    let silent = talker.open(wire.vip)?;
    let local = silent.names()?.local;
    let begun = talker.open(wire.vip)?;
    begun.send(&SIGNATURE[..7])?;
    for _ in 0..3 {
        let report = hello(wire.vip).header("env", "pr-1").run(&wire.scene.client)?;
        assert_eq!(answer(&report), "variant");
        expect(&access(&wire.agent, report.local)?, &[("outcome", "ok"), ("reason", "variant")]);
    }
    assert_eq!((wire.agent.access_lines().len(), wire.main.count()), (3, 0), "two are still waiting");
    // One that says nothing at all has no header; half of one is none that could be passed on.
    silent.finish()?;
    assert_eq!(silent.receive_all()?.text(), "main\n");
    expect(&access(&wire.agent, local)?, &[("outcome", "ok")]);
    begun.finish()?;
    expect_reset(&begun.receive(1)?);
    let lines = wire.agent.wait_access(1, |line| line["outcome"] == "bad_header")?;
    expect(&lines[0], &[("backend", "-"), ("reason", "-")]);
    Ok(())
}

#[test]
fn who_says_nothing_in_time_has_no_header() -> Result {
    require_privilege!(Ok(()));
    let wire = Wire::new("late", "always", &["--header-timeout", "300ms"])?;
    let talker = Talker::in_pod(&wire.scene.client)?;
    let start = Instant::now();
    let talk = talker.open(wire.vip)?;
    let reached = wait_until("the base", soon(), || (wire.main.count() == 1).then(|| start.elapsed()))?;
    assert!(reached >= Duration::from_millis(300), "{reached:?}");
    let local = talk.names()?.local;
    talk.send(b"hello")?;
    talk.finish()?;
    assert_eq!(talk.receive_all()?.text(), "main\n");
    assert_eq!(wire.main.whole(0)?, (b"hello".to_vec(), "eof".to_owned()));
    expect(&access(&wire.agent, local)?, &[("reason", "no_environment"), ("outcome", "ok")]);
    Ok(())
}

#[test]
fn a_server_that_speaks_first() -> Result {
    require_privilege!(Ok(()));
    // Long enough for a client that was not let run for a while.
    let sniff = if emulated() { "sniff(4s)" } else { "sniff(1s)" };
    let wire = Wire::with("speaks-first", sniff, &[], &["--speak-first"])?;
    let talker = Talker::in_pod(&wire.scene.client)?;
    let talk = talker.open(wire.vip)?;
    let local = talk.names()?.local;
    assert_eq!(talk.receive(5)?.text(), "main\n");
    talk.send(b"thanks")?;
    talk.finish()?;
    let said = talk.receive_all()?;
    assert!(said.eof && said.hex.is_empty(), "{said:?}");
    assert_eq!(wire.main.whole(0)?, (b"thanks".to_vec(), "eof".to_owned()));
    expect(
        &access(&wire.agent, local)?,
        &[("reason", "no_environment"), ("header", "none"), ("outcome", "ok")],
    );

    // A client with a header writes it before it waits.
    let report = hello(wire.vip).header("env", "pr-1").run(&wire.scene.client)?;
    assert_eq!(answer(&report), "variant");
    Ok(())
}

#[test]
fn what_is_no_header_passes_untouched() -> Result {
    require_privilege!(Ok(()));
    let wire = Wire::new("garbage", "always", &["--header-timeout", "500ms"])?;
    let proxy_v2 =
        [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &[10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4], b"GET /"].concat();
    let cases: [(&str, Vec<u8>); 8] = [
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("zeroes", vec![0; 300]),
        ("every byte", (0..=255).collect()),
        ("almost the signature", b"\r\n\r\n\0\r\nQUIX and so on".to_vec()),
        ("a keep-alive of SIP's", b"\r\n\r\n".to_vec()),
        ("PROXY v2", proxy_v2),
        ("PROXY v2, local", [&SIGNATURE[..], &[0x20, 0, 0, 0], b"x"].concat()),
        ("a version of later days", [&SIGNATURE[..], &[2, 11], b"Env-Id:pr-1"].concat()),
    ];
    for (number, (name, bytes)) in cases.into_iter().enumerate() {
        let report = Client::to(wire.vip).bytes(&bytes).half_close().read_all().run(&wire.scene.client)?;
        assert_eq!(answer(&report), "main", "{name}");
        assert_eq!(wire.main.whole(number)?, (bytes.clone(), "eof".to_owned()), "{name}");
        let line = access(&wire.agent, report.local)?;
        expect(&line, &[("reason", "no_environment"), ("header", "none"), ("outcome", "ok")]);
        assert_eq!(line["bytes_up"], bytes.len(), "{name}");
    }
    assert_eq!(wire.variant.count(), 0);
    Ok(())
}

#[test]
fn a_header_that_does_not_come_whole_reaches_nobody() -> Result {
    require_privilege!(Ok(()));
    let wire = Wire::new("cut", "sniff(10s)", &["--header-timeout", "500ms"])?;
    let talker = Talker::in_pod(&wire.scene.client)?;
    let whole = header(&[("Env-Id", "pr-1")]);
    let mut longer = whole.clone();
    longer[13] += 1;
    for (name, bytes) in
        [("signature only", &SIGNATURE[..]), ("declared longer", &longer), ("cut", &whole[..20])]
    {
        let talk = talker.open(wire.vip)?;
        let start = Instant::now();
        talk.send(bytes)?;
        expect_reset(&talk.receive(1)?);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(500) && took < soon(), "{name} took {took:?}");
    }
    let lines = wire.agent.wait_access(3, |_| true)?;
    for line in &lines {
        expect(line, &[("outcome", "bad_header"), ("backend", "-"), ("bytes_up", "0"), ("service", "-")]);
    }
    assert_eq!((wire.main.count(), wire.variant.count()), (0, 0));
    // And the same bytes, whole, do get there.
    assert_eq!(answer(&hello(wire.vip).header("env", "pr-1").run(&wire.scene.client)?), "variant");
    Ok(())
}

#[test]
fn the_longest_and_the_shortest_header() -> Result {
    require_privilege!(Ok(()));
    let wire = Wire::new("longest", "sniff(10s)", &[])?;
    let filler = "x".repeat(255 - "Env-Id:pr-1\r\nFiller:".len());
    let longest = header(&[("Env-Id", "pr-1"), ("Filler", &filler)]);
    assert_eq!((longest[13], longest.len()), (255, 269));
    let opening = [&longest[..], b"hello"].concat();
    let report = Client::to(wire.vip).bytes(&opening).half_close().read_all().run(&wire.scene.client)?;
    assert_eq!(answer(&report), "variant");
    assert_eq!(wire.variant.whole(0)?.0, opening);
    expect(&access(&wire.agent, report.local)?, &[("dropped", "0"), ("header", "propagate")]);

    let empty = [header(&[]), b"hello".to_vec()].concat();
    let report = Client::to(wire.vip).bytes(&empty).half_close().read_all().run(&wire.scene.client)?;
    assert_eq!(answer(&report), "main");
    expect(&access(&wire.agent, report.local)?, &[("reason", "no_environment"), ("bytes_up", "5")]);
    Ok(())
}

#[test]
fn where_no_header_is_expected_none_is_read() -> Result {
    require_privilege!(Ok(()));
    let wire = Wire::new("never", "never", &[])?;
    let sent = [&header(&[("Env-Id", "pr-1")])[..], b"hello"].concat();
    let report = Client::to(wire.vip).bytes(&sent).half_close().read_all().run(&wire.scene.client)?;
    assert_eq!(answer(&report), "main");
    assert_eq!(wire.main.whole(0)?.0, sent);
    assert_eq!(wire.variant.count(), 0);
    Ok(())
}

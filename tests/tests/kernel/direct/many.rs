//! Many connections leave nothing behind.

use std::fs;

use testbed::{Agent, BpfFs, Client, Ledger, Talker, eventually, require_privilege};

use super::{AUTO, Direct, pr_1};
use crate::common::{Result, Routes, Scene, answer, hello, scaled, soon, variants};

/// `BPF_MAP_TYPE_SOCKHASH`.
const SOCKHASH: &str = "18";

/// The kernel memory of the map of enrolled sockets, which says how many there are (kernel 6.4; before, it is what the map
/// may take at most).
fn enrolled_memory(agent: &Agent) -> Result<u64> {
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", agent.pid()))? {
        // One that is closed meanwhile is no map.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        if field("map_type:") == Some(SOCKHASH) {
            return Ok(field("memlock:").ok_or("no memlock")?.parse()?);
        }
    }
    Err("the agent has no sockmap open".into())
}

fn resident_kb(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn short_connections_leave_nothing() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("many-direct")?;
    let bpf = BpfFs::mount(&scene.cluster)?;
    let pins = bpf.pin_dir();
    // One that reads nothing and answers nothing would do; this one shows that the bytes are right.
    let (echo, _proc) = scene.echo("echo")?;
    let vip = scene.vip();
    let settings = format!("header: propagate, {}", variants(&[("pr-1", &[echo])]));
    let routes = Routes::new().service("echo", &[vip], &settings).workload(scene.workload(AUTO));
    let agent = scene.agent(&routes, &["--pin-dir", &pins.display().to_string()])?;
    let front = pr_1();
    // An echo server sends the header back with the rest.
    let client =
        Client::to(vip).text("hello").half_close().expect_bytes(front.len() as u64 + 5).timeout(soon());
    let warm = client.run_many(&scene.client, scaled(2000), 4)?;
    assert!(warm.ok, "{warm:?}");
    let settled = || -> Result<u64> {
        // The canary's socket is in it for a moment, once a second.
        let mut least = enrolled_memory(&agent)?;
        for _ in 0..20 {
            least = least.min(enrolled_memory(&agent)?);
        }
        Ok(least)
    };
    let (memory, resident, counted) = (settled()?, resident_kb(&agent)?, Ledger::at_rest(&pins)?);

    // In parts, each of which has all of a client's time: only that it ends is at issue, not how fast.
    let (parts, each) = (10, scaled(2000));
    for _ in 0..parts {
        let summary = client.run_many(&scene.client, each, 8)?;
        assert!(summary.ok, "{summary:?}");
        assert_eq!(summary.bytes, each as u64 * (front.len() as u64 + 5));
    }
    let faults = Ledger::at_rest(&pins)?.faults_since(&counted, (parts * each) as u64, 0);
    assert_eq!(faults, [] as [String; 0]);
    let empty = eventually(soon(), || settled().is_ok_and(|now| now == memory));
    assert!(empty, "{} bytes are held by enrolled sockets", settled()? - memory);
    let grown = resident_kb(&agent)?.saturating_sub(resident);
    assert!(grown < 16 * 1024, "the agent grew by {grown} kB");

    // The measure shows sockets that wait to send, where the kernel counts at all.
    let talker = Talker::in_pod(&scene.client)?;
    let waiting: Vec<_> = (0..50).map(|_| talker.open(vip)).collect::<std::result::Result<_, _>>()?;
    let held = enrolled_memory(&agent)?;
    if held == memory {
        eprintln!("this kernel does not tell how many sockets a sockmap holds");
    } else {
        assert!(held > memory, "{held}");
    }
    for talk in waiting {
        talk.close()?;
    }
    assert!(
        eventually(soon(), || settled().is_ok_and(|now| now == memory)),
        "closed sockets stay in the map"
    );
    Ok(())
}

/// Each connection's first bytes, with others before, beside and after it.
#[test]
fn every_one_of_many_has_its_header() -> Result {
    require_privilege!(Ok(()));
    let it = Direct::new("many-headers", "propagate")?;
    let count = scaled(1000);
    let summary = hello(it.vip).run_many(&it.scene.client, count, 8)?;
    assert!(summary.ok, "{summary:?}");
    let wanted = [pr_1(), b"hello".to_vec()].concat();
    for number in 0..count {
        assert_eq!(it.server.whole(number)?, (wanted.clone(), "eof".to_owned()), "connection {number}");
    }
    assert_eq!(answer(&hello(it.vip6).run(&it.scene.client)?), "variant");
    Ok(())
}

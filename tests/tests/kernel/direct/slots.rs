//! What the kernel remembers of connections: right while they last, and gone with them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use aya::maps::{Array, Map, MapData};
use picop_common::maps::{FLOW_SLOTS_MAX, FlowSlot};
use rustix::process::Signal;
use testbed::{Agent, BpfFs, Deed, Ledger, Talk, Talker, Target, require_privilege, status, wait_until};

use super::{AUTO, Direct};
use crate::common::{Result, Routes, Scene, soon, variants};

/// Whether this kernel lets a connect hook ask for the state callback: without that all have socket storage.
fn has_slots() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let (major, minor): (u32, u32) = (numbers.next().ok_or("no major")??, numbers.next().ok_or("no minor")??);
    Ok((major, minor) >= (6, 12))
}

/// A service, an address where nobody listens, and a place for pins.
struct Pinned {
    it: Direct,
    closed: SocketAddr,
    bpf: BpfFs,
}

impl Pinned {
    fn new(name: &str, policy: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let bpf = BpfFs::mount(&scene.cluster)?;
        let server = scene.recorder("variant")?;
        let (vip, vip6) = (scene.vip(), scene.vip6());
        let closed = SocketAddr::new(vip.ip(), 81);
        let nobody = SocketAddr::new(server.at.ip(), 9);
        let settings = |at: &[SocketAddr]| format!("header: {policy}, {}", variants(&[("pr-1", at)]));
        let routes = Routes::new()
            .service("cart", &[vip, vip6], &settings(&[server.at, server.at6]))
            .service("closed", &[closed], &settings(&[nobody]))
            .workload(scene.workload(AUTO));
        let agent = scene.agent(&routes, &["--pin-dir", &bpf.pin_dir().display().to_string()])?;
        Ok(Self { it: Direct { scene, server, vip, vip6, agent }, closed, bpf })
    }

    /// Until so many slots are taken: the canary, which takes two a second for a moment, aside.
    #[track_caller]
    fn expect_taken(&self, wanted: u64) -> Result {
        let dir = self.bpf.pin_dir();
        let taken = || Some(status(&dir).ok()?["sets"][0]["entries"]["flows"].as_u64()? == wanted);
        let done = wait_until("slots", soon(), || taken().filter(|done| *done));
        done.map_err(|e| format!("not {wanted}: {e}, {:?}", status(&dir)))?;
        Ok(())
    }
}

/// Whom `getpeername` says a socket is connected to; v4-mapped addresses as IPv4.
fn peer(talk: &Talk<'_>) -> Result<Option<SocketAddr>> {
    Ok(talk.names()?.peer.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())))
}

#[test]
fn a_slot_lasts_as_long_as_its_connection() -> Result {
    require_privilege!(Ok(()));
    ["strip", "propagate"].iter().try_for_each(|policy| slots_last(policy))
}

fn slots_last(policy: &str) -> Result {
    let it = Pinned::new(&format!("slots-{policy}"), policy)?;
    let one = u64::from(has_slots()?);
    let talker = Talker::in_pod(&it.it.scene.client)?;
    it.expect_taken(0)?;
    let mut open = Vec::new();
    for target in [Target::new(it.it.vip), Target::new(it.it.vip6), Target::new(it.it.vip).mapped()] {
        for _ in 0..4 {
            let talk = talker.open(target.clone())?;
            assert_eq!(peer(&talk)?, Some(target.to));
            open.push((talk, target.to));
        }
    }
    it.expect_taken(12 * one)?;
    for (number, (talk, to)) in open.into_iter().enumerate() {
        match number % 3 {
            0 => talk.reset()?,
            1 => {
                talk.finish()?;
                assert_eq!(talk.receive_all()?.text(), "variant\n");
                // Both sides have ended, and the socket is connected to nobody: as ever.
                assert_eq!(peer(&talk)?, None);
            }
            _ => {
                talk.send(b"hello")?;
                assert_eq!(peer(&talk)?, Some(to));
                talk.close()?;
            }
        }
    }
    it.expect_taken(0)?;
    // What was refused, on a socket that stays, leaves nothing; nor does a socket that is connected anew.
    let talk = talker.raw(false)?;
    assert!(talk.try_to(Deed::Connect(it.closed))?.error.is_some());
    it.expect_taken(0)?;
    talk.to(Deed::Connect(it.it.vip))?;
    assert_eq!(talk.names()?.peer, Some(it.it.vip));
    it.expect_taken(one)?;
    talk.close()?;
    assert!(talker.try_open(it.closed)?.error.is_some());
    it.expect_taken(0)
}

/// The pinned map, whose values are words to this test.
fn slots(pins: &Path) -> Result<Array<MapData, [u64; size_of::<FlowSlot>() / 8]>> {
    let set = fs::read_dir(pins)?.next().ok_or("nothing is pinned")??;
    Ok(Map::from_map_data(MapData::from_pin(set.path().join("map-FLOW_SLOTS"))?)?.try_into()?)
}

#[test]
fn who_finds_a_slot_taken_has_storage() -> Result {
    require_privilege!(Ok(()));
    ["strip", "propagate"].iter().try_for_each(|policy| slots_taken(policy))
}

fn slots_taken(policy: &str) -> Result {
    let mut it = Pinned::new(&format!("full-{policy}"), policy)?;
    // The canary would find them taken, too, and give none back: it must not be there to be counted.
    it.it.agent.signal(Signal::TERM)?;
    assert!(it.it.agent.wait(soon())?.success());
    let mut slots = slots(&it.bpf.pin_dir())?;
    let fill = |slots: &mut Array<_, _>, owner| -> Result {
        for index in 0..u32::try_from(FLOW_SLOTS_MAX)? {
            slots.set(index, [owner, 0, 0, 0, 0, 0, 0, 0], 0)?;
        }
        Ok(())
    };
    fill(&mut slots, u64::MAX)?;
    let talker = Talker::in_pod(&it.it.scene.client)?;
    let talk = talker.open(it.it.vip)?;
    assert_eq!(talk.names()?.peer, Some(it.it.vip));
    it.expect_taken(FLOW_SLOTS_MAX as u64)?;
    fill(&mut slots, 0)?;
    let other = talker.open(it.it.vip)?;
    assert_eq!((talk.names()?.peer, other.names()?.peer), (Some(it.it.vip), Some(it.it.vip)));
    it.expect_taken(u64::from(has_slots()?))?;
    assert_eq!(Ledger::at_rest(&it.bpf.pin_dir())?.connections["no_storage"], 0);
    Ok(())
}

/// A socket whose first connect would have had a header, and whose second one is nobody's business.
#[test]
fn a_socket_connected_anew_elsewhere_owes_no_header() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("anew")?;
    let (server, vip) = (scene.recorder("variant")?, scene.vip());
    let closed = SocketAddr::new(vip.ip(), 81);
    let nobody = SocketAddr::new(server.at.ip(), 9);
    let settings = |at| format!("header: propagate, {}", variants(&[("pr-1", &[at])]));
    let routes = Routes::new()
        .service("cart", &[vip], &settings(server.at))
        .service("closed", &[closed], &settings(nobody))
        .workload(scene.workload(AUTO));
    let _agent: Agent = scene.agent(&routes, &[])?;
    let talker = Talker::in_pod(&scene.client)?;
    for (number, (to, front)) in [(server.at, Vec::new()), (vip, super::pr_1())].into_iter().enumerate() {
        let talk = talker.raw(false)?;
        assert!(talk.try_to(Deed::Connect(closed))?.error.is_some());
        talk.to(Deed::Connect(to))?;
        assert_eq!(talk.names()?.peer, Some(to));
        talk.send(b"hello")?;
        talk.finish()?;
        assert_eq!(talk.receive_all()?.text(), "variant\n");
        assert_eq!(server.whole(number)?.0, [front, b"hello".to_vec()].concat(), "to {to}");
    }
    Ok(())
}

//! A machine out of memory for TCP. `net.ipv4.tcp_mem` is the whole machine's, so only where that is an emulated one.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testbed::{Deed, Form, Talk, Talker, blob, hex, require_privilege};

use super::{AUTO, pr_1};
use crate::common::{Result, Routes, Scene, emulated, netstat, variants};

/// Where nobody accepts.
const BESIDE: u16 = 81;
const TCP_MEM: &str = "/proc/sys/net/ipv4/tcp_mem";
/// How many connections hold so much that nobody reads. Each CPU has 1 MiB before the limit is even looked at (6.0,
/// `SK_MEMORY_PCPU_RESERVE`).
const BALLAST: (usize, usize) = (80, 60_000);
/// Sends at most, until memory was refused to one.
const SENDS: usize = 140;
/// Too little for anybody, the ballast being there: what a socket does not have already is refused.
const NONE: &str = "1 1 1";

/// Puts the setting back.
struct Restored(String);

impl Drop for Restored {
    fn drop(&mut self) {
        fs::write(TCP_MEM, &self.0).expect("what was read can be written");
    }
}

/// Whenever memory is refused, before the header is written, between it and its payload or behind both: what arrives is
/// the header and then all that was sent. Non-blocking sends, as those are answered with EAGAIN in the middle.
#[test]
fn a_first_send_that_is_refused_memory() -> Result {
    require_privilege!(Ok(()));
    if !emulated() {
        println!("skipped: it would take TCP's memory from everybody on this machine");
        return Ok(());
    }
    let scene = Scene::new("tcp-memory")?;
    let pod = scene.cluster.pod("server")?;
    let (vip, at) = (scene.vip(), pod.at4(crate::common::PORT));
    let settings = format!("header: propagate, {}", variants(&[("pr-1", &[at])]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
    let _agent = scene.agent(&routes, &[])?;
    let (server, client) = (Talker::in_pod(&pod)?, Talker::in_pod(&scene.client)?);
    let listener = server.listen(at)?;

    server.listen(pod.at4(BESIDE))?;
    for _ in 0..BALLAST.0 {
        server.open(pod.at4(BESIDE))?.to(Deed::SendBlob(Form::Write, BALLAST.1))?;
    }

    let normal = Restored(fs::read_to_string(TCP_MEM)?);
    let sizes = [1, 100, 5000, 100_000, 1, 5000, 100_000];
    // All of them, and then as many as it takes until some send has met the moment.
    for (number, size) in sizes.into_iter().cycle().take(SENDS).enumerate() {
        if number >= sizes.len() && netstat(&scene.client, "TCPMemoryPressures")? > 0 {
            break;
        }
        let (talk, serving) = (client.open(vip)?, server.accept(listener)?);
        let done = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            scope.spawn(|| {
                // Ends with memory there, so that all can come to an end.
                while !done.load(Ordering::Relaxed) {
                    for setting in [NONE, &normal.0] {
                        fs::write(TCP_MEM, setting).expect("it was written before");
                        // Now and then in the middle of a send, wherever that is.
                        thread::sleep(Duration::from_micros(300 * (1 + (number % sizes.len()) as u64)));
                    }
                }
            });
            let sent = whole(&talk, &serving, size);
            done.store(true, Ordering::Relaxed);
            sent
        });
        sent.map_err(|error| format!("{size} bytes: {error}"))?;
        talk.close()?;
        serving.close()?;
    }
    assert!(netstat(&scene.client, "TCPMemoryPressures")? > 0, "memory was never refused");
    Ok(())
}

fn whole(talk: &Talk<'_>, serving: &Talk<'_>, size: usize) -> Result {
    thread::scope(|scope| -> Result {
        let wanted = pr_1().len() + size;
        let reading = scope.spawn(move || serving.receive(wanted));
        talk.to(Deed::SendBlob(Form::Nonblocking(16_384), size))?;
        let said = reading.join().map_err(|_| "the server's side panicked")??;
        let got = hex::decode(&said.hex)?;
        let sent = got.strip_prefix(&pr_1()[..]).ok_or_else(|| format!("no header in front: {said:?}"))?;
        assert_eq!((sent.len(), blob::mismatch(0, sent)), (size, None));
        Ok(())
    })
}

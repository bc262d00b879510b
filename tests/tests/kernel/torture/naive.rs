//! The checks see what they are for: naive ways past a proxy, in a proxy of the test's own, fail them.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{Array, SockHash};
use aya::programs::{CgroupAttachMode, SkMsg, SkSkb, SockOps};
use aya::{Ebpf, include_bytes_aligned};
use testbed::stream::StreamReport;
use testbed::{Cluster, require_privilege, wait_until};

use super::judge::delivered;
use crate::common::{Result, scaled};

/// picop-ebpf/src/bin/naive.rs.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/naive.o"));

/// As in the object.
const PROXY: u16 = 7000;
const SERVER: u16 = 9000;
const P1: u64 = 3;
const P2: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Copied by the proxy: the positive control.
    Copy,
    /// sk_msg into the upstream socket's send queue, with no budget.
    Egress,
    /// sk_msg into the server's receive queue.
    Ingress,
    /// sk_skb from the proxy's one socket to its other.
    Splice,
}

/// What client and server say of one connection through the proxy.
fn through(kind: Kind, client: &str, server: &str) -> Result<(StreamReport, StreamReport)> {
    let cluster = Cluster::new("naive")?;
    let (near, middle, far) = (cluster.pod("client")?, cluster.pod("proxy")?, cluster.pod("server")?);
    let serving = far.serve("stream", far.at4(SERVER), server.split_whitespace())?;
    let mut ebpf = Ebpf::load(OBJECT)?;
    let number = match kind {
        Kind::Egress => 1,
        Kind::Ingress => 2,
        Kind::Copy | Kind::Splice => 0,
    };
    Array::<_, u32>::try_from(ebpf.map_mut("KIND").context("KIND")?)?.set(0, number, 0)?;
    let senders: SockHash<_, u64> = ebpf.map("SENDERS").context("SENDERS")?.try_into()?;
    let senders = senders.fd().try_clone()?;
    let receivers: SockHash<_, u64> = ebpf.map("RECEIVERS").context("RECEIVERS")?.try_into()?;
    let receivers = receivers.fd().try_clone()?;
    let msg: &mut SkMsg = ebpf.program_mut("redirect").context("redirect")?.try_into()?;
    msg.load()?;
    msg.attach(&senders)?;
    let skb: &mut SkSkb = ebpf.program_mut("splice").context("splice")?.try_into()?;
    skb.load()?;
    skb.attach(&receivers)?;
    let ops: &mut SockOps = ebpf.program_mut("enrol").context("enrol")?.try_into()?;
    ops.load()?;
    ops.attach(File::open(cluster.cgroup_dir())?, CgroupAttachMode::Single)?;

    let listener = middle.in_netns(|| TcpListener::bind(middle.at4(PROXY)))??;
    // Made beforehand: whatever the client sends first is redirected already.
    let upstream = middle.in_netns(|| TcpStream::connect(far.at4(SERVER)))??;
    let map = if kind == Kind::Splice { "RECEIVERS" } else { "SENDERS" };
    let mut map: SockHash<_, u64> = ebpf.map_mut(map).context("a map")?.try_into()?;
    if matches!(kind, Kind::Egress | Kind::Splice) {
        map.insert(P2, upstream.as_raw_fd(), 0)?;
    }
    let to = middle.at4(PROXY).to_string();
    let args = ["stream", "--to", &to].into_iter().chain(client.split_whitespace());
    let mut connecting = near.spawn("stream", near.hop(args)?)?;
    let (downstream, _) = listener.accept()?;
    if kind == Kind::Splice {
        map.insert(P1, downstream.as_raw_fd(), 0)?;
    }
    thread::scope(|scope| {
        scope.spawn(|| copy(&downstream, &upstream));
        scope.spawn(|| copy(&upstream, &downstream));
        let ended = connecting.wait(Duration::from_secs(60));
        let report = wait_until("the server's report", Duration::from_secs(60), || {
            serde_json::from_str(serving.stdout().lines().next()?).ok()
        });
        // Ends the copying, whatever is left of it.
        for socket in [&downstream, &upstream] {
            socket.shutdown(Shutdown::Both).ok();
        }
        ended?;
        Ok((serde_json::from_str(&connecting.stdout())?, report?))
    })
}

/// Until the end of the stream, which it passes on. An error ends it, and the ends tell.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 65_536];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if to.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            // As it may be on an enrolled socket.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

/// A writer that closes right after its last byte, and a slow reader. The client waits a moment before it writes: by then
/// the proxy has enrolled its socket.
fn slowly(kind: Kind, mode: &str) -> Result<std::result::Result<(), &'static str>> {
    let size = scaled(20_000_000);
    let (client, server) = through(
        kind,
        &format!(
            "--send {size} --end close --mode {mode} --stall-ms 300 --max-write 65536 --watchdog-ms 5000"
        ),
        &format!(
            "--expect {size} --end late --mode edge --stall-ms 1000 --read-pause-us 2000 --max-read 100000 \
             --watchdog-ms 8000"
        ),
    )?;
    eprintln!("{kind:?}: {client:?}\n{server:?}");
    Ok(delivered(&client, &server))
}

#[test]
fn a_proxy_that_copies_passes() -> Result {
    require_privilege!(Ok(()));
    assert_eq!(slowly(Kind::Copy, "edge")?, Ok(()));
    Ok(())
}

#[test]
fn a_redirection_without_a_budget_hangs() -> Result {
    require_privilege!(Ok(()));
    assert_eq!(slowly(Kind::Egress, "edge")?, Err("no progress"));
    Ok(())
}

#[test]
fn a_splice_by_verdict_loses_bytes() -> Result {
    require_privilege!(Ok(()));
    assert_eq!(slowly(Kind::Splice, "level")?, Err("not all was delivered that was sent before the close"));
    Ok(())
}

/// What a writer can send to a reader that does not read, until it is made to wait.
#[test]
fn a_redirection_into_the_receive_queue_holds_everything() -> Result {
    require_privilege!(Ok(()));
    // More than all buffers on the way may grow to: `tcp_wmem` and `tcp_rmem` are 4 and 6 MiB at most, for two connections.
    let size = scaled(100_000_000).max(50_000_000);
    let held = |kind| -> Result<u64> {
        let client = format!("--send {size} --end close --mode level --stall-ms 300 --watchdog-ms 1000");
        let (client, server) =
            through(kind, &client, &format!("--expect {size} --end late --mode edge --stall-ms 5000"))?;
        eprintln!("{kind:?}: {client:?}\n{server:?}");
        Ok(client.sent)
    };
    let (plain, naive) = (held(Kind::Copy)?, held(Kind::Ingress)?);
    assert!(plain < size as u64 / 2, "a proxy that copies takes {plain} bytes");
    assert_eq!(naive, size as u64);
    Ok(())
}

//! Network namespaces, through iproute2 where one command replaces many.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::gate;

/// Where `ip netns` keeps its names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// The path of a named network namespace.
pub(crate) fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Runs `ip` commands, one a line, in a named network namespace or in this process's.
pub(crate) fn ip(netns: Option<&str>, lines: &[String]) -> Result<()> {
    let _open = gate::enter()?;
    let mut command = Command::new("ip");
    if let Some(name) = netns {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("running `ip` (package iproute2)")?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    stdin.write_all((lines.join("\n") + "\n").as_bytes()).context("writing to `ip -batch`")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for `ip`")?;
    ensure!(
        output.status.success(),
        "`ip` failed in {}: {}\n{}",
        netns.unwrap_or("this namespace"),
        String::from_utf8_lossy(&output.stderr).trim(),
        lines.join("\n")
    );
    Ok(())
}

/// Moves the calling thread into a network namespace, for good.
pub(crate) fn set_thread_netns(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Runs `job` on a thread of its own inside a network namespace, and returns what it returned. The thread ends with it,
/// so the caller's own namespace never changes. The thread's *cgroup* stays the caller's.
pub fn in_netns<T: Send>(path: &Path, job: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let entered = scope.spawn(|| set_thread_netns(path).map(|()| job()));
        match entered.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Whether a TCP socket listens on `port` in the calling thread's network namespace. Looks it up, so that the server
/// never sees a probing connection.
pub(crate) fn is_listening(port: u16) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))
            .is_ok_and(|text| text.lines().skip(1).any(|line| listens_on(line, port)))
    })
}

fn listens_on(line: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (local, state) = (fields.nth(1), fields.nth(1));
    let local_port =
        local.and_then(|l| l.rsplit_once(':')).and_then(|(_, p)| u16::from_str_radix(p, 16).ok());
    state == Some(LISTEN) && local_port == Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_told_from_a_connected_one() {
        let listening = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        let connected = "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 1 1";
        assert!(listens_on(listening, 8080));
        assert!(!listens_on(listening, 8081));
        assert!(!listens_on(connected, 8080));
        assert!(!listens_on("", 8080));
    }

    #[test]
    fn a_real_listener_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binding on loopback");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        assert!(is_listening(port));
        drop(listener);
        assert!(!is_listening(port));
    }
}

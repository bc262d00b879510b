//! Sockets of workloads that the kernel routed directly, as they are now. Nobody keeps a list of them: the kernel is asked
//! (sock_diag, with the socket storage that the connect hook left; 5.7), so that such a connection costs nothing more. What
//! the hook left in a slot instead is found by the socket's cookie.

mod diag;

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    sync::Arc,
};

use picop_common::maps::{FLOW_DIRECT, FLOW_FAILED, FLOW_INJECT, FLOW_INJECTED, FLOW_LINGERS};

use super::{
    cgroup::{CgroupError, CgroupMount},
    maps::Maps,
    netns::{NetnsError, NetnsThread},
    workloads::ManagedWorkload,
};
use crate::telemetry::chain;

/// A direct connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectSocket {
    /// Its own address.
    pub client: SocketAddr,
    /// Where the application wanted to go.
    pub original: SocketAddr,
    /// Where it goes.
    pub backend: SocketAddr,
    /// What it is doing.
    pub state: State,
    /// Bytes that the server has acknowledged.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
    /// Smoothed round-trip time.
    pub rtt_us: u32,
}

/// What a socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its handshake.
    Connecting,
    /// Its header is still to be written, or acknowledged.
    Header,
    /// Nothing of picop's.
    Open,
    /// One side has ended.
    Closing,
}

impl State {
    /// For people and programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Header => "header",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The connections, and the workloads they are of.
    pub sockets: Vec<(Arc<ManagedWorkload>, DirectSocket)>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

/// Sockets cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// The cgroup tree cannot be found.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A network namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel does not answer.
    #[error("the kernel does not list the sockets of workload {workload}")]
    Diag {
        /// In whose network namespace.
        workload: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Lists the direct connections of workloads. The dump itself runs on the caller's thread.
pub async fn direct(
    netns: &NetnsThread,
    maps: &Maps,
    workloads: &[Arc<ManagedWorkload>],
) -> Result<Found, SocketsError> {
    let mount = CgroupMount::find()?;
    // Sockets know the cgroup of the process that made them, which may be one below the workload's.
    let mut owners = HashMap::new();
    for workload in workloads {
        cgroups_below(&mount.path().join(&*workload.name), &mut |id| {
            owners.insert(id, Arc::clone(workload));
        });
    }
    let mut found = Found::default();
    // Workloads may share a namespace.
    let mut seen = Vec::new();
    for workload in workloads {
        if seen.contains(&workload.netns_cookie) {
            continue;
        }
        seen.push(workload.netns_cookie);
        match of_netns(netns, maps, workload).await {
            Ok(sockets) => {
                let owned = sockets
                    .into_iter()
                    .filter_map(|(cgroup, socket)| Some((Arc::clone(owners.get(&cgroup)?), socket)));
                found.sockets.extend(owned);
            }
            Err(error) => found.problems.push(chain(&error)),
        }
    }
    Ok(found)
}

async fn of_netns(
    netns: &NetnsThread,
    maps: &Maps,
    workload: &Arc<ManagedWorkload>,
) -> Result<Vec<(u64, DirectSocket)>, SocketsError> {
    let refused = |source| SocketsError::Diag { workload: workload.name.to_string(), source };
    // The socket answers for the namespace it was made in, wherever it is used.
    let socket = netns.run(Arc::clone(&workload.netns), diag::open).await?.map_err(refused)?;
    let mut all = Vec::new();
    for family in [diag::Family::V4, diag::Family::V6] {
        diag::dump(&socket, family, maps.flows().as_raw_fd(), |found| all.extend(connection(&found, maps)))
            .map_err(refused)?;
    }
    Ok(all)
}

fn connection(found: &diag::Found, maps: &Maps) -> Option<(u64, DirectSocket)> {
    let flow = found.flow.or_else(|| maps.flow(found.cookie))?;
    // A socket that was connected anew, elsewhere, has a record of its last connect.
    if SocketAddr::from(flow.target) != found.remote {
        return None;
    }
    let state = match (flow.state, found.state) {
        (FLOW_DIRECT | FLOW_INJECT | FLOW_INJECTED | FLOW_FAILED, diag::SYN_SENT) => State::Connecting,
        (FLOW_INJECT, diag::ESTABLISHED) => State::Header,
        (FLOW_DIRECT | FLOW_INJECTED | FLOW_FAILED | FLOW_LINGERS, diag::ESTABLISHED) => State::Open,
        (FLOW_DIRECT | FLOW_INJECT | FLOW_INJECTED | FLOW_FAILED | FLOW_LINGERS, _) => State::Closing,
        // The client's side of a relayed connection, which the relay knows better.
        _ => return None,
    };
    let socket = DirectSocket {
        client: found.local,
        original: flow.original.into(),
        backend: found.remote,
        state,
        bytes_up: found.bytes_acked,
        bytes_down: found.bytes_received,
        rtt_us: found.rtt_us,
    };
    Some((found.cgroup, socket))
}

/// Calls back with the id of a cgroup and of all below it. One that goes away meanwhile has no sockets either.
fn cgroups_below(dir: &Path, tell: &mut dyn FnMut(u64)) {
    let Ok(meta) = fs::metadata(dir) else { return };
    tell(meta.ino());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            cgroups_below(&entry.path(), tell);
        }
    }
}

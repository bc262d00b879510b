//! What the agent answers.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use tokio::sync::watch;

use super::Agent;
use crate::{
    admin::{self, http::Access, socket::AdminSocket, state::State, thread::AdminThread},
    cli::RunArgs,
    intercept::{canary::Report, workloads::Registry},
    telemetry::chain,
};

impl Agent {
    /// Begins to answer. An agent that cannot have its socket routes all the same, and says so.
    pub(super) fn admin(
        &mut self,
        registry: Registry,
        canary: watch::Receiver<Report>,
        programs: Vec<u32>,
    ) -> Result<AdminThread> {
        let timing = self.args.bpf_stats.then(|| enable_stats(Stats::RunTime)).transpose();
        let timing = timing.context("--bpf-stats")?;
        let state = Arc::new(State {
            started: Instant::now(),
            args: self.args.clone(),
            attached_to: self.root.dir.clone(),
            routes: self.routes.clone(),
            maps: Arc::clone(&self.maps),
            netns: self.netns.clone(),
            registry,
            hub: self.hub.clone(),
            canary,
            names: Mutex::default(),
            logs: self.logs.clone(),
            programs,
            timing,
        });
        let socket = admin::socket_path(&self.args.admin_socket).and_then(|path| {
            AdminSocket::bind(&path)
                .inspect_err(|error| {
                    tracing::warn!(error = chain(error), "`picop` commands cannot ask this agent");
                })
                .ok()
        });
        let tcp = std::mem::take(&mut self.tcp);
        AdminThread::start(state, socket, tcp).context("cannot start answering")
    }
}

/// Listens where it is asked to.
pub fn listen(args: &RunArgs) -> Result<Vec<(TcpListener, Access)>> {
    let mut all = Vec::new();
    for (option, address, access) in
        [("--metrics", args.metrics, Access::Numbers), ("--http", args.http, Access::Reader)]
    {
        let Some(address) = address else { continue };
        let open = || -> io::Result<_> {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let at = listener.local_addr()?;
            Ok((listener, at))
        };
        let (listener, at) = open().with_context(|| format!("cannot listen at {option} {address}"))?;
        tracing::info!(address = %at, "{option} is served");
        all.push((listener, access));
    }
    Ok(all)
}

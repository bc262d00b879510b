//! What the agent answers.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::Agent;
use crate::{
    admin::{self, http::Access, socket::AdminSocket, state::State, thread::AdminThread},
    intercept::{canary::Report, workloads::Registry},
    telemetry::chain,
};

impl Agent {
    /// Begins to answer. An agent that cannot have its socket routes all the same, and says so.
    pub(super) fn admin(&self, registry: Registry, canary: watch::Receiver<Report>) -> Result<AdminThread> {
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
            logs: self.logs.clone(),
        });
        let socket = admin::socket_path(&self.args.admin_socket).and_then(|path| {
            AdminSocket::bind(&path)
                .inspect_err(|error| {
                    tracing::warn!(error = chain(error), "`picop` commands cannot ask this agent");
                })
                .ok()
        });
        let mut tcp = Vec::new();
        for (option, address, access) in
            [("--metrics", self.args.metrics, Access::Numbers), ("--http", self.args.http, Access::Reader)]
        {
            if let Some(address) = address {
                let listener = listen(address).with_context(|| format!("{option} {address}"))?;
                tracing::info!(address = %listener.local_addr()?, "{option} is served");
                tcp.push((listener, access));
            }
        }
        AdminThread::start(state, socket, tcp).context("cannot start answering")
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

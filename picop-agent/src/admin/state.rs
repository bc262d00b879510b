//! What answers are made of.

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::watch;

use crate::{
    cli::RunArgs,
    intercept::{canary::Report, maps::Maps, netns::NetnsThread, workloads::Registry},
    route::RouteHandle,
    telemetry::{hub::Hub, logs::LogControl},
};

/// A running agent, as those who ask see it.
pub struct State {
    /// When it began.
    pub started: Instant,
    /// What it was told to do.
    pub args: RunArgs,
    /// The cgroup it is attached to.
    pub attached_to: PathBuf,
    /// The routes in effect.
    pub routes: RouteHandle,
    /// What it shares with the kernel.
    pub maps: Arc<Maps>,
    /// For looking into workloads' network namespaces.
    pub netns: NetnsThread,
    /// What it manages.
    pub registry: Registry,
    /// What connections tell.
    pub hub: Hub,
    /// What the canary found.
    pub canary: watch::Receiver<Report>,
    /// What is logged.
    pub logs: LogControl,
}

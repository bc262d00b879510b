//! What answers are made of.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::sync::watch;

use crate::{
    cli::RunArgs,
    intercept::{canary::Report, maps::Maps, netns::NetnsThread, told::Names, workloads::Registry},
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
    /// Names of what the kernel counts, as they are and as they were.
    pub names: Mutex<Names>,
    /// What is logged.
    pub logs: LogControl,
    /// Ids of its programs.
    pub programs: Vec<u32>,
    /// With it the kernel takes the time of programs.
    pub timing: Option<OwnedFd>,
}

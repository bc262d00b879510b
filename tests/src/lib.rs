//! A little cluster on one machine, for the end-to-end tests and the demo.
//!
//! A [`Cluster`] is a bridge in a network namespace of its own; a [`Pod`] is a network namespace on that bridge together
//! with its own cgroup, as the node agent meets them on a Kubernetes node. Service addresses belong to no host: without
//! the agent, a connection to one fails at once. [`Agent`] runs the real `picop` over a cluster.
//!
//! Everything carries a name that tells which process made it ([`ClusterId`]); it is removed when the [`Cluster`] is
//! dropped, and what a killed run left behind is removed by [`sweep`].

mod admin;
mod agent;
pub mod blob;
mod bpffs;
pub mod browser;
mod cgroup;
mod client;
mod cluster;
mod gate;
pub mod hex;
pub mod http;
mod id;
pub mod kube;
mod ledger;
mod locate;
pub mod mysql;
mod net;
mod pod;
mod privilege;
mod process;
pub mod programs;
pub mod soak;
pub mod stream;
mod sweep;
pub mod talk;
mod unwrap;
mod wait;

pub use admin::Asked;
pub use agent::{Agent, AgentOptions};
pub use bpffs::BpfFs;
pub use cgroup::v2_mount;
pub use client::{Client, ClientReport, ClientSummary};
pub use cluster::Cluster;
pub use id::ClusterId;
pub use ledger::{Ledger, status};
pub use locate::{hop_bin, picop_bin, set_programs};
pub use net::in_netns;
pub use pod::{Pod, PodSpec};
pub use privilege::{Privilege, enter_or_skip, privilege};
pub use process::{Output, Proc, wait_timeout};
pub use sweep::{leftovers, leftovers_of, remove_kept, remove_own, sweep};
pub use talk::{Deed, Form, Said, Talk, Talker, Target};
pub use unwrap::{Unwrapped, Verdict};
pub use wait::{emulated, eventually, patience, wait_until};

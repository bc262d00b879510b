//! Interception: from pods to cgroups, network namespaces and kernel maps.
//!
//! Knows nothing of relaying: it hands [`workloads::Event`]s (a listener is there, a workload is gone) to whoever wires it,
//! and answers where an accepted connection wanted to go ([`maps::Maps::take_original`]).

pub mod btf;
pub mod canary;
pub mod capabilities;
pub mod cgroup;
pub mod graft_probe;
pub mod grafts;
pub mod heartbeat;
pub mod leave;
pub mod logs;
pub mod maps;
pub mod netns;
pub mod object;
pub mod peers;
pub mod pins;
pub mod programs;
pub mod snapshot;
pub mod sockets;
pub mod table;
pub mod told;
pub mod upkeep;
pub mod workloads;

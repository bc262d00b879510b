//! The route table and the decision taken on it.
//!
//! Pure: no I/O, no clock, nothing of eBPF. [`RouteTable`] is what the node knows, [`decide`] says where one connection goes
//! and why, [`RouteHandle`] shares the table in effect between those who read it and the one source that replaces it.
pub mod affinity;
mod decide;
mod endpoints;
mod handle;
mod pod;
mod service;
mod table;
mod workload;

pub use decide::{Backends, Decision, EnvSource, Facts, Reason, Tried, decide, decide_telling};
pub use endpoints::{Endpoints, Weight, WeightedEndpoint};
pub use handle::{InEffect, NotInstalled, RouteHandle, SourceStatus};
pub use pod::PodUid;
pub use service::{Balancing, Base, Fallback, GraftPolicy, HeaderPolicy, Service, SpeaksFirst, Timeouts};
pub use table::{RouteTable, TableError};
pub use workload::{
    CgroupPattern, CgroupPatternError, Cgroups, ContextSource, PathChoice, PodCgroup, WorkloadSpec,
};

#[cfg(test)]
mod strategies;

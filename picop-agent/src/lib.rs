//! The picop node agent, as a library: the binary and the tests put its parts together.
//!
//! Dependencies point one way: [`route`] and [`protocol`] know nothing of eBPF, `intercept` nothing of relaying; `app`
//! wires them.
#![deny(unsafe_code)]

#[cfg(feature = "ebpf")]
pub mod admin;
#[cfg(feature = "ebpf")]
pub mod app;
#[cfg(feature = "ebpf")]
pub mod cli;
pub mod controller;
#[cfg(feature = "ebpf")]
pub mod ctl;
#[cfg(feature = "ebpf")]
pub mod doctor;
pub mod duration;
pub mod gateway;
#[cfg(feature = "ebpf")]
pub mod intercept;
pub mod late;
mod listen;
#[cfg(feature = "ebpf")]
pub mod relay;
pub mod route;
pub mod source;
#[cfg(feature = "ebpf")]
pub mod status;
pub mod sys;
pub mod telemetry;

pub use picop_common::protocol;

//! PiCoP for Rust programs, and what picop's two sides share.
//!
//! A service that is routed by picop, or by any other implementation of PiCoP, wants one of these features:
//!
//! | feature | what it has |
//! | --- | --- |
//! | `protocol` | [`protocol`]: a connection's context, and reading it off a stream of any runtime |
//! | `tokio` | [`net`]: accepting connections with a context, and dialling with one |
//! | `opentelemetry` | [`telemetry`]: contexts as OpenTelemetry propagates them |
//! | `serde`, `schemars` | environments' names in files |
//!
//! Without them it is `no_std`, for a kernel program as much as for the agent: they agree on map layouts ([`maps`]), on
//! addresses ([`addr`]), on the decision taken at `connect(2)` ([`connect`]) and on the bytes of a PiCoP header
//! ([`header`]). All of it is tested on the host; nothing here touches a kernel.
#![cfg_attr(not(any(test, feature = "protocol")), no_std)]

pub mod addr;
pub mod carried;
pub mod connect;
pub mod fastopen;
pub mod graft;
pub mod header;
pub mod maps;
#[cfg(feature = "tokio")]
pub mod net;
#[cfg(feature = "user")]
mod pod;
pub mod probe;
#[cfg(feature = "protocol")]
pub mod protocol;
pub mod route;
#[cfg(feature = "opentelemetry")]
pub mod telemetry;

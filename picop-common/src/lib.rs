//! What picop's two sides share.
//!
//! The kernel programs and the agent agree on map layouts ([`maps`]), on addresses ([`addr`]), on the decision taken at
//! `connect(2)` ([`connect`]) and on the bytes of a PiCoP header ([`header`]). All of it is `no_std` and is tested on the
//! host; nothing here touches a kernel.
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod carried;
pub mod connect;
pub mod fastopen;
pub mod graft;
pub mod header;
pub mod maps;
#[cfg(feature = "user")]
mod pod;
pub mod probe;
pub mod route;

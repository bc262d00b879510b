//! picop's kernel side.
//!
//! ```text
//!  connect(2) ──> connect.rs ── decide ──> passthrough: socket untouched
//!                    │  FLOW_SLOTS or FLOWS[socket] = original destination, target, header: see flows.rs
//!                    ├─ relay: rewrites to the agent's listener on the workload's loopback
//!                    └─ direct: rewrites to a backend out of ROUTES
//!  handshake done ─> sock_ops.rs ┬ relay ── ORIGINALS[netns, client address] = original destination ──> the agent's accept
//!                                └ direct, header to write ── enrols the socket in SOCKS
//!  first send(2)  ─> msg.rs (sk_msg of SOCKS) ── pushes HEADERS[flow.header] in front
//!  its ACK        ─> sock_ops.rs ── takes the socket out of SOCKS: from here on plain TCP
//!  relayed, later ─> graft.rs ── a client's (and a local server's) messages past the agent
//!  getpeername(2) ─> peername.rs ── FLOW_SLOTS or FLOWS[socket] ──> the address the application asked for
//!  picop doctor ──> probe.rs (sk_msg): can this kernel push into a message and take it back?
//! ```
//!
//! The programs gather facts and act; what is decided is in `picop_common::connect`, tested on the host.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "a BPF call passes five registers and a stack of 512 bytes is shared"
)]
#![expect(clippy::needless_pass_by_value, reason = "the signature aya's macros ask for")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the kernel's contexts hold ports in words, and helpers take flags and levels as i32"
)]

mod atomic;
mod connect;
mod ctx;
mod fastopen;
mod flows;
mod graft;
mod maps;
mod msg;
mod object;
mod peername;
mod probe;
mod sock_ops;

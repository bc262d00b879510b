//! Everything that depends on the kernel, with the real agent over real pods and nothing else: this one program also runs
//! in a small virtual machine, on the oldest and the newest kernel that the agent supports.
//!
//! With `PICOP_EMULATED=1` it expects a machine that is an order of magnitude slower: fewer bytes and connections, more
//! patience.

mod admin;
mod churn;
mod common;
mod direct;
mod failopen;
mod graft;
mod header;
mod late;
mod limits;
mod load;
mod pods;
mod reload;
mod routing;
mod scope;
mod streams;
mod torture;
mod translated;
#[path = "../beside/translator.rs"]
mod translator;
mod upstream;

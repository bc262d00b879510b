//! Routes from a cluster's objects, end to end: the real agent, pods laid out as kubelets do it, and a double of the API
//! server. What was run against a real one is said in README.md.

mod chaos;
mod layouts;
mod outage;
mod policy;
mod shop;
mod statuses;
mod streams;
mod traffic;
mod translated;
#[path = "../beside/translator.rs"]
mod translator;

use std::error::Error;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

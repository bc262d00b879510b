//! The agent as a program: what it says on its command line, and what it leaves behind.

mod cli;
mod daemonset;
mod life;

use std::error::Error;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

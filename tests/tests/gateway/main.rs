//! The gateway as a program: in place of PiCoP's reference programs, behind the controller, before browsers, and at a terminal.

mod browser;
mod controlled;
mod database;
mod demo;
mod pages;
mod program;
mod services;
mod terminal;
mod tls;
mod train;

use std::error::Error;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

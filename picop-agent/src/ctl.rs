//! The commands that ask a running agent, and print what it says: tables for people, JSON for programs.

mod bundle;
mod connections;
mod explain;
mod pages;
mod table;
mod things;
mod top;
mod trace;

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use serde::Serialize;

pub use bundle::support_bundle;
pub use connections::connections;
pub use explain::explain;
pub use pages::{completions, man};
pub use things::{config, environments, log_level, routes, workloads};
pub use top::top;
pub use trace::trace;

use crate::{admin::client::Client, cli::ask::Ask};

/// Connects to the agent that is asked.
fn client(ask: &Ask) -> Result<Client> {
    Ok(Client::connect(&ask.admin_socket)?)
}

/// Whether to print colours: on terminals, unless `NO_COLOR` is set.
fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a value as JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

/// Prints text. A reader that has enough (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

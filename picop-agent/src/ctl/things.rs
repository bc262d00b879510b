//! `picop routes`, `environments`, `workloads`, `config`, `log`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    client, colours, print, print_json,
    table::{Table, maybe},
};
use crate::{
    admin::views::{
        routes::{Backend, Routes, Service, Verified},
        things::{Environment, Log, Workload},
    },
    cli::ask::{Ask, ConfigCommand, LogCommand, RoutesArgs},
};

/// Shows the services in effect, or compares them with the kernel's.
pub fn routes(args: &RoutesArgs) -> Result<ExitCode> {
    if args.verify {
        return verify(&args.ask);
    }
    let routes: Routes = client(&args.ask)?.get("/v1/routes")?;
    if args.ask.json {
        print_json(&routes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["SERVICE", "ADDRESS", "ENVIRONMENT", "BACKENDS"]);
    for service in &routes.services {
        rows(&mut table, service);
    }
    print(&format!("{}version {}\n", table.render(colours()), routes.version))?;
    Ok(ExitCode::SUCCESS)
}

fn rows(table: &mut Table, service: &Service) {
    let base = service.base.as_ref().map_or_else(|| "the address itself".to_owned(), |base| list(base));
    table.row(vec![service.name.clone(), service.addresses.join(" "), "(base)".to_owned(), base]);
    for (environment, backends) in &service.variants {
        table.row(vec![service.name.clone(), String::new(), environment.clone(), list(backends)]);
    }
}

fn list(backends: &[Backend]) -> String {
    if backends.is_empty() {
        return "nothing ready".to_owned();
    }
    let one = |it: &Backend| {
        if it.weight == 1 { it.address.clone() } else { format!("{} (weight {})", it.address, it.weight) }
    };
    backends.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn verify(ask: &Ask) -> Result<ExitCode> {
    let verified: Verified = client(ask)?.get("/v1/routes/verify")?;
    if ask.json {
        print_json(&verified)?;
    } else if verified.same {
        print(&format!(
            "version {}: the kernel has the same {} entries\n",
            verified.version, verified.expected
        ))?;
    } else {
        let differences = verified.differences.join("\n  ");
        print(&format!(
            "version {}: the kernel's table differs ({} entries instead of {}):\n  {differences}\n",
            verified.version, verified.found, verified.expected
        ))?;
    }
    Ok(if verified.same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the environments.
pub fn environments(ask: &Ask) -> Result<()> {
    let all: Vec<Environment> = client(ask)?.get("/v1/environments")?;
    if ask.json {
        return print_json(&all);
    }
    let mut table = Table::new(&["ENVIRONMENT", "VARIANTS", "NOTHING READY", "WORKLOADS", "RELAYED NOW"]);
    for it in &all {
        table.row(vec![
            it.name.clone(),
            it.variants.join(" "),
            it.empty.join(" "),
            it.workloads.len().to_string(),
            it.relayed_now.to_string(),
        ]);
    }
    print(&table.render(colours()))
}

/// Shows the workloads.
pub fn workloads(ask: &Ask) -> Result<()> {
    let all: Vec<Workload> = client(ask)?.get("/v1/workloads")?;
    if ask.json {
        return print_json(&all);
    }
    let mut table = Table::new(&[
        "WORKLOAD",
        "STATE",
        "ENVIRONMENT",
        "CONTEXT",
        "PATH",
        "LISTENERS",
        "RELAYED NOW",
        "WHY",
    ]);
    for it in &all {
        table.row(vec![
            it.name.clone(),
            it.state.clone(),
            maybe(it.environment.as_ref()),
            it.context.clone(),
            it.path.clone(),
            it.listeners.map(|(v4, v6)| format!("{v4} {v6}")).unwrap_or_default(),
            it.relayed_now.to_string(),
            maybe(it.why.as_ref()),
        ]);
    }
    print(&table.render(colours()))
}

/// Prints what the agent was told to do.
pub fn config(command: &ConfigCommand) -> Result<()> {
    let ConfigCommand::Dump(ask) = command;
    let config: serde_json::Value = client(ask)?.get("/v1/config")?;
    if ask.json { print_json(&config) } else { print(&format!("{config:#}\n")) }
}

/// Shows or changes what is logged.
pub fn log_level(command: &LogCommand) -> Result<()> {
    let LogCommand::Level { filter, ask } = command;
    let mut client = client(ask)?;
    let now: Log = match filter {
        Some(filter) => client.put("/v1/log", &Log { filter: filter.clone() })?,
        None => client.get("/v1/log")?,
    };
    if ask.json { print_json(&now) } else { print(&format!("{}\n", now.filter)) }
}

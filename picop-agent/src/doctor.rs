//! `picop doctor`: what this node can do, found out by doing it.
//!
//! Each module gathers facts by a real probe, and turns them into a [`check::Finding`] in pure functions. Programs are
//! tried in a cgroup of the doctor's own and on sockets it made itself: pods never meet them. What is made goes with the
//! values that hold it, also when the doctor is interrupted.

mod cgroups;
mod check;
mod host;
mod interception;
mod namespaces;
mod programs;
mod report;
mod scratch;
mod sockets;
mod table;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use self::{cgroups::Cgroups, report::Report};
use crate::{
    cli::DoctorArgs,
    intercept::{logs::LogLevel, netns::NetnsThread, object},
};

/// Examines the node and prints what it found. Success means that the agent can run here.
pub fn run(args: &DoctorArgs) -> ExitCode {
    match report(args).and_then(|report| print(&report, args.json).map(|()| report)) {
        Ok(report) if report.can_run => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("picop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &DoctorArgs) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let on = |kind| signal(kind).context("cannot handle signals");
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut hangup = on(SignalKind::hangup())?;
        // Losing this race drops the examination, and with it all it made.
        tokio::select! {
            report = examine(args.cgroup.as_deref()) => Ok(report),
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
            _ = hangup.recv() => anyhow::bail!("the terminal is gone"),
        }
    })
}

async fn examine(wanted: Option<&Path>) -> Report {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut checks = host::checks(&kernel);

    let (found, Cgroups { mount, attach_point, scratch }) = cgroups::checks(wanted);
    checks.extend(found);

    let loaded = object::load(LogLevel::Off);
    checks.push(programs::object(loaded.as_ref().map(|_| ())));
    let (mut ebpf, fast_open) = loaded.map_or((None, None), |it| (Some(it.ebpf), Some(it.fast_open)));
    checks.extend(programs::interception(ebpf.as_mut(), scratch.as_ref()));

    let netns = NetnsThread::spawn();
    let means = match (&mut ebpf, &mount, &scratch, &netns) {
        (None, ..) => Err(programs::NO_OBJECT),
        (_, None, ..) | (_, _, None, _) => Err("there is no cgroup to try it in"),
        (.., Err(_)) => Err(NO_THREAD),
        (Some(ebpf), Some(mount), Some(scratch), Ok(netns)) => {
            Ok(interception::Means { ebpf, mount, scratch, netns })
        }
    };
    checks.extend(interception::checks(means).await);
    checks.extend(namespaces::checks(netns.as_ref().map_err(|_| NO_THREAD)).await);

    let (check, map) = programs::sk_msg(ebpf.as_mut());
    checks.push(check);
    checks.push(programs::fast_open(fast_open));
    checks.extend(sockets::checks(map.ok_or("the sk_msg program is not in place")));
    checks.extend(host::limits());
    Report::new(kernel, attach_point.map(|cgroup| cgroup.dir), checks)
}

const NO_THREAD: &str = "the thread that enters network namespaces does not start";

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let text = if json {
        let mut text = serde_json::to_string(report).context("cannot write the report as JSON")?;
        text.push('\n');
        text
    } else {
        let colours = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        table::render(report, colours)
    };
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot print the report")
}

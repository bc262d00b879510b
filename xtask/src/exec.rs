//! Running other programs, and saying so.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often a quiet step says that it is still alive.
const TICK: Duration = Duration::from_secs(10);

/// Says what is about to be done.
pub fn announce(what: &str) {
    eprintln!("==> {what}");
}

/// Runs a program whose own output is the progress.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    announce(what);
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status}) while {what}", name(command));
    }
    Ok(())
}

/// Runs a program whose output only matters when it fails; says every few seconds how long it has taken.
pub fn run_quietly(what: &str, command: &mut Command) -> Result<()> {
    announce(what);
    let started = Instant::now();
    let (finished, ticks) = channel::<()>();
    let ticker = std::thread::spawn(move || {
        while ticks.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            eprintln!("    ... {} s", started.elapsed().as_secs());
        }
    });
    let output = command.stdin(Stdio::inherit()).output();
    drop(finished);
    if ticker.join().is_err() {
        bail!("the progress thread panicked while {what}");
    }
    let output = output.with_context(|| format!("cannot start {}", name(command)))?;
    if !output.status.success() {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{} failed ({}) while {what}; its output is above", name(command), output.status);
    }
    eprintln!("    done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a program for its answer on standard output.
pub fn capture(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status}): {}", name(command), String::from_utf8_lossy(&stderr).trim());
    }
    String::from_utf8(stdout).with_context(|| format!("{} did not answer in UTF-8", name(command)))
}

/// A command that runs as root: itself, or through sudo.
pub fn as_root(program: &str) -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    let sudo = crate::workspace::program("sudo")
        .with_context(|| format!("{program} needs root: run this as root, or install sudo"))?;
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

/// Takes away what the outer cargo and the user's shell say about compilers and flags, and keeps what they say
/// about the network and cargo's home: the inner cargo decides for itself.
pub fn without_outer_cargo(command: &mut Command) -> &mut Command {
    for variable in std::env::vars_os().map(|(variable, _)| variable).filter(is_of_outer_cargo) {
        command.env_remove(variable);
    }
    command
}

fn is_of_outer_cargo(variable: &OsString) -> bool {
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    const DROPPED: [&str; 4] = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC"];
    let Some(variable) = variable.to_str() else { return false };
    // rustup's shims set these for their children; the libraries of one toolchain are not those of another.
    variable == "LD_LIBRARY_PATH"
        || variable == "RUSTUP_TOOLCHAIN"
        || DROPPED.iter().any(|prefix| variable.starts_with(prefix))
            && !KEPT.iter().any(|prefix| variable.starts_with(prefix))
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

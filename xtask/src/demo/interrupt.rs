//! Ctrl-C and SIGTERM: everything is removed before the process ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static CAUGHT: AtomicBool = AtomicBool::new(false);

/// From here on, a signal to end removes this process's clusters first.
pub fn watch() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                CAUGHT.store(true, Ordering::SeqCst);
                eprintln!("\n==> interrupted: removing the cluster");
                let status = match testbed::remove_own() {
                    Ok(_) => 128 + signal,
                    Err(error) => {
                        eprintln!("error: {error:#}; `cargo xtask demo --clean` tries again");
                        1
                    }
                };
                std::process::exit(status);
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Returns at once, unless a signal came: what failed then failed because everything is being removed, and the process
/// ends when that is done.
pub fn settle() {
    while CAUGHT.load(Ordering::SeqCst) {
        thread::park_timeout(Duration::from_secs(1));
    }
}

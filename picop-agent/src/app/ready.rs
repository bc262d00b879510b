//! Whether the agent is ready: programs proven by the canary, workloads looked at once, the source of routes followed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{sync::watch, time::timeout};

use crate::{
    intercept::{
        canary::{Report, Status},
        cgroup::Cgroup,
        pins::Pins,
    },
    route::RouteHandle,
};

/// How long the canary may take to prove interception at start.
const PROOF: Duration = Duration::from_secs(10);

/// Says when the agent is ready and when it is not.
pub struct Ready<'a> {
    pub file: Option<PathBuf>,
    pub routes: RouteHandle,
    pub pins: Option<&'a Pins>,
}

impl Ready<'_> {
    /// Ends only with an error: at start, if interception cannot be proven.
    pub async fn keep(
        &self,
        mut canary_rx: watch::Receiver<Report>,
        mut settled_rx: watch::Receiver<bool>,
        mut lost_rx: watch::Receiver<Option<String>>,
        root: &Cgroup,
    ) -> Result<()> {
        let proven = async {
            loop {
                if canary_rx.borrow_and_update().interception == Status::Live {
                    return;
                }
                if canary_rx.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if timeout(PROOF, proven).await.is_err() {
            let why = match &canary_rx.borrow().interception {
                Status::Dead(why) => why.clone(),
                _ => "the canary gave no answer".to_owned(),
            };
            bail!(
                "interception is not live although the programs are attached to {}: {why}; is this the cgroup v2 tree \
                 of the host, and is no other program overriding connects there?",
                root.dir.display()
            );
        }
        // From the first moment on, connections take the path they will take later.
        if settled_rx.wait_for(|settled| *settled).await.is_err() {
            std::future::pending::<()>().await;
        }
        // Ours are proven: those of another build, which came first until now, may go.
        if let Some(pins) = self.pins {
            pins.retire_others()?;
        }
        let mut was = None;
        loop {
            let live = canary_rx.borrow_and_update().interception == Status::Live;
            let lost = lost_rx.borrow_and_update().is_some();
            let why_not = match (live, lost) {
                (true, false) => None,
                (false, _) => Some("interception is not live"),
                (true, true) => Some("the source of routes is not followed"),
            };
            if was != Some(why_not) {
                self.tell(why_not)?;
                was = Some(why_not);
            }
            tokio::select! {
                Ok(()) = canary_rx.changed() => {}
                // Of a source that cannot be lost, nobody tells.
                Ok(()) = lost_rx.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    fn tell(&self, why_not: Option<&str>) -> Result<()> {
        let version = self.routes.load().version();
        match why_not {
            None => tracing::info!(routes = version, "ready"),
            Some(why) => tracing::warn!("not ready: {why}"),
        }
        let live = why_not.is_none();
        match &self.file {
            Some(file) if live => {
                fs::write(file, format!("{}\n", std::process::id()))
                    .with_context(|| format!("cannot write ready file {}", file.display()))?;
            }
            Some(file) => remove(file),
            None => {}
        }
        Ok(())
    }
}

/// Removes a ready file, if it is there.
pub fn remove(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, file = %file.display(), "cannot remove the ready file");
        }
        _ => {}
    }
}

//! What the controller has said.
use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{Mutex, watch};

use super::kept::{Kept, KeptError};
use crate::{controller::names::Destination, protocol::EnvId};

/// Environments, and where they go.
pub(super) type Table = BTreeMap<EnvId, Destination>;

/// Environments as they are now. Who changes them waits until that is kept.
#[derive(Debug)]
pub(super) struct Envs {
    now: watch::Sender<Arc<Table>>,
    kept: Mutex<Option<Kept>>,
}

impl Envs {
    /// Those that were kept.
    pub(super) fn new(kept: Option<Kept>) -> Result<Self, KeptError> {
        let first = kept.as_ref().map(Kept::read).transpose()?.unwrap_or_default();
        Ok(Self { now: watch::channel(Arc::new(first)).0, kept: Mutex::new(kept) })
    }

    pub(super) fn now(&self) -> Arc<Table> {
        Arc::clone(&self.now.borrow())
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Table>> {
        self.now.subscribe()
    }

    /// Changes them, once that is kept.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Table) + Send) -> Result<(), KeptError> {
        // Locked until it is over: changes are kept in the order in which they are in effect.
        let mut kept = self.kept.lock().await;
        let mut next = Table::clone(&self.now.borrow());
        change(&mut next);
        if next == **self.now.borrow() {
            return Ok(());
        }
        let next = Arc::new(next);
        if let Some(file) = kept.take() {
            let table = Arc::clone(&next);
            let written = tokio::task::spawn_blocking(move || (file.write(&table), file)).await;
            let (written, file) = written.map_err(|_| KeptError::Ending)?;
            *kept = Some(file);
            written?;
        }
        self.now.send_replace(next);
        Ok(())
    }
}

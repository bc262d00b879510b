//! Telling one proxy everything it has to be told, in order.
use std::{sync::Arc, time::Duration};

use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        client::{AskError, Client},
        segment::segment,
        store::{Item, Proxy, Store, StoreError},
    },
    Backoff,
};
use crate::telemetry::chain;

/// Environments set by one request.
const MOST: i64 = 500;

/// Whoever tells one proxy.
pub(super) struct Worker {
    pub store: Arc<Store>,
    pub owner: Arc<str>,
    pub proxy: Proxy,
    pub retry_interval: Duration,
    /// Whether it is news if the proxy does not answer.
    pub says: bool,
    /// Cancelled when nothing more is to be told.
    pub stop: CancellationToken,
}

/// Why the rest was not told.
enum Broken {
    Store(StoreError),
    Push(AskError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Worker {
    /// Says whether nothing is left for this controller to tell the proxy now.
    pub(super) async fn run(&self) -> bool {
        match self.store.claim(&self.proxy, &self.owner).await {
            Ok(true) => {}
            Ok(false) => return true,
            Err(error) => return self.failed(&Broken::Store(error)),
        }
        let told = match self.tell().await {
            Ok(()) => true,
            Err(broken) => self.failed(&broken),
        };
        if let Err(error) = self.store.release(&self.proxy, &self.owner).await {
            // It runs out, or is taken up again by this controller.
            tracing::debug!(error = chain(&error), "a lease is kept");
        }
        if told && !self.says {
            tracing::info!(proxy = self.proxy.0, "the proxy answers again");
        }
        told
    }

    fn failed(&self, broken: &Broken) -> bool {
        let proxy = &self.proxy.0;
        match broken {
            Broken::Store(error) => {
                tracing::debug!(proxy, error = chain(error), "the database fails while a proxy is told");
            }
            Broken::Push(error) if self.says => {
                tracing::warn!(proxy, error = chain(error), "the proxy is not told; it is tried again");
            }
            Broken::Push(error) => tracing::debug!(proxy, error = chain(error), "the proxy is not told yet"),
        }
        false
    }

    async fn tell(&self) -> Result<(), Broken> {
        let mut client = Client::new("");
        // After a refusal: one at a time, so that the others are not refused with it.
        let mut most = MOST;
        loop {
            let Some(work) = self.store.work(&self.proxy, &self.owner, most).await? else { return Ok(()) };
            if work.items.is_empty() {
                return Ok(());
            }
            if !client.is_at(&work.endpoint) {
                client = Client::new(&work.endpoint);
            }
            // Changes of one kind that follow each other: all at once, if the API can.
            let is_put = |item: &&Item| item.destination.is_some();
            for same in work.items.chunk_by(|a, b| is_put(&a) && is_put(&b)) {
                if self.stop.is_cancelled() {
                    return Ok(());
                }
                match send(&mut client, same).await {
                    Ok(()) => {
                        if !self.store.told(&self.proxy, &self.owner, work.read, same).await? {
                            return Ok(());
                        }
                    }
                    Err(AskError::Refused { status, .. }) if status.is_client_error() && same.len() > 1 => {
                        most = 1;
                        break;
                    }
                    Err(error @ AskError::Refused { status, .. }) if status.is_client_error() => {
                        tracing::warn!(
                            proxy = self.proxy.0,
                            error = chain(&error),
                            "the proxy refuses a route"
                        );
                        for item in same {
                            self.store.put_off(&self.proxy, item, self.retry_interval).await?;
                        }
                    }
                    Err(error) => {
                        if matches!(error, AskError::NoAnswer { .. }) {
                            self.doubt(same).await;
                        }
                        return Err(Broken::Push(error));
                    }
                }
            }
        }
    }

    /// Stores that it is not known what the proxy has taken. Nothing else is told before that is stored.
    async fn doubt(&self, items: &[Item]) {
        let mut backoff = Backoff::up_to(self.retry_interval);
        while let Err(error) = self.store.in_doubt(&self.proxy, items).await {
            tracing::debug!(error = chain(&error), "the database fails while a proxy is told");
            sleep(backoff.next()).await;
        }
    }
}

/// One environment of a proxy, as its admin API has it.
#[derive(Serialize)]
struct Env<'a> {
    env_id: &'a str,
    destination: &'a str,
}

async fn send(client: &mut Client, items: &[Item]) -> Result<(), AskError> {
    let envs: Vec<_> = items
        .iter()
        .filter_map(|item| Some(Env { env_id: &item.env, destination: item.destination.as_deref()? }))
        .collect();
    if !envs.is_empty() {
        let body = serde_json::to_vec(&envs).expect("texts");
        client.ask(Method::PUT, "/admin/envs", body).await?;
    }
    for item in items.iter().filter(|item| item.destination.is_none()) {
        match client.ask(Method::DELETE, &format!("/admin/env/{}", segment(&item.env)), vec![]).await {
            // It has none: that is what was wanted.
            Ok(()) | Err(AskError::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

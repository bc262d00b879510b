//! The controller: where routes are told once, and from where they reach the proxies.
//!
//! A drop-in for the PiCoP reference's controller: the same [REST API](api), the same tables in MySQL, or one SQLite file.
//! What is wanted is in the database, and nothing else counts: a change is stored together with a note of what has to be
//! told to which proxy, in one transaction ([`store`]); the notes are worked off per proxy, by whichever controller gets to
//! it, and are removed when the proxy has answered ([`push`]). So nothing that was answered 200 is lost, wherever a
//! controller, a proxy or the database ends.
pub mod api;
pub mod client;
pub mod http;
pub mod names;
pub mod push;
pub mod segment;
pub mod store;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{
    push::Pusher,
    store::{Database, OpenError, Store},
};
use crate::telemetry::chain;

/// What a controller is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it keeps what it is told.
    pub database: Database,
    /// The longest pause between tries to reach a proxy that does not answer.
    pub retry_interval: Duration,
}

/// Why a controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// No database.
    #[error("cannot open the database")]
    Open(#[from] OpenError),
    /// No port.
    #[error("cannot listen at {address}; is another controller running there? (--listen, --port)")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The longest pause between tries to reach a database, once it is clear that it is not there.
const AGAIN: Duration = Duration::from_secs(2);

/// Opens a database. A server that is not there yet is waited for, as the reference's controller does: where both are started
/// together, databases take longer.
async fn opened(database: &Database) -> Result<Store, OpenError> {
    let mut backoff = push::Backoff::up_to(AGAIN);
    let mut is_said = false;
    loop {
        match Store::open(database).await {
            Err(error) if error.is_away() && matches!(database, Database::MySql(_)) => {
                if !is_said {
                    let error = chain(&error);
                    tracing::warn!(%database, error, "the database is not there; it is waited for");
                }
                is_said = true;
                tokio::time::sleep(backoff.next()).await;
            }
            opened => return opened,
        }
    }
}

/// Runs until `stop` is done. Then requests that are being answered, and messages that are under way, are finished. What is
/// left to be told is in the database.
///
/// # Errors
/// When the database is there and cannot be opened, or the port is taken. Other troubles are told in the log and waited out.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), ControllerError> {
    let failed = |source| ControllerError::Listen { address: options.listen, source };
    let listener = crate::listen::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let mut stop = std::pin::pin!(stop);
    let store = tokio::select! {
        store = opened(&options.database) => Arc::new(store?),
        () = &mut stop => return Ok(()),
    };
    let changed = Arc::new(Notify::new());
    let ended = CancellationToken::new();
    let pusher = Pusher::new(Arc::clone(&store), Arc::clone(&changed), options.retry_interval);
    let mut pushing = tokio::spawn(pusher.run(ended.clone()));
    let server = http::Server::start(listener, api::Api { store: Arc::clone(&store), changed });
    tracing::info!(%address, database = %options.database, "the controller answers");
    tokio::select! {
        () = &mut stop => {}
        // Before it is told to, it ends by a panic only. A controller that tells nobody must not look well.
        Err(error) = &mut pushing => {
            if let Ok(panic) = error.try_into_panic() {
                std::panic::resume_unwind(panic);
            }
        }
    }
    server.stop().await;
    ended.cancel();
    if let Err(error) = pushing.await {
        tracing::error!(%error, "proxies were not told to the end");
    }
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

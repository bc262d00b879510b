//! The context of the task that runs.
use std::future::Future;

use tokio::task::JoinHandle;

use crate::protocol::Context;

tokio::task_local! {
    static CURRENT: Option<Context>;
}

/// Runs a future in a context: that of the connection, or of the request, that it serves. None: without any, whatever the
/// context of the caller.
///
/// A task that is spawned in it begins without a context unless it is spawned by [`spawn`], or given one.
pub fn scope<F: Future>(context: Option<Context>, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, future)
}

/// The context of the innermost [`scope`] that this runs in.
pub fn current() -> Option<Context> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}

/// Spawns a task in the context of this one.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(CURRENT.scope(current(), future))
}

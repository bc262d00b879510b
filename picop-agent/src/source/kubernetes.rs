//! Routes from a Kubernetes cluster's objects.
//!
//! The API server is the control plane; nothing else is asked. Services, EndpointSlices, Namespaces, the node's own Pods and
//! picop's own kinds are [followed](follow), cut down to what is [kept](objects), and [built](build) into the table. While the
//! server cannot be reached, what was last seen holds.
//!
//! All of this has a thread and a runtime of its own: large lists take time to parse, and nobody else waits for that.
mod build;
mod client;
pub mod crd;
mod events;
mod follow;
pub mod names;
pub mod objects;
pub mod problem;
mod settle;
pub mod status;
pub mod used;
mod wire;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use self::{
    objects::{Change, Lifetime, Namespace, Pod, Policy, Service, Slice},
    settle::Settler,
    used::Used,
};
use crate::route::{NotInstalled, RouteHandle, RouteTable};

pub use build::{Built, Translation, Variant, build};
pub use client::ClientError;
pub use follow::State;

/// How to reach the cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// A kubeconfig. Without one: `KUBECONFIG`, `~/.kube/config`, or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The node whose pods are routed.
    pub node: String,
    /// The namespace of the Lease by which agents agree on who writes statuses. Without one, this agent writes none.
    pub lease_namespace: Option<String>,
    /// Whether another program may translate cluster IPs before picop sees a connection.
    pub translation: watch::Receiver<bool>,
    /// Which environments this node's connections belong to, to be written with the statuses.
    pub used: watch::Receiver<Used>,
}

/// What is followed, and what became of it.
#[derive(Debug)]
pub(crate) enum Update {
    Services(Change<Service>),
    Slices(Change<Slice>),
    Pods(Change<Pod>),
    Namespaces(Change<Namespace>),
    Environments(Change<Lifetime>),
    Policies(Change<Policy>),
    State(&'static str, State),
}

/// The first table is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cluster is not configured.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no thread.
    #[error("cannot start the thread that follows the cluster")]
    Thread(#[source] std::io::Error),
    /// It ended.
    #[error("the thread that follows the cluster has ended")]
    Gone,
}

/// The cluster as it was first seen: all kinds whole, and in effect nowhere yet.
#[derive(Debug)]
pub struct Opened {
    table: RouteTable,
    source: KubernetesSource,
}

impl Opened {
    /// Its routes.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Whether what is known is what is: none, or why not.
    pub fn lost(&self) -> watch::Receiver<Option<String>> {
        self.source.lost.clone()
    }

    /// Puts its routes in effect; from here on, every change is.
    pub fn put_in_effect(self) -> Result<KubernetesSource, NotInstalled> {
        let Self { table, mut source } = self;
        settle::replace(&source.handle, table)?;
        // A thread that has ended says so elsewhere.
        source.go.take().map(|go| go.send(()));
        Ok(source)
    }
}

/// A cluster that is being followed. Dropped, it is not any more.
#[derive(Debug)]
pub struct KubernetesSource {
    handle: RouteHandle,
    go: Option<oneshot::Sender<()>>,
    asked: mpsc::Sender<()>,
    lost: watch::Receiver<Option<String>>,
}

impl KubernetesSource {
    /// Waits until every kind was seen whole once, however long that takes. Nothing on this node is touched before: what an
    /// agent before this one left pinned holds until then.
    pub async fn open(options: Options, handle: RouteHandle) -> Result<Opened, OpenError> {
        let (first_tx, first_rx) = oneshot::channel();
        let (go_tx, go_rx) = oneshot::channel();
        let (asked_tx, asked_rx) = mpsc::channel(1);
        let (lost_tx, lost_rx) = watch::channel(None);
        let settler = Settler { handle: handle.clone(), lost: lost_tx, asked: asked_rx };
        std::thread::Builder::new()
            .name("picop-kube".into())
            .spawn(move || settle::thread(options, settler, first_tx, go_rx))
            .map_err(OpenError::Thread)?;
        let table = first_rx.await.map_err(|_| OpenError::Gone)??;
        let source = Self { handle, go: Some(go_tx), asked: asked_tx, lost: lost_rx };
        Ok(Opened { table, source })
    }

    /// Follows the cluster until the future is dropped. When `reload` is notified (for SIGHUP), routes that were refused are
    /// tried again.
    pub async fn run(self, reload: Arc<Notify>) {
        loop {
            reload.notified().await;
            if self.asked.send(()).await.is_err() {
                // The thread has ended, which it does only after this; or it has panicked, and said so.
                std::future::pending::<()>().await;
            }
        }
    }
}

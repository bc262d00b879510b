//! Reaching the cluster.
use std::{path::PathBuf, time::Duration};

use kube::{
    Api, Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::{Options, names, objects::Node, wire};

/// How long an answer about the node may take.
const ANSWER: Duration = Duration::from_secs(10);

/// When it is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// The cluster cannot be reached, and never will with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A kubeconfig cannot be used.
    #[error("cannot use kubeconfig {path}")]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error(
        "this is no pod with a service account, and there is no kubeconfig; give --kubeconfig FILE, or route by a file \
         (--routes)"
    )]
    Infer(#[source] Box<InferConfigError>),
    /// The settings make no client.
    #[error("cannot make a client of the cluster's settings")]
    Client(#[source] Box<kube::Error>),
}

/// A client for the calling runtime.
pub(super) async fn connect(options: &Options) -> Result<Client, ClientError> {
    let config = match &options.kubeconfig {
        Some(path) => {
            let failed = |source| ClientError::Kubeconfig { path: path.clone(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::infer().await.map_err(|source| ClientError::Infer(Box::new(source)))?,
    };
    tracing::info!(server = %config.cluster_url, node = options.node, "following the cluster");
    Client::try_from(config).map_err(|source| ClientError::Client(Box::new(source)))
}

/// What is known of this node, as soon as the server answers. Its zone matters only for endpoints that say which zones they
/// are for.
pub(super) async fn node(client: &Client, name: &str) -> Node {
    let api = Api::<wire::Node>::all(client.clone());
    let zone = loop {
        match tokio::time::timeout(ANSWER, api.get(name)).await {
            Ok(Ok(node)) => break node.metadata.labels.and_then(|mut labels| labels.remove(names::ZONE)),
            // It may not ask, or there is no such node: asking again would not help.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => {
                let error = &status.message;
                tracing::warn!(error, "the node's zone is not known: endpoints of all zones are used alike");
                break None;
            }
            // Whoever follows the other kinds says what is wrong.
            Ok(Err(_)) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    Node { name: name.to_owned(), zone }
}

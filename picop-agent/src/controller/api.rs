//! The REST API: that of the reference's controller, and whether this one is well.
mod body;
mod path;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header,
};
use tokio::sync::Notify;

use self::path::Resource;
use super::{
    http::{Answer, Answers, BodyError, line, whole},
    store::{Store, StoreError},
};
use crate::telemetry::chain;

/// Whoever answers.
#[derive(Debug, Clone)]
pub struct Api {
    /// What is wanted.
    pub store: Arc<Store>,
    /// Told of each change.
    pub changed: Arc<Notify>,
}

/// Why a request is not done. Nothing of it is stored then.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(
        "there is no such resource; there are /proxy/ID/register, /proxy/ID/activate, /proxy/ID and /routes"
    )]
    NoResource,
    #[error("the method is not one of {0}")]
    Method(&'static str),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Path(#[from] path::BadPath),
    #[error(transparent)]
    Content(#[from] body::BadBody),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refusal {
    fn answer(&self) -> Answer {
        match self {
            Self::NoResource => line(StatusCode::NOT_FOUND, self),
            Self::Method(allowed) => {
                let mut answer = line(StatusCode::METHOD_NOT_ALLOWED, self);
                answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
                answer
            }
            Self::Body(error) => line(error.status(), error),
            Self::Path(_) | Self::Content(_) | Self::Store(StoreError::UnknownProxy(_)) => {
                line(StatusCode::BAD_REQUEST, self)
            }
            Self::Store(error @ StoreError::Database(_)) => {
                tracing::error!(error = chain(error), "a request cannot be done");
                // What the database says is for the log.
                line(StatusCode::SERVICE_UNAVAILABLE, "the database fails; ask again later")
            }
        }
    }
}

impl Answers for Api {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        self.answered(request).await
    }
}

impl Api {
    /// Does what a request asks for. When this is answered 200, it is stored.
    pub async fn answered<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self.done(request).await {
            Ok(()) => Response::new(Full::default()),
            Err(refusal) => refusal.answer(),
        }
    }

    async fn done<B>(&self, request: Request<B>) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let resource = Resource::at(request.uri().path()).ok_or(Refusal::NoResource)?;
        if !resource.takes(request.method()) {
            return Err(Refusal::Method(resource.methods()));
        }
        let is_delete = *request.method() == Method::DELETE;
        match resource {
            Resource::Health => return Ok(()),
            Resource::Ready => return Ok(self.store.ping().await?),
            Resource::Register(id) => {
                let proxy = id.decoded()?;
                let endpoint = body::endpoint(&whole(request.into_body()).await?)?;
                self.store.register(&proxy, &endpoint).await?;
            }
            Resource::Activate(id) => self.store.activate(&id.decoded()?).await?,
            Resource::Proxy(id) => self.store.remove(&id.decoded()?).await?,
            Resource::Routes if is_delete => {
                self.store.delete_routes(&body::keys(&whole(request.into_body()).await?)?).await?;
            }
            Resource::Routes => {
                self.store.put_routes(&body::routes(&whole(request.into_body()).await?)?).await?;
            }
        }
        self.changed.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The REST API: that of the reference's controller, and whether this one is well.
mod body;
mod path;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Body, header};
use tokio::{sync::Notify, time::timeout};

use self::path::Resource;
use super::store::{Store, StoreError};
use crate::telemetry::chain;

/// The largest body of a request, in bytes: 100,000 routes and more.
const MOST: usize = 16 << 20;

/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is answered: nothing but a status if it is good, and a reason if it is not.
pub type Answer = Response<Full<Bytes>>;

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
    #[error("the body is larger than {MOST} bytes; send the routes in several requests")]
    TooLarge,
    #[error("the body did not come within {PATIENCE:?}")]
    TooSlow,
    #[error("the body cannot be read: {0}")]
    Body(String),
    #[error(transparent)]
    Path(#[from] path::BadPath),
    #[error(transparent)]
    Content(#[from] body::BadBody),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoResource => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Store(StoreError::Database(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body(_) | Self::Path(_) | Self::Content(_) | Self::Store(StoreError::UnknownProxy(_)) => {
                StatusCode::BAD_REQUEST
            }
        }
    }

    fn answer(&self) -> Answer {
        let text = match self {
            Self::Store(error @ StoreError::Database(_)) => {
                tracing::error!(error = chain(error), "a request cannot be done");
                // What the database says is for the log.
                "the database fails; ask again later\n".to_owned()
            }
            other => format!("{other}\n"),
        };
        let mut answer = Response::new(Full::from(text));
        *answer.status_mut() = self.status();
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Self::Method(allowed) = self {
            headers.insert(header::ALLOW, header::HeaderValue::from_static(allowed));
        }
        answer
    }
}

impl Api {
    /// Does what a request asks for. When this is answered 200, it is stored.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer
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

async fn whole<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match timeout(PATIENCE, Limited::new(body, MOST).collect()).await {
        Err(_) => Err(Refusal::TooSlow),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(error)) => Err(Refusal::Body(error.to_string())),
    }
}

#[cfg(test)]
mod tests;

//! Bodies of requests and answers.
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Response, StatusCode, body::Body, header};
use tokio::time::timeout;

/// The largest body of a request, in bytes: 100,000 routes and more.
pub const MOST: usize = 16 << 20;

/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is answered: often nothing but a status if it is good, and a reason if it is not.
pub type Answer = Response<Full<Bytes>>;

/// Why a body is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is too large.
    #[error("the body is larger than {MOST} bytes; send the routes in several requests")]
    TooLarge,
    /// It takes too long.
    #[error("the body did not come within {PATIENCE:?}")]
    TooSlow,
    /// The client is gone, or does not speak HTTP.
    #[error("the body cannot be read: {0}")]
    Unreadable(String),
}

impl BodyError {
    /// What to answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unreadable(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body to its end.
///
/// # Errors
/// When it is too large, too slow, or ends before its end.
pub async fn whole<B>(body: B) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match timeout(PATIENCE, Limited::new(body, MOST).collect()).await {
        Err(_) => Err(BodyError::TooSlow),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(error)) => Err(BodyError::Unreadable(error.to_string())),
    }
}

/// An answer of a line of text.
pub fn line(status: StatusCode, text: impl std::fmt::Display) -> Answer {
    let mut answer = Response::new(Full::from(format!("{text}\n")));
    *answer.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

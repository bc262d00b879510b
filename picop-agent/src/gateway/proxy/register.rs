//! Registering at a controller, so that it tells destinations.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming, header::CONTENT_TYPE};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    gateway::{
        GatewayError,
        ask::{AskError, Asked, destination},
    },
    telemetry::chain,
};

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait after a first failure, which doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// As much of a reason is repeated.
const REASON: usize = 1024;

/// What is to be registered where.
#[derive(Clone, Debug)]
pub struct Registration {
    controller: Uri,
    id: String,
    /// As the controller is told, if somebody said.
    endpoint: Option<Uri>,
    admin_port: u16,
}

/// An attempt failed.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("the controller cannot be reached")]
    Ask(#[from] AskError),
    #[error("the controller did not answer within {PATIENCE:?}")]
    Late,
    #[error("the controller does not {what}: {status} {reason}")]
    Refused { what: &'static str, status: StatusCode, reason: String },
}

impl Registration {
    /// None without a controller.
    pub fn new(
        controller: Option<Uri>,
        id: Option<String>,
        endpoint: Option<Uri>,
        admin_port: u16,
    ) -> Result<Option<Self>, GatewayError> {
        let Some((controller, id)) = controller.zip(id) else { return Ok(None) };
        let is_url = |option, url: &Uri| {
            destination(url).map_err(|_| GatewayError::Url { option, url: url.to_string() })
        };
        is_url("--controller-url", &controller)?;
        if let Some(endpoint) = &endpoint {
            is_url("--endpoint", endpoint)?;
        }
        Ok(Some(Self { controller, id, endpoint, admin_port }))
    }

    /// Tries until it has succeeded.
    pub async fn keep_trying(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            let tried = timeout(PATIENCE, self.register()).await.unwrap_or(Err(RegisterError::Late));
            let (id, controller) = (&self.id, &self.controller);
            match tried {
                Ok(endpoint) => return tracing::info!(id, %controller, endpoint, "registered"),
                Err(error) => {
                    tracing::warn!(id, %controller, error = chain(&error), again_in = ?wait, "not registered");
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Registers, and then activates: all destinations come, and every change from then on. The endpoint that was told.
    async fn register(&self) -> Result<String, RegisterError> {
        let mut asked = Asked::connect(&self.controller, &[], PATIENCE).await?;
        let own = SocketAddr::new(asked.local.ip().to_canonical(), self.admin_port);
        let endpoint = self.endpoint.as_ref().map_or_else(|| format!("http://{own}"), Uri::to_string);
        // A URL without a path has one in `Uri`'s eyes.
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let body = json!({ "endpoint": endpoint }).to_string();
        self.put(&mut asked, "register", body).await?;
        self.put(&mut asked, "activate", String::new()).await?;
        Ok(endpoint)
    }

    async fn put(&self, asked: &mut Asked, what: &'static str, body: String) -> Result<(), RegisterError> {
        let base = self.controller.to_string();
        let url = format!("{}/proxy/{}/{what}", base.trim_end_matches('/'), path_segment(&self.id));
        let mut request = Request::builder().method(Method::PUT).uri(url);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a checked URL and an escaped name");
        let answer = asked.ask(request).await?;
        let status = answer.status();
        let reason = reason(answer).await;
        if status.is_success() { Ok(()) } else { Err(RegisterError::Refused { what, status, reason }) }
    }
}

/// The body, as far as it can be read: also so that the connection can be used again.
async fn reason(answer: Response<Incoming>) -> String {
    match Limited::new(answer.into_body(), REASON).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    }
}

/// A name as one segment of a path.
fn path_segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push('%');
            segment.extend([byte >> 4, byte & 15].map(hex_digit));
        }
    }
    segment
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

#[cfg(test)]
mod tests;

//! Making itself known to a controller, so that it tells destinations.
//!
//! As the reference's proxies do, this one asks to be activated until it is; who registers it, and at which address, is the
//! operator's business. Were it to register itself unasked, the operator's address would be lost, and with the operator's next
//! registration its activation.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming, header::CONTENT_TYPE};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    gateway::{
        GatewayError,
        args::Place,
        ask::{AskError, Asked, destination},
    },
    telemetry::chain,
};

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait after a first failure, which doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Up to this, which is how often the reference's proxies try.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Where the controller is, if nobody says otherwise: as for the reference's proxies.
const CONTROLLER: &str = "http://localhost:8080";
/// As much of a reason is repeated.
const REASON: usize = 1024;

/// What is to be registered where.
#[derive(Clone, Debug)]
pub struct Registration {
    controller: Uri,
    id: String,
    /// What the controller is told; nothing if somebody else tells it.
    endpoint: Option<Place>,
    admin_port: u16,
}

/// An attempt failed.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("the controller cannot be reached")]
    Ask(#[from] AskError),
    #[error("the controller did not answer within {PATIENCE:?}")]
    Late,
    #[error("the controller does not {what}: {status} {reason}{hint}")]
    Refused { what: &'static str, status: StatusCode, reason: String, hint: &'static str },
}

impl Registration {
    /// None without a name.
    pub fn new(
        controller: Option<Uri>,
        id: Option<String>,
        endpoint: Option<Place>,
        admin_port: u16,
    ) -> Result<Option<Self>, GatewayError> {
        let Some(id) = id else { return Ok(None) };
        let controller = controller.unwrap_or_else(|| Uri::from_static(CONTROLLER));
        let is_url = |option, url: &Uri| {
            destination(url).map_err(|_| GatewayError::Url { option, url: url.to_string() })
        };
        is_url("--controller-url", &controller)?;
        if let Some(Place::At(endpoint)) = &endpoint {
            is_url("--endpoint", endpoint)?;
        }
        Ok(Some(Self { controller, id, endpoint, admin_port }))
    }

    /// Tries until it has succeeded.
    pub async fn keep_trying(&self) {
        let (mut wait, mut last) = (FIRST_WAIT, String::new());
        loop {
            let tried = timeout(PATIENCE, self.tried()).await.unwrap_or(Err(RegisterError::Late));
            let (id, controller) = (&self.id, &self.controller);
            match tried {
                Ok(endpoint) => return tracing::info!(id, %controller, endpoint, "activated"),
                Err(error) => {
                    let error = chain(&error);
                    // What was said already is hardly worth a line every two seconds.
                    if error == last {
                        tracing::debug!(id, %controller, error, "not activated yet");
                    } else {
                        tracing::warn!(id, %controller, error, "not activated; trying again");
                    }
                    last = error;
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Registers, if that is to be done here, and activates: all destinations come, and every change from then on. The
    /// endpoint that was told.
    async fn tried(&self) -> Result<Option<String>, RegisterError> {
        let mut asked = Asked::connect(&self.controller, &[], PATIENCE).await?;
        let endpoint = self.endpoint.as_ref().map(|place| match place {
            Place::Own => {
                format!("http://{}", SocketAddr::new(asked.local.ip().to_canonical(), self.admin_port))
            }
            // A URL without a path has one in `Uri`'s eyes.
            Place::At(url) => url.to_string().trim_end_matches('/').to_owned(),
        });
        if let Some(endpoint) = &endpoint {
            self.put(&mut asked, "register", json!({ "endpoint": endpoint }).to_string()).await?;
        }
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
        if status.is_success() {
            return Ok(());
        }
        let hint = match self.endpoint {
            Some(_) => "",
            None => " (is this proxy registered there? --endpoint has it register itself)",
        };
        Err(RegisterError::Refused { what, status, reason, hint })
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

//! Being known to the controller.
use std::time::Duration;

use hyper::Method;
use tokio::{sync::watch, time::sleep};

use crate::{
    controller::{
        client::{AskError, Client},
        names::{Endpoint, ProxyId},
        push::Backoff,
        segment::segment,
    },
    telemetry::chain,
};

/// The longest pause between tries to reach the controller.
const RETRY: Duration = Duration::from_secs(10);

/// How often the agent makes itself known again. The controller tells it everything then: one that has lost its database, or
/// whose operator has removed the agent, is found out by this.
const AGAIN: Duration = Duration::from_secs(300);

/// Who the agent is, and to whom.
#[derive(Debug)]
pub(super) struct Presence {
    pub url: Endpoint,
    pub id: ProxyId,
    pub endpoint: Option<Endpoint>,
    pub port: u16,
    pub lost: watch::Sender<Option<String>>,
}

impl Presence {
    /// Makes the agent known, again and again.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::up_to(RETRY);
        loop {
            match self.register().await {
                Ok(endpoint) => {
                    let new = self.lost.send_if_modified(|lost| lost.take().is_some());
                    if new {
                        tracing::info!(controller = %self.url, id = %self.id, endpoint, "the controller knows this agent");
                    }
                    backoff = Backoff::up_to(RETRY);
                    sleep(AGAIN).await;
                }
                Err(error) => {
                    let why = chain(&error);
                    self.lost.send_if_modified(|lost| {
                        let news = lost.as_ref() != Some(&why);
                        if news {
                            tracing::warn!(controller = %self.url, error = why, "the controller is not reached; trying again");
                        }
                        *lost = Some(why);
                        news
                    });
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Says where the agent is, and that it listens.
    async fn register(&self) -> Result<String, AskError> {
        let mut client = Client::new(self.url.as_str());
        let endpoint = if let Some(endpoint) = &self.endpoint {
            endpoint.to_string()
        } else {
            let mut at = client.local().await?;
            at.set_port(self.port);
            format!("http://{at}")
        };
        let body = serde_json::json!({"endpoint": endpoint}).to_string().into_bytes();
        let path = format!("/proxy/{}", segment(self.id.as_str()));
        client.ask(Method::PUT, &format!("{path}/register"), body).await?;
        client.ask(Method::PUT, &format!("{path}/activate"), vec![]).await?;
        Ok(endpoint)
    }
}

//! `picop gateway tcp`: an environment for every connection that names none.

use std::sync::Arc;

use super::{
    GatewayError, Life,
    args::TcpArgs,
    connection::{self, Route, Router, Rules},
    life::{announce, listen_everywhere},
    pump::DEFAULT_BUFFER,
};
use crate::protocol::{Context, Dropped, EnvId, EnvSource};

/// Sends everything to one destination, in one environment unless it has another.
#[derive(Debug)]
struct Marker {
    environment: EnvId,
    own: Context,
    destination: Arc<str>,
}

impl Marker {
    fn new(environment: EnvId, destination: &str) -> Self {
        Self { own: Context::for_env(&environment), environment, destination: destination.into() }
    }
}

impl Router for Marker {
    fn route(&self, context: Option<&Context>) -> Route {
        let named = context.and_then(|context| context.env());
        let (header, dropped) = match context {
            Some(context) if named.is_some() => (context.clone(), Dropped::default()),
            // What else it says, such as where it stands in a trace, is kept as far as there is room.
            Some(context) => context.with_env(&self.environment),
            None => (self.own.clone(), Dropped::default()),
        };
        let (environment, env_source, told) = match named {
            Some((env, source)) => (env, source_name(source), "propagate"),
            None => (&self.environment, "gateway", "added"),
        };
        Route {
            destination: Some(Arc::clone(&self.destination)),
            environment: Some(environment.clone()),
            env_source,
            reason: "only_destination",
            header: Some(header),
            told,
            dropped: dropped.baggage + dropped.tracestate + dropped.lines,
        }
    }
}

/// The name for access lines.
pub fn source_name(source: EnvSource) -> &'static str {
    match source {
        EnvSource::Header => "header",
        EnvSource::Baggage => "baggage",
    }
}

/// Begins to listen; returns at once.
///
/// # Errors
/// When the port is not to be had.
pub async fn start(args: TcpArgs, life: &Life) -> Result<(), GatewayError> {
    let listener = listen_everywhere(args.port).await?;
    announce("connections", &listener);
    let marker = Arc::new(Marker::new(args.env_id, &args.destination));
    let rules = Rules {
        expect: args.expect_header,
        header_timeout: args.common.header_timeout,
        connect_timeout: args.common.connect_timeout,
        buffer: DEFAULT_BUFFER,
    };
    let serving = life.clone();
    life.accept(listener, args.common.max_connections, |_| {
        let (marker, serving) = (Arc::clone(&marker), serving.clone());
        move |client, peer| connection::serve(Arc::clone(&marker), rules, serving.clone(), client, peer)
    })
}

#[cfg(test)]
mod tests;

//! Log lines: what they look like, and which of them there are, which can be changed while the agent runs.

use std::{
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
};

use clap::ValueEnum;
use tracing_subscriber::{
    EnvFilter, Registry, filter::ParseError, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes what is logged. A clone changes the same.
#[derive(Clone, Debug)]
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    filter: Arc<Mutex<String>>,
}

/// A filter was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is none.
    #[error("{filter:?} is no filter; one is such as `info`, or `info,picop_agent::relay=debug,access=off`")]
    Parse {
        /// What was given.
        filter: String,
        /// Why not.
        #[source]
        source: ParseError,
    },
    /// The log is gone: the agent is at its end.
    #[error("the agent does not log any more")]
    Gone(#[from] reload::Error),
}

/// Starts logging to standard error. `filter` is in tracing's syntax (`info`, `picop_agent::relay=debug,access=off`).
pub fn init(format: LogFormat, filter: &str) -> Result<LogControl, LogError> {
    let (layer, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(layer);
    match format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(io::stderr().is_terminal())
                    .with_writer(io::stderr),
            )
            .init(),
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr))
            .init(),
    }
    Ok(LogControl { handle, filter: Arc::new(Mutex::new(filter.to_owned())) })
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|source| LogError::Parse { filter: filter.to_owned(), source })
}

impl LogControl {
    /// The filter in effect.
    pub fn filter(&self) -> String {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in effect, and returns the last one.
    pub fn set(&self, filter: &str) -> Result<String, LogError> {
        let parsed = parse(filter)?;
        let mut current = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(parsed)?;
        Ok(std::mem::replace(&mut current, filter.to_owned()))
    }
}

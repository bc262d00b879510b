//! What the agent tells: logs, the one line per connection, connections as they are now, and events as they happen.

pub mod access;
pub mod events;
pub mod hub;
pub mod live;
pub mod logs;
pub mod metrics;
pub mod spans;

use std::{error::Error, fmt::Write as _};

/// An error with all its causes, on one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors say their cause in their own text.
        let next = error.to_string();
        if !text.contains(&next) {
            write!(text, ": {next}").expect("writing to a string");
        }
        cause = error.source();
    }
    text
}

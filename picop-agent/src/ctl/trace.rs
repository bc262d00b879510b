//! `picop trace`.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;

use super::{client, print, table::bytes};
use crate::{cli::ask::TraceArgs, telemetry::events::Event};

/// A line of the agent's.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Event(Box<Event>),
    Missed { missed: u64 },
    Listening { listening: bool },
}

/// Shows decisions as they are made.
pub fn trace(args: &TraceArgs) -> Result<()> {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut failure = None;
    client(&args.ask)?.lines("/v1/trace", |text| {
        match shown(args, text) {
            Ok(Some((line, is_event))) => {
                if let Err(error) = print(&line) {
                    failure = Some(error);
                    return false;
                }
                left -= u64::from(is_event);
            }
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
        left > 0 && failure.is_none()
    })?;
    failure.map_or(Ok(()), Err)
}

/// What to print of a line, and whether it is an event.
fn shown(args: &TraceArgs, text: &[u8]) -> Result<Option<(String, bool)>> {
    let line: Line = serde_json::from_slice(text)?;
    let raw = || format!("{}\n", String::from_utf8_lossy(text));
    Ok(match line {
        Line::Event(event) if !fits(args, &event) => None,
        Line::Event(_) if args.ask.json => Some((raw(), true)),
        Line::Event(event) => Some((render(&event), true)),
        Line::Missed { .. } | Line::Listening { .. } if args.ask.json => Some((raw(), false)),
        Line::Missed { missed } => {
            Some((format!("({missed} missed: they came faster than they were read)\n"), false))
        }
        Line::Listening { listening } => {
            debug_assert!(listening, "it never says otherwise");
            None
        }
    })
}

fn fits(args: &TraceArgs, event: &Event) -> bool {
    let environment = args.env.as_deref();
    environment.is_none_or(|wanted| event.environment.as_deref().unwrap_or("-") == wanted)
        && args.service.as_ref().is_none_or(|wanted| event.service.as_ref() == Some(wanted))
        && args.workload.as_ref().is_none_or(|part| event.workload.contains(part))
}

fn render(it: &Event) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut line = format!(
        "{} {:<6} {:<11} {} -> {} env={} {} backend={} header={}",
        clock(it.at_us),
        it.what,
        it.path,
        it.workload,
        it.service.clone().unwrap_or_else(|| or_dash(&it.original)),
        or_dash(&it.environment),
        or_dash(&it.reason),
        or_dash(&it.backend),
        it.header,
    );
    if let Some(outcome) = &it.outcome {
        write!(
            line,
            " {outcome} up={} down={} {}us",
            bytes(it.bytes_up.unwrap_or_default()),
            bytes(it.bytes_down.unwrap_or_default()),
            it.duration_us.unwrap_or_default()
        )
        .expect("writing to a string");
    }
    if let Some(error) = &it.error {
        write!(line, " ({error})").expect("writing to a string");
    }
    line.push('\n');
    line
}

/// The time of day, UTC.
fn clock(at_us: u64) -> String {
    let seconds = at_us / 1_000_000 % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, at_us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        assert_eq!(clock(1_700_000_000_123_456), "22:13:20.123456");
    }

    #[test]
    fn lines_are_told_apart() {
        let event = serde_json::to_vec(&Event { what: "routed".into(), ..Event::default() }).unwrap();
        assert!(matches!(serde_json::from_slice(&event).unwrap(), Line::Event(_)));
        assert!(matches!(serde_json::from_slice(b"{\"missed\":3}").unwrap(), Line::Missed { missed: 3 }));
        assert!(matches!(serde_json::from_slice(b"{\"listening\":true}").unwrap(), Line::Listening { .. }));
    }
}

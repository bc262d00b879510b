//! Whether what both ends and the agent say may be.

use serde_json::Value;
use testbed::stream::StreamReport;

use super::plan::{Plan, Wanted};

/// What is wrong, if anything.
pub fn judge(
    plan: &Plan,
    client: &StreamReport,
    server: &StreamReport,
    line: &Value,
) -> Result<(), &'static str> {
    bytes(client)?;
    bytes(server)?;
    for (plan, end) in [(&plan.client, client), (&plan.server, server)] {
        // Such an end has left the sockmap before its first read.
        if plan.mode == "sequential" && plan.finish == "fin" && end.out_of_turn > 0 {
            return Err("a blocking read answered EAGAIN");
        }
    }
    let relayed = line["bytes_up"] == server.received && line["bytes_down"] == client.received;
    let (leaver, stayer) = if plan.by_client { (client, server) } else { (server, client) };
    match plan.wanted {
        Wanted::Whole if !client.ok || !server.ok => Err("an end did not get everything"),
        Wanted::Whole if line["outcome"] != "ok" => Err("the agent calls it a failure"),
        Wanted::Whole if !relayed => Err("the agent counted other bytes"),
        Wanted::Delivered => delivered(leaver, stayer),
        // The agent may not have got as far as the server.
        Wanted::Reset | Wanted::Cut if plan.by_client && is_unmade(stayer) => Ok(()),
        Wanted::Reset if stayer.error.is_none() => Err("nobody told of a reset"),
        Wanted::Cut if stayer.error.is_none() && stayer.received != leaver.sent => {
            Err("an end of stream before the last byte")
        }
        _ => Ok(()),
    }
}

/// One end has closed after its last write; the other must have got all of it.
pub fn delivered(leaver: &StreamReport, stayer: &StreamReport) -> Result<(), &'static str> {
    bytes(leaver)?;
    bytes(stayer)?;
    if leaver.ok && stayer.ok { Ok(()) } else { Err("not all was delivered that was sent before the close") }
}

/// What holds for each end, however the connection ends: no wrong byte, and nobody waits for ever.
pub fn bytes(end: &StreamReport) -> Result<(), &'static str> {
    match end.error.as_deref().map(|error| error.split([' ', '(']).next().unwrap_or(error)) {
        Some("Mismatch") => Err("a wrong byte"),
        Some("TooMuch") => Err("more bytes than were sent"),
        Some("Stalled") => Err("no progress"),
        _ => Ok(()),
    }
}

fn is_unmade(end: &StreamReport) -> bool {
    end.error.as_deref().is_some_and(|error| error.starts_with("NoConnection"))
}

//! `picop status`: what the kernel has counted and holds, read from the pins, with or without an agent.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::{
    admin::client::Client,
    cli::StatusArgs,
    intercept::{
        maps::Maps,
        pins::{self, Set},
        snapshot::{Messages, Named, Snapshot, summary},
    },
    telemetry::chain,
};

/// With `--json`, this object.
#[derive(Clone, Debug, Serialize)]
struct Status {
    /// picop's version.
    version: &'static str,
    /// What a running agent says of itself.
    agent: Option<serde_json::Value>,
    /// What is pinned: a set for each build and cgroup.
    sets: Vec<SetStatus>,
}

#[derive(Clone, Debug, Serialize)]
struct SetStatus {
    /// Where it is pinned.
    dir: PathBuf,
    /// The id of the cgroup it is attached to: its inode number.
    cgroup_id: u64,
    /// Whether it is of this build of picop. What is in the maps of another one is not known here.
    same_build: bool,
    /// Whether connections are routed by it: its connect hooks are there.
    routes_connections: bool,
    /// What its maps say.
    #[serde(flatten)]
    snapshot: Option<Snapshot>,
}

/// Reads and prints it.
pub fn run(args: &StatusArgs) -> Result<()> {
    let sets = pins::sets(&args.pin_dir)?;
    let agent = Client::connect(&args.admin_socket).and_then(|mut client| client.get("/v1/status"));
    if sets.is_empty()
        && let Err(error) = &agent
    {
        bail!("nothing is pinned in {}, and {}", args.pin_dir.display(), chain(error));
    }
    let sets = sets.into_iter().map(SetStatus::of).collect::<Result<_>>()?;
    let status = Status { version: env!("CARGO_PKG_VERSION"), agent: agent.ok(), sets };
    if args.json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", render(&status));
    }
    Ok(())
}

impl SetStatus {
    fn of(mut set: Set) -> Result<Self> {
        let same_build = set.is_of_this_build();
        let snapshot = same_build.then(|| Snapshot::of(&Maps::take(&mut set)?)).transpose()?;
        Ok(Self {
            same_build,
            snapshot,
            routes_connections: set.routes_connections(),
            cgroup_id: set.cgroup(),
            dir: set.dir().to_owned(),
        })
    }
}

/// For people.
fn render(status: &Status) -> String {
    let mut out = status.agent.as_ref().map(agent_lines).unwrap_or_default();
    for set in &status.sets {
        if !out.is_empty() {
            out.push('\n');
        }
        set_lines(&mut out, set).expect("writing to a string");
    }
    out
}

/// What the agent says of itself, a line for each part.
fn agent_lines(agent: &serde_json::Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        writeln!(out, "  {name:<12} {text}").expect("writing to a string");
    };
    let plain = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (routes, of) = (&agent["routes"], |name: &str| plain(&agent[name]));
    line("agent", format!("picop {}, process {}, up {} s", of("version"), of("pid"), of("uptime_s")));
    line("attached to", of("attached_to"));
    line("interception", of("interception"));
    line("injection", of("injection"));
    let part = |name: &str| plain(&routes[name]);
    line(
        "routes",
        format!(
            "version {}, {} services, {} environments, read {} s ago, {} updates refused",
            part("version"),
            part("services"),
            part("environments"),
            part("age_s"),
            part("rejected")
        ),
    );
    if let Some(error) = routes["last_error"].as_str() {
        line("", format!("the last update was refused: {error}"));
    }
    line("workloads", format!("{} managed, {} pending", of("workloads_managed"), of("workloads_pending")));
    line("relayed", format!("{} open", of("relayed_now")));
    out
}

fn set_lines(out: &mut String, set: &SetStatus) -> std::fmt::Result {
    writeln!(out, "{}", set.dir.display())?;
    let hooks =
        if set.routes_connections { "route connections" } else { "only serve connections routed before" };
    writeln!(out, "  programs     {hooks} of cgroup {}", set.cgroup_id)?;
    let Some(snapshot) = &set.snapshot else {
        return writeln!(out, "  of another build of picop, which alone can read its maps");
    };
    let Snapshot { agent, heartbeat_age_ms, flags, enrolled_now, entries, grafted, connections, events } =
        snapshot;
    write!(out, "  agent        {}", agent.as_str())?;
    match heartbeat_age_ms {
        Some(age) => writeln!(out, ", heartbeat {age} ms ago")?,
        None => writeln!(out)?,
    }
    writeln!(out, "  flags        {}", if flags.is_empty() { "-".to_owned() } else { flags.join(", ") })?;
    let routes = entries.routes.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    writeln!(out, "  sockets      {enrolled_now} enrolled")?;
    writeln!(
        out,
        "  entries      routes {routes}, workloads {}, headers {}, originals {}, unhealthy {}, flows {}, grafts {}",
        entries.workloads,
        entries.headers,
        entries.originals,
        entries.unhealthy,
        entries.flows,
        entries.grafts
    )?;
    for (title, way, of) in [("grafted", "up", &grafted.up), ("", "down", &grafted.down)] {
        let Messages { redirected_bytes, redirected, passed_bytes, passed } = of;
        write!(
            out,
            "  {title:<12} {way:<4} {redirected_bytes} bytes in {redirected} messages; {passed_bytes} passed to the agent"
        )?;
        let why = summary(passed);
        if why.is_empty() { writeln!(out)? } else { writeln!(out, ": {why}")? }
    }
    counts(out, "connections", connections)?;
    counts(out, "events", events)
}

/// A line for each that is not 0.
fn counts<N: Named>(out: &mut String, title: &str, counts: &[(N, u64)]) -> std::fmt::Result {
    let counted = counts.iter().filter(|(_, count)| *count > 0);
    let width = counted.clone().map(|(what, _)| what.name().len()).max().unwrap_or(0);
    let mut title = title;
    for (what, count) in counted {
        writeln!(out, "  {title:<12} {:<width$} {count:>12}", what.name())?;
        title = "";
    }
    if width == 0 {
        writeln!(out, "  {title:<12} none")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use picop_common::{
        connect::{Event, Reason},
        graft::Why,
    };

    use super::*;
    use crate::intercept::{
        maps::Entries,
        snapshot::{Agent, Grafted},
    };

    fn set(snapshot: Option<Snapshot>) -> SetStatus {
        let dir = PathBuf::from("/pins/7-0000000000000001");
        SetStatus { dir, cgroup_id: 7, same_build: snapshot.is_some(), routes_connections: true, snapshot }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            agent: Agent::Alive,
            heartbeat_age_ms: Some(12),
            flags: vec!["inject"],
            enrolled_now: 1,
            entries: Entries {
                routes: Some(5),
                workloads: 2,
                headers: 1,
                originals: 0,
                unhealthy: 0,
                flows: 4,
                grafts: 3,
            },
            grafted: Grafted {
                up: Messages {
                    redirected_bytes: 4096,
                    redirected: 2,
                    passed_bytes: 100,
                    passed: vec![(Why::NotOn, 1), (Why::Unsettled, 0)],
                },
                down: Messages::default(),
            },
            connections: vec![(Reason::NotManaged, 0), (Reason::Variant, 1_000_000)],
            events: vec![(Event::Enrolled, 0)],
        }
    }

    #[test]
    fn for_people() {
        let sets = vec![set(Some(snapshot())), set(None)];
        let expected = "\
/pins/7-0000000000000001
  programs     route connections of cgroup 7
  agent        alive, heartbeat 12 ms ago
  flags        inject
  sockets      1 enrolled
  entries      routes 5, workloads 2, headers 1, originals 0, unhealthy 0, flows 4, grafts 3
  grafted      up   4096 bytes in 2 messages; 100 passed to the agent: not_on=1
               down 0 bytes in 0 messages; 0 passed to the agent
  connections  variant      1000000
  events       none

/pins/7-0000000000000001
  programs     route connections of cgroup 7
  of another build of picop, which alone can read its maps
";
        assert_eq!(render(&Status { version: "1", agent: None, sets }), expected);
    }

    #[test]
    fn for_programs() {
        let value =
            serde_json::to_value(Status { version: "1", agent: None, sets: vec![set(Some(snapshot()))] })
                .unwrap();
        let set = &value["sets"][0];
        assert_eq!(set["agent"], "alive");
        assert_eq!(set["connections"]["not_managed"], 0);
        assert_eq!(set["connections"]["variant"], 1_000_000);
        assert_eq!(set["entries"]["routes"], 5);
        assert_eq!(set["grafted"]["up"]["passed"]["not_on"], 1);
        assert_eq!(set["same_build"], true);
    }
}

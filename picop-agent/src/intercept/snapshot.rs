//! What the kernel's maps say at one moment. Read through the agent's own maps or through its pins, so it is there also
//! when no agent is.

use std::fmt::Write as _;

use picop_common::{
    connect::{Event, HEARTBEAT_STALE_NS, Reason},
    graft::Why,
    maps::{AGENT_FULL, AGENT_GRAFT, AGENT_GRAFT_AUTO, AGENT_INJECT, AGENT_REVERSE, AGENT_TELL},
};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    grafts::Counts,
    heartbeat,
    maps::{Entries, Maps, MapsError},
};

/// The state of one set of programs.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Whether an agent is behind the programs.
    pub agent: Agent,
    /// How old its last heartbeat is, in milliseconds; none when it ended in order, or has yet to begin.
    pub heartbeat_age_ms: Option<u64>,
    /// What the hooks may do at present, by name: `AGENT_*` of `picop_common::maps`.
    pub flags: Vec<&'static str>,
    /// Sockets in `SOCKS`: between their handshake and the acknowledgement of their header.
    pub enrolled_now: usize,
    /// What the other maps hold.
    pub entries: Entries,
    /// What became of the messages of grafted connections, since the programs were loaded.
    pub grafted: Grafted,
    /// Connections by reason since the programs were loaded. The canary's are among them.
    #[serde(serialize_with = "by_name")]
    pub connections: Vec<(Reason, u64)>,
    /// What happened to connections later, since the programs were loaded. The canary's are among them.
    #[serde(serialize_with = "by_name")]
    pub events: Vec<(Event, u64)>,
}

/// Messages of grafted connections, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grafted {
    /// From clients to servers.
    pub up: Messages,
    /// From servers to clients.
    pub down: Messages,
}

/// Of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// Bytes that the kernel carried past the agent.
    pub redirected_bytes: u64,
    /// Messages they came in.
    pub redirected: u64,
    /// Bytes that were passed to the agent.
    pub passed_bytes: u64,
    /// Messages passed, by reason.
    #[serde(serialize_with = "by_name")]
    pub passed: Vec<(Why, u64)>,
}

impl From<Counts> for Messages {
    fn from(counts: Counts) -> Self {
        Self {
            redirected_bytes: counts.redirected,
            redirected: counts.redirects,
            passed_bytes: counts.passed,
            passed: Why::ALL.iter().copied().zip(counts.passes).collect(),
        }
    }
}

/// What the heartbeat says of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// It beat within the last second: connections may be relayed.
    Alive,
    /// It did not end in order, and does not beat: killed, or hanging.
    Stale,
    /// It has ended in order, or has yet to begin.
    Ended,
}

impl Agent {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Stale => "stale",
            Self::Ended => "ended",
        }
    }

    fn of(beat_ns: u64, now_ns: u64) -> (Self, Option<u64>) {
        let age = now_ns.saturating_sub(beat_ns);
        match beat_ns {
            0 => (Self::Ended, None),
            _ if age <= HEARTBEAT_STALE_NS => (Self::Alive, Some(age / 1_000_000)),
            _ => (Self::Stale, Some(age / 1_000_000)),
        }
    }
}

impl Snapshot {
    /// Reads it. Not all at once: what happens meanwhile may be in one part and not yet in another.
    pub fn of(maps: &Maps) -> Result<Self, MapsError> {
        let (agent, heartbeat_age_ms) = Agent::of(maps.last_beat()?, heartbeat::now_ns());
        Ok(Self {
            agent,
            heartbeat_age_ms,
            flags: flags(maps.agent_flags()),
            enrolled_now: maps.enrolled(),
            entries: maps.entries(),
            grafted: {
                let (up, down) = maps.grafts.totals();
                Grafted { up: up.into(), down: down.into() }
            },
            connections: maps.counters()?,
            events: maps.events()?,
        })
    }
}

fn flags(bits: u32) -> Vec<&'static str> {
    let names = [
        (AGENT_INJECT, "inject"),
        (AGENT_REVERSE, "reverse"),
        (AGENT_FULL, "full"),
        (AGENT_TELL, "tell"),
        (AGENT_GRAFT, "graft"),
        (AGENT_GRAFT_AUTO, "graft_auto"),
    ];
    names.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect()
}

/// Something that is counted under a name.
pub trait Named: Copy {
    /// The name in logs and metrics.
    fn name(self) -> &'static str;
}

impl Named for Reason {
    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Named for Why {
    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Named for Event {
    fn name(self) -> &'static str {
        self.as_str()
    }
}

/// Counts on one line, those that are not 0.
pub fn summary<N: Named>(counts: &[(N, u64)]) -> String {
    counts.iter().filter(|(_, count)| *count > 0).fold(String::new(), |mut text, (what, count)| {
        let blank = if text.is_empty() { "" } else { " " };
        write!(text, "{blank}{}={count}", what.name()).expect("writing to a string");
        text
    })
}

fn by_name<S: Serializer, N: Named>(counts: &[(N, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(counts.len()))?;
    for (what, count) in counts {
        map.serialize_entry(what.name(), count)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_heartbeat_says() {
        const MS: u64 = 1_000_000;
        for (beat, now, expected) in [
            (0, 5 * MS, (Agent::Ended, None)),
            (5 * MS, 5 * MS, (Agent::Alive, Some(0))),
            (5 * MS, 1005 * MS, (Agent::Alive, Some(1000))),
            (5 * MS, 1006 * MS, (Agent::Stale, Some(1001))),
            // It beat between the reading of the clock and of the map.
            (6 * MS, 5 * MS, (Agent::Alive, Some(0))),
        ] {
            assert_eq!(Agent::of(beat, now), expected, "{beat} {now}");
        }
    }

    #[test]
    fn counts_on_a_line() {
        let counts = [(Event::Enrolled, 2), (Event::Injected, 0), (Event::Unenrolled, 1)];
        assert_eq!(summary(&counts), "enrolled=2 unenrolled=1");
        assert_eq!(summary::<Event>(&[]), "");
        assert_eq!(flags(AGENT_TELL | AGENT_INJECT), ["inject", "tell"]);
    }
}

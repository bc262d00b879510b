//! What one check says.

use serde::Serialize;

/// What was found, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// There, but less than it should be.
    Degraded,
    /// Could not be found out.
    Unknown,
    /// Not there, or not working.
    Missing,
}

impl Verdict {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Missing => "missing",
        }
    }
}

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Feature {
    /// Connections of workloads reach the agent.
    #[serde(rename = "interception")]
    Interception,
    /// The agent relays them.
    #[serde(rename = "relay")]
    Relay,
    /// Connections go straight to their backend, with a header pushed by the kernel.
    #[serde(rename = "direct path")]
    DirectPath,
    /// The kernel moves relayed payload past the agent.
    #[serde(rename = "graft")]
    Graft,
    /// Programs stay attached while the agent restarts.
    #[serde(rename = "pinning")]
    Pinning,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Interception, Self::Relay, Self::DirectPath, Self::Graft, Self::Pinning];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interception => "interception",
            Self::Relay => "relay",
            Self::DirectPath => "direct path",
            Self::Graft => "graft",
            Self::Pinning => "pinning",
        }
    }
}

/// What a check looks at, whatever it finds.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// For programs.
    pub id: &'static str,
    /// For people.
    pub what: &'static str,
    /// What it is for.
    pub features: &'static [Feature],
    /// Whether `picop run` cannot do without.
    pub required: bool,
    /// What follows when it is not [`Verdict::Ok`].
    pub consequence: &'static str,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What follows, where that depends on what was seen.
    pub consequence: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { verdict, detail: detail.into(), consequence: None }
    }

    /// As it should be.
    pub fn ok(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, detail)
    }

    /// Less than it should be.
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Degraded, detail)
    }

    /// Not to be found out.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, detail)
    }

    /// Not there, or not working.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Missing, detail)
    }

    /// Replaces the consequence of the [`Spec`].
    #[must_use]
    pub fn so(mut self, consequence: impl Into<String>) -> Self {
        self.consequence = Some(consequence.into());
        self
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// For programs.
    pub id: &'static str,
    /// For people.
    pub what: &'static str,
    /// What it is for.
    #[serde(rename = "for")]
    pub features: &'static [Feature],
    /// Whether `picop run` cannot do without.
    pub required: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What follows; none when all is well.
    pub consequence: Option<String>,
}

impl Spec {
    /// The check with what was found.
    pub fn found(&self, finding: Finding) -> Check {
        let Self { id, what, features, required, consequence } = *self;
        let Finding { verdict, detail, consequence: own } = finding;
        let consequence = own.unwrap_or_else(|| consequence.to_owned());
        let consequence = match verdict {
            Verdict::Ok => None,
            Verdict::Degraded | Verdict::Missing => Some(consequence),
            Verdict::Unknown => Some(format!("if it is missing: {consequence}")),
        };
        Check { id, what, features, required, verdict, detail, consequence }
    }
}

impl Check {
    /// Whether the agent cannot run because of it. What could not be found out counts as broken.
    pub fn blocks(&self) -> bool {
        self.required && matches!(self.verdict, Verdict::Missing | Verdict::Unknown)
    }
}

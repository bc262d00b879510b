//! What `hop soak-client` is told, and what it says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::pod::Pod;
use crate::process::Proc;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closes first.
    Client,
    /// The server closes first.
    Server,
    /// The client resets.
    Reset,
    /// The client says nothing at all, and closes.
    Silent,
}

impl End {
    /// That of a connection's number: most by the client in order, a quarter by the server, some of each of the others.
    pub fn of(number: u64) -> Self {
        match number % 32 {
            5 => Self::Silent,
            0 | 8 | 16 | 24 => Self::Reset,
            n if n % 4 == 3 => Self::Server,
            _ => Self::Client,
        }
    }
}

/// Connections to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How many, in all.
    pub count: u64,
    /// By so many threads.
    pub threads: usize,
    /// Where to, in turn.
    pub targets: Vec<Target>,
}

/// Where to connect to, and what is to come of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The address.
    pub to: SocketAddr,
    /// By an IPv6 socket, to the v4-mapped address.
    pub mapped: bool,
    /// The number of the server that is to answer.
    pub server: u16,
    /// What the server is to be sent ahead of the request, in hexadecimal.
    pub header: String,
}

/// How far a client is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Whether this is its last word.
    pub ended: bool,
    /// Connections of which everything was right.
    pub done: u64,
    /// Those of them whose server was to be sent a header, and was.
    pub with_header: u64,
    /// Those of them that were to begin with a header, and ended without a word.
    pub silent: u64,
    /// Connections of which something was wrong.
    pub failed: u64,
    /// What, of the first ones.
    pub errors: Vec<String>,
}

impl Plan {
    /// What comes of it when everything is right.
    pub fn expected(&self) -> Progress {
        let mut expected = Progress { ended: true, ..Progress::default() };
        for number in 0..self.count {
            expected.count(number, self.target(number));
        }
        expected
    }

    /// Where a connection goes.
    fn target(&self, number: u64) -> &Target {
        // Their numbers and those of the ways to end have no common divisor: each target meets all.
        let count = self.targets.len() as u64;
        &self.targets[usize::try_from(number % count).expect("less than a usize")]
    }
}

impl Progress {
    /// Counts a connection that was right.
    fn count(&mut self, number: u64, target: &Target) {
        self.done += 1;
        if !target.header.is_empty() {
            match End::of(number) {
                End::Silent => self.silent += 1,
                End::Client | End::Server | End::Reset => self.with_header += 1,
            }
        }
    }

    /// Adds another client's.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.done += other.done;
        self.with_header += other.with_header;
        self.silent += other.silent;
        self.failed += other.failed;
        self.errors.extend(other.errors.iter().cloned());
        self
    }
}

/// A running `hop soak-client`.
#[derive(Debug)]
pub struct SoakClient {
    proc: Proc,
}

impl SoakClient {
    /// Starts one in a pod.
    pub fn start(pod: &Pod, plan: &Plan) -> Result<Self> {
        let command = pod.hop(["soak-client", "--plan", &serde_json::to_string(plan)?])?;
        Ok(Self { proc: pod.spawn("soak-client", command)? })
    }

    /// What it said last.
    ///
    /// # Errors
    /// When it has ended without a last word.
    pub fn progress(&mut self) -> Result<Progress> {
        let ended = self.proc.try_wait()?;
        let text = self.proc.stdout();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole.lines().last().map(serde_json::from_str::<Progress>).transpose();
        let last = last.with_context(|| format!("not a soak client's words: {whole}"))?.unwrap_or_default();
        match ended {
            Some(status) if !last.ended => {
                bail!("a client ended ({status}) without a last word: {}", self.proc.stderr())
            }
            _ => Ok(last),
        }
    }

    /// Waits for its end, which its last word announced.
    pub fn wait(mut self, deadline: Duration) -> Result<()> {
        self.proc.wait(deadline).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_connections_end_in_order() {
        let ends: Vec<_> = (0..320).map(End::of).collect();
        let count = |end| ends.iter().filter(|e| **e == end).count();
        let counts = [End::Client, End::Server, End::Reset, End::Silent].map(count);
        assert_eq!(counts, [190, 80, 40, 10]);
    }

    #[test]
    fn what_is_expected() {
        let target = |header: &str| Target {
            to: "10.96.0.1:80".parse().unwrap(),
            mapped: false,
            server: 1,
            header: header.to_owned(),
        };
        let targets = vec![target("00"), target(""), target("00")];
        let expected = Plan { count: 96, threads: 1, targets }.expected();
        // Numbers 5, 37 and 69 are silent; of every three the second has no header: so has 37 (37 = 12 * 3 + 1).
        assert_eq!((expected.done, expected.with_header, expected.silent), (96, 62, 2));
    }
}

//! What can be wrong with a route file.
use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_saphyr::Location;

use crate::{
    protocol::{EnvId, EnvIdError, OwnContextError, ParseExpectError},
    route::{CgroupPatternError, TableError, Weight},
};

/// Why a route file was refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read.
    #[error("cannot read the route file {}: {source}; check that it is there and that picop may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{} is not a regular file; name a YAML file with routes", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// Larger than any sensible file.
    #[error("the route file {} has more than {limit} bytes; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// Its content is no good. Displays one problem a line.
    #[error("{}", Lines { path, problems, more: *more })]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in the order of the file.
        problems: Vec<Problem>,
        /// How many further problems are not listed.
        more: usize,
    },
    /// Its parts are good, but do not fit together.
    #[error("{}: {source}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TableError,
    },
}

impl FileError {
    /// The kind of error, when it is about the file and not about its content.
    pub(super) fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Read { source, .. } => Some(source.kind()),
            Self::NotAFile { .. } => Some(io::ErrorKind::InvalidInput),
            Self::TooLarge { .. } => Some(io::ErrorKind::FileTooLarge),
            Self::Content { .. } | Self::Table { .. } => None,
        }
    }
}

struct Lines<'a> {
    path: &'a Path,
    problems: &'a [Problem],
    more: usize,
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{problem}", self.path.display())?;
        }
        if self.more > 0 {
            write!(f, "\n{}: and {} more", self.path.display(), self.more)?;
        }
        Ok(())
    }
}

/// One thing that is wrong, and where. Displays as `line:column: reason`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; 0 when it is about the file as a whole.
    pub line: u64,
    /// The character in it, from 1.
    pub column: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl Problem {
    pub(super) fn new(at: Location, fault: Fault) -> Self {
        Self { line: at.line(), column: at.column(), fault }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, " {}", self.fault),
            line => write!(f, "{line}:{}: {}", self.column, self.fault),
        }
    }
}

/// What is wrong with a part of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing in it: most likely caught while being written.
    #[error("the file is empty; for no routes at all write `services: []`")]
    EmptyFile,
    /// Not text.
    #[error("here begins something that is not UTF-8; save the file as UTF-8")]
    NotUtf8,
    /// Not YAML, or a value of the wrong type.
    #[error("{0}")]
    Yaml(String),
    /// Something else where a list should be, also nothing.
    #[error("a list is expected here: [a, b], or lines that start with `- `; [] is an empty one")]
    NotAList,
    /// Something else where keys should be, also nothing.
    #[error("keys and values are expected here: `key: value`, one a line; {{}} means none")]
    NotAMapping,
    /// Something else where a single word should be.
    #[error("one word is expected here")]
    NotAWord,
    /// A key that means nothing.
    #[error("unknown key {key:?}; known here: {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Those that may be there.
        known: String,
    },
    /// A key that must be there.
    #[error("the key {key:?} is missing")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A key that is there twice.
    #[error("the key {key:?} is there already; merge the two")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Another word than those known.
    #[error("{found:?} is not one of: {known}")]
    UnknownWord {
        /// The word.
        found: String,
        /// Those that may be there.
        known: String,
    },
    /// A service with no name, or one that would break a log line.
    #[error(
        "a service's name must not be empty, start or end with a space, or contain a control character: it appears in log lines"
    )]
    Name,
    /// Two services of one name.
    #[error("the service on line {line} is named {name:?} too; rename one")]
    NameTaken {
        /// The name.
        name: String,
        /// Where the first one is.
        line: u64,
    },
    /// No address clients could connect to.
    #[error("a service needs at least one address")]
    NoAddress,
    /// Not an address.
    #[error("{text:?} {why}")]
    Address {
        /// What is there.
        text: String,
        /// Why it is none.
        #[source]
        why: AddressError,
    },
    /// Two services at one address.
    #[error("{address} is an address of service {service:?} on line {line} already; remove it from one")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
        /// Whose it is.
        service: String,
        /// Where it is first.
        line: u64,
    },
    /// A backend that is the service.
    #[error(
        "{address} is the service's own address, so connections would go round in circles; name the servers behind it, or \
         leave `base` out to mean the address itself"
    )]
    OwnAddress {
        /// The address.
        address: SocketAddr,
    },
    /// One backend twice.
    #[error("{address} is in this list on line {line} already; remove one")]
    EndpointTwice {
        /// The address.
        address: SocketAddr,
        /// Where it is first.
        line: u64,
    },
    /// Not a weight.
    #[error(
        "{text:?} is no weight; a weight is a whole number from 0 (drained: no connections) to {}, and 1 where none is said",
        Weight::MAX
    )]
    Weight {
        /// What is there.
        text: String,
    },
    /// A base that leads nowhere.
    #[error("the base has no endpoint; leave `base` out to mean the service's address itself")]
    EmptyBase,
    /// Not the name of an environment.
    #[error("{0}")]
    Environment(#[source] EnvIdError),
    /// One environment twice (the same name, differently written).
    #[error("environment {environment} has a variant here already; merge the two")]
    VariantTwice {
        /// The environment.
        environment: EnvId,
    },
    /// Not a way to expect a header.
    #[error("{0}")]
    ExpectHeader(#[source] ParseExpectError),
    /// Not a cgroup's path, nor a glob.
    #[error("{text:?}: {why}")]
    Cgroup {
        /// What is there.
        text: String,
        /// Why it is none.
        #[source]
        why: CgroupPatternError,
    },
    /// An entry that can never match.
    #[error("the workload on line {line} has this cgroup too, and the first one wins; remove one")]
    CgroupTwice {
        /// Where the first one is.
        line: u64,
    },
    /// An entry that changes nothing.
    #[error(
        "this workload has no environment, so nothing of it would be routed; say which with `environment: NAME`, or \
         `context: header` if it sends the header itself, or `bypass: true` to leave it alone"
    )]
    NothingSaid,
    /// A workload's own keys make no header.
    #[error("{0}")]
    Keys(#[source] OwnContextError),
    /// A limit of zero.
    #[error(
        "no connection at all could be relayed; write `bypass: true` to leave the workload's connections alone"
    )]
    NoConnections,
    /// The agent's working directory should not matter.
    #[error("the path of a network namespace must be absolute, for example /run/netns/NAME")]
    RelativeNetns,
}

/// Why a text is no usable address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// An address alone.
    #[error("has no port; write IP:port, for example 10.96.0.10:80 or [fd00::10]:80")]
    NoPort,
    /// A port that does not exist.
    #[error("has no valid port; a port is a number from 1 to 65535")]
    Port,
    /// A host name.
    #[error("is not an IP address and port; names are not resolved, write 10.96.0.10:80 or [fd00::10]:80")]
    NotAnIp,
    /// `%eth0`.
    #[error("has a zone, which means something on one host only; use an address that needs none")]
    Zone,
    /// 0.0.0.0, a group, everybody.
    #[error("is not the address of one host")]
    NotAHost,
}

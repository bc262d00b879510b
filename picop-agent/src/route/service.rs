//! A service: an address clients connect to, and the backends behind it.
use std::{
    collections::HashMap,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoints::Endpoints;
use crate::protocol::{EnvId, ExpectHeader};

/// Whether a server is told the context of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderPolicy {
    /// The server gets no header: it would choke on it. Databases, unmodified servers.
    #[default]
    Strip,
    /// The server, or its library, reads the header.
    Propagate,
}

/// Who sends the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpeaksFirst {
    /// The client, with a request: a header can wait for it.
    #[default]
    Client,
    /// The server, with a greeting (MySQL, SMTP, ...): a server that is to be told the context must be told at once. The
    /// agent does that, so such connections are relayed.
    Server,
}

/// Whether the payload of relayed connections is carried past the agent, by the kernel, once they are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GraftPolicy {
    /// Where no application can tell on this node's kernel (see `picop doctor`), and for connections that carry enough.
    #[default]
    Auto,
    /// Wherever the kernel can. On many kernels an application that asks how many bytes wait (FIONREAD) is told 0
    /// meanwhile, and a read that blocks in one thread while another writes may fail with EAGAIN.
    Always,
    /// Nowhere.
    Never,
}

/// What becomes of a connection whose variant exists but has no endpoint that could take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// It goes to the base, as if there were no variant.
    #[default]
    Base,
    /// It is refused: for services whose base must not see an environment's traffic.
    Refuse,
    /// It waits until the variant has one, and is refused if that takes too long (`--variant-wait`): for variants that are
    /// just being rolled out.
    Wait,
}

/// Which of several endpoints a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balancing {
    /// Any, by their weights.
    #[default]
    Weighted,
    /// Always the same for one client (workload), as long as that one is there; clients are spread by the weights.
    Client,
}

/// A service's default backends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Base {
    /// The address the client asked for: what would happen without picop.
    #[default]
    Itself,
    /// These instead.
    Endpoints(Endpoints),
}

/// A service: addresses clients connect to, and what is behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name in logs and metrics; unique in a table.
    pub name: String,
    /// Where clients connect; each belongs to one service of a table.
    pub addresses: Vec<SocketAddr>,
    /// Whether its servers are told the context.
    pub header: HeaderPolicy,
    /// The backends of whoever belongs to no environment, or to one with no variant of this service.
    pub base: Base,
    /// Where a connection to it may be going already when picop sees it, besides its base's endpoints, because another
    /// program has translated its address: a socket load-balancer on the same cgroup.
    pub translated: Vec<SocketAddr>,
    /// The backends per environment. An entry with no endpoint, or with drained ones only, is a variant that has nothing
    /// ready.
    pub variants: HashMap<EnvId, Endpoints>,
    /// What to do about such an entry.
    pub fallback: Fallback,
    /// Whether clients start with a header of their own.
    pub expect_header: ExpectHeader,
    /// Who sends the first bytes. Matters where the server is to be told the context.
    pub speaks_first: SpeaksFirst,
    /// Whether relayed connections are grafted.
    pub graft: GraftPolicy,
    /// Which of its endpoints connections get.
    pub balancing: Balancing,
    /// How long its relayed connections may take.
    pub timeouts: Timeouts,
}

/// How long relayed connections of a service may take, where it is not as long as those of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// For one endpoint to accept a connection.
    pub connect: Option<Duration>,
    /// For a variant to have something ready ([`Fallback::Wait`]).
    pub variant_wait: Option<Duration>,
}

impl Service {
    /// A service with nothing but an address: its base is itself, everything else default.
    pub fn new(name: impl Into<String>, addresses: Vec<SocketAddr>) -> Self {
        Self {
            name: name.into(),
            addresses,
            header: HeaderPolicy::default(),
            base: Base::default(),
            translated: Vec::new(),
            variants: HashMap::new(),
            fallback: Fallback::default(),
            expect_header: ExpectHeader::default(),
            speaks_first: SpeaksFirst::default(),
            graft: GraftPolicy::default(),
            balancing: Balancing::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// Its backends in `environment`, if it has a variant there.
    pub fn variant(&self, environment: &EnvId) -> Option<&Endpoints> {
        self.variants.get(environment)
    }
}

/// The same address with `::ffff:a.b.c.d` (what dual-stack sockets use) as the `a.b.c.d` it means.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddrV4::new(v4, v6.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// What a table is asked by: as [`unmapped`], and without the flow label and zone that a socket may add.
pub(super) fn key(address: SocketAddr) -> SocketAddr {
    match unmapped(address) {
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
        v4 @ SocketAddr::V4(_) => v4,
    }
}

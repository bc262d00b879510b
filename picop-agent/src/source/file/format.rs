//! What a route file may say: the types it is read into, and the JSON Schema of them.
//!
//! Scalars stay text here and are checked in [`super::check`], so that all of a file's problems can be reported at once,
//! each at its place. The descriptions are what an editor shows to whoever writes a file.
use std::{borrow::Cow, collections::BTreeMap, fmt, num::NonZeroU32, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_saphyr::{Location, Spanned};

use crate::{
    protocol::{EnvId, ExpectHeader},
    route::{Balancing, ContextSource, Fallback, GraftPolicy, HeaderPolicy, PathChoice, SpeaksFirst, Weight},
};

/// The services whose connections picop routes by environment, and the workloads it does that for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "picop routes")]
pub(super) struct RoutesFile {
    /// The services that are routed. Connections to any other address are left alone.
    pub services: Vec<At<ServiceEntry>>,
    /// The cgroups whose connections are routed; the first entry that matches a cgroup describes it. All others are left
    /// alone.
    #[serde(default)]
    pub workloads: Vec<At<WorkloadEntry>>,
}

/// A service: addresses that clients connect to, and the backends behind them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Service")]
pub(super) struct ServiceEntry {
    /// The name in logs and metrics; no two services share one.
    #[schemars(length(min = 1))]
    pub name: At<String>,
    /// Where clients connect, for example a Kubernetes ClusterIP and port. No two services share one.
    #[schemars(length(min = 1))]
    pub addresses: At<Vec<At<Address>>>,
    /// Whether the servers are sent the PiCoP header: `propagate` when they (or their library) read it, `strip` when they
    /// would choke on it.
    #[serde(default)]
    pub header: HeaderPolicy,
    /// Whether clients of this service begin their connections with a header. Asked only of workloads with
    /// `context: header`.
    #[serde(default)]
    pub expect_header: Option<At<Expectation>>,
    /// Who sends the first bytes: `server` for MySQL, SMTP and the like. Matters only with `header: propagate`, where such a
    /// server must get the header at once.
    #[serde(default)]
    pub speaks_first: SpeaksFirst,
    /// Whether the payload of relayed connections is carried past the agent, by the kernel, once they are under way: `auto`
    /// where no application can tell, `always` wherever the kernel can, `never` nowhere.
    #[serde(default)]
    pub graft: GraftPolicy,
    /// Where connections of an environment go when its variant has no endpoint: to the base, or nowhere.
    #[serde(default)]
    pub fallback: Fallback,
    /// Which of several endpoints a connection gets: any by their weights (`weighted`), or always the same for one client,
    /// clients being spread by the weights (`client`).
    #[serde(default)]
    pub balancing: Balancing,
    /// The default backends. Left out: the address the client asked for.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub base: Option<At<Vec<At<EndpointEntry>>>>,
    /// The backends per environment. An empty list, or one of weights of 0, is a variant that has nothing ready: see
    /// `fallback`.
    #[serde(default)]
    pub variants: BTreeMap<At<Environment>, Vec<At<EndpointEntry>>>,
}

/// Cgroups whose processes' connections are routed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Workload")]
pub(super) struct WorkloadEntry {
    /// A cgroup's path below the cgroup v2 mount, or a glob (`*` and `?` stay within one level, `**` is any number of
    /// levels). Processes in cgroups below it belong to it too.
    #[schemars(length(min = 1))]
    pub cgroup: At<String>,
    /// The environment that all connections belong to, unless a header says otherwise.
    #[serde(default)]
    pub environment: Option<At<Environment>>,
    /// Further keys and values that its connections carry, beside the environment, to services with `header: propagate`.
    /// With the environment's name they must fit into 255 bytes.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub keys: Option<At<BTreeMap<String, String>>>,
    /// `header` when the application is instrumented and begins connections with a PiCoP header.
    #[serde(default)]
    pub context: ContextSource,
    /// `relay` sends all connections to services through the agent, which then counts their bytes and logs their end; `auto`
    /// lets the kernel route by itself what it can.
    #[serde(default)]
    pub path: PathChoice,
    /// The file of the workload's network namespace, for example /run/netns/NAME. Left out: that of the first process in the
    /// cgroup.
    #[serde(default)]
    #[schemars(with = "Option<PathBuf>")]
    pub netns: Option<At<PathBuf>>,
    /// Leave the connections alone, at once: to find out whether picop is to blame.
    #[serde(default)]
    pub bypass: bool,
    /// Most connections relayed at the same time. Left out: the agent's own limit.
    #[serde(default)]
    #[schemars(with = "Option<NonZeroU32>")]
    pub max_connections: Option<At<u32>>,
}

/// A value and where it is in the file. Compares by value.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub at: Location,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An alias is reported where it is used: that is the line to look at first.
        Spanned::<T>::deserialize(deserializer).map(|it| Self { value: it.value, at: it.referenced })
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: PartialOrd> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value.cmp(&other.value)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// `IP:port`, not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Address(pub String);

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address and a port: 10.96.0.10:80 or [fd00::10]:80. Names are not resolved.",
            "pattern": r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$",
        })
    }
}

/// A backend: an address, or an address with a weight.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Endpoint", untagged)]
pub(super) enum EndpointEntry {
    Plain(Address),
    Weighted(WeightedEntry),
}

/// An address with a weight.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WeightedEndpoint")]
pub(super) struct WeightedEntry {
    /// Where to connect.
    pub address: At<Address>,
    /// What share of the connections it gets: its weight by the sum of all in the list. 0 drains it: it gets none, not even
    /// when the others fail. An address without a weight has 1.
    #[serde(default = "unsaid")]
    #[schemars(with = "u32", range(max = Weight::MAX), default = "one")]
    pub weight: At<WeightText>,
}

fn one() -> u32 {
    Weight::ONE.get()
}

/// Not an option: `weight:` with nothing behind it is a mistake.
fn unsaid() -> At<WeightText> {
    At { value: WeightText(one().to_string()), at: Location::UNKNOWN }
}

/// A [`Weight`], not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct WeightText(pub String);

impl<'de> Deserialize<'de> for EndpointEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EndpointVisitor)
    }
}

fn plain(text: &impl ToString) -> EndpointEntry {
    EndpointEntry::Plain(Address(text.to_string()))
}

/// What is no text but a number, say, is an address that will be refused as one.
struct EndpointVisitor;

impl<'de> Visitor<'de> for EndpointVisitor {
    type Value = EndpointEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IP:port, or {address: IP:port, weight: NUMBER}")
    }

    fn visit_str<E>(self, text: &str) -> Result<EndpointEntry, E> {
        Ok(plain(&text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<EndpointEntry, E> {
        Ok(plain(&value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<EndpointEntry, E> {
        Ok(plain(&value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<EndpointEntry, E> {
        Ok(plain(&value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<EndpointEntry, E> {
        Ok(plain(&value))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EndpointEntry, A::Error> {
        WeightedEntry::deserialize(MapAccessDeserializer::new(map)).map(EndpointEntry::Weighted)
    }
}

/// An environment's name, not checked yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub(super) struct Environment(pub String);

impl JsonSchema for Environment {
    fn schema_name() -> Cow<'static, str> {
        EnvId::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        EnvId::json_schema(generator)
    }
}

/// An [`ExpectHeader`], not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Expectation(pub String);

impl JsonSchema for Expectation {
    fn schema_name() -> Cow<'static, str> {
        ExpectHeader::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ExpectHeader::json_schema(generator)
    }
}

/// The JSON Schema of a route file, as `manifests/routes.schema.json` has it.
pub fn schema() -> String {
    let mut text =
        serde_json::to_string_pretty(&schemars::schema_for!(RoutesFile)).expect("a schema is plain JSON");
    text.push('\n');
    text
}

//! From the text of a route file to a table: every value checked, every problem at its place.
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::SocketAddr,
    path::Path,
};

use serde_saphyr::{Error as YamlError, Location, MessageFormatter as _, UserMessageFormatter};

use super::{
    address,
    format::{
        Address, At, EndpointEntry, Environment, Expectation, RoutesFile, ServiceEntry, WeightText,
        WorkloadEntry,
    },
    problem::{Fault, FileError, Problem},
};
use crate::{
    protocol::{Context, EnvId, ExpectHeader},
    route::{
        Base, CgroupPattern, ContextSource, Endpoints, RouteTable, Service, Timeouts, Weight,
        WeightedEndpoint, WorkloadSpec,
    },
};

/// Most problems told at once; a file that is wrong all over is wrong in the same way.
const MAX_PROBLEMS: usize = 20;

/// Reads a table from the text of the file at `path`.
pub(super) fn table(text: &str, path: &Path) -> Result<RouteTable, FileError> {
    let content = |mut problems: Vec<Problem>| {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        FileError::Content { path: path.to_owned(), problems, more }
    };
    let file = parse(text).map_err(|problem| content(vec![problem]))?;
    let mut check = Check::default();
    let services = file.services.iter().map(|entry| check.service(entry)).collect();
    let workloads = file.workloads.iter().filter_map(|entry| check.workload(entry)).collect();
    if !check.problems.is_empty() {
        return Err(content(check.problems));
    }
    RouteTable::new(services, workloads).map_err(|source| FileError::Table { path: path.to_owned(), source })
}

fn parse(text: &str) -> Result<RoutesFile, Problem> {
    if text.trim().is_empty() {
        return Err(Problem { line: 0, column: 0, fault: Fault::EmptyFile });
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        Problem::new(error.location().unwrap_or(Location::UNKNOWN), shape(error.without_snippet()))
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // Room for a file of 100,000 variants. Aliases expand into no more than that either.
        budget: serde_saphyr::budget! {
            max_events: 4_000_000,
            max_nodes: 2_000_000,
            max_documents: 1,
            max_depth: 32,
            max_anchors: 10_000,
            max_aliases: 10_000,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// Says a parser's error in the words of the rest of the messages.
fn shape(error: &YamlError) -> Fault {
    match error {
        YamlError::AliasError { error, .. } => shape(error),
        YamlError::SerdeUnknownField { field, expected, .. } => {
            Fault::UnknownKey { key: field.clone(), known: expected.join(", ") }
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            Fault::UnknownWord { found: variant.clone(), known: expected.join(", ") }
        }
        YamlError::SerdeMissingField { field, .. } => Fault::MissingKey { key: field },
        YamlError::DuplicateMappingKey { key, .. } => {
            Fault::DuplicateKey { key: key.clone().unwrap_or_default() }
        }
        YamlError::Unexpected { expected: "sequence start", .. } => Fault::NotAList,
        YamlError::Unexpected { expected: "mapping start", .. } => Fault::NotAMapping,
        YamlError::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => Fault::NotAWord,
        // It may quote the file.
        other => Fault::Yaml(UserMessageFormatter.format_message(other).replace(char::is_control, " ")),
    }
}

/// What was seen of a file so far.
#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
    /// Service names, and their lines.
    names: HashMap<String, u64>,
    /// Service addresses; whose they are, and on which lines.
    addresses: HashMap<SocketAddr, (String, u64)>,
    /// Workloads' cgroups, and their lines.
    cgroups: HashMap<String, u64>,
}

impl Check {
    fn fault(&mut self, at: Location, fault: Fault) {
        self.problems.push(Problem::new(at, fault));
    }

    /// The service of an entry; a value that has a problem is left out of it.
    fn service(&mut self, entry: &At<ServiceEntry>) -> Service {
        let ServiceEntry {
            name,
            addresses,
            header,
            expect_header,
            speaks_first,
            graft,
            fallback,
            balancing,
            base,
            variants,
        } = &entry.value;
        self.name(name);
        let own = self.own_addresses(&name.value, addresses);
        let base = base.as_ref().map_or(Base::Itself, |list| {
            if list.value.is_empty() {
                self.fault(list.at, Fault::EmptyBase);
            }
            Base::Endpoints(self.endpoints(&list.value, &own))
        });
        let variants = self.variants(variants, &own);
        let expect_header =
            expect_header.as_ref().and_then(|text| self.expect_header(text)).unwrap_or_default();
        Service {
            name: name.value.clone(),
            addresses: own,
            header: *header,
            base,
            variants,
            fallback: *fallback,
            expect_header,
            speaks_first: *speaks_first,
            graft: *graft,
            translated: Vec::new(),
            balancing: *balancing,
            timeouts: Timeouts::default(),
        }
    }

    fn name(&mut self, name: &At<String>) {
        let At { value: text, at } = name;
        if text.is_empty() || text.trim() != text || text.contains(char::is_control) {
            self.fault(*at, Fault::Name);
            return;
        }
        match self.names.entry(text.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(at.line());
            }
            Entry::Occupied(first) => {
                let line = *first.get();
                self.fault(*at, Fault::NameTaken { name: text.clone(), line });
            }
        }
    }

    fn own_addresses(&mut self, service: &str, list: &At<Vec<At<Address>>>) -> Vec<SocketAddr> {
        if list.value.is_empty() {
            self.fault(list.at, Fault::NoAddress);
        }
        let mut own = Vec::with_capacity(list.value.len());
        for text in &list.value {
            let Some(address) = self.address(&text.value, text.at) else { continue };
            match self.addresses.entry(address) {
                Entry::Vacant(vacant) => {
                    vacant.insert((service.to_owned(), text.at.line()));
                    own.push(address);
                }
                Entry::Occupied(first) => {
                    let (service, line) = first.get().clone();
                    self.fault(text.at, Fault::AddressTaken { address, service, line });
                }
            }
        }
        own
    }

    fn variants(
        &mut self,
        variants: &BTreeMap<At<Environment>, Vec<At<EndpointEntry>>>,
        own: &[SocketAddr],
    ) -> HashMap<EnvId, Endpoints> {
        let mut checked = HashMap::with_capacity(variants.len());
        for (name, list) in variants {
            let endpoints = self.endpoints(list, own);
            if let Some(environment) = self.environment(name)
                && checked.insert(environment.clone(), endpoints).is_some()
            {
                self.fault(name.at, Fault::VariantTwice { environment });
            }
        }
        checked
    }

    fn endpoints(&mut self, list: &[At<EndpointEntry>], own: &[SocketAddr]) -> Endpoints {
        let mut lines: HashMap<SocketAddr, u64> = HashMap::with_capacity(list.len());
        let mut endpoints = Vec::with_capacity(list.len());
        for entry in list {
            let (text, at, weight) = match &entry.value {
                EndpointEntry::Plain(text) => (text, entry.at, None),
                EndpointEntry::Weighted(it) => (&it.address.value, it.address.at, Some(&it.weight)),
            };
            let weight = weight.map_or(Some(Weight::ONE), |weight| self.weight(weight));
            let Some(address) = self.address(text, at) else { continue };
            if own.contains(&address) {
                self.fault(at, Fault::OwnAddress { address });
            } else if let Some(line) = lines.insert(address, at.line()) {
                self.fault(at, Fault::EndpointTwice { address, line });
            } else if let Some(weight) = weight {
                endpoints.push(WeightedEndpoint { address, weight });
            }
        }
        endpoints.into_iter().collect()
    }

    fn weight(&mut self, text: &At<WeightText>) -> Option<Weight> {
        let weight = text.value.0.parse().ok().and_then(Weight::new);
        if weight.is_none() {
            self.fault(text.at, Fault::Weight { text: text.value.0.clone() });
        }
        weight
    }

    fn address(&mut self, text: &Address, at: Location) -> Option<SocketAddr> {
        address::parse(&text.0)
            .map_err(|why| self.fault(at, Fault::Address { text: text.0.clone(), why }))
            .ok()
    }

    fn environment(&mut self, name: &At<Environment>) -> Option<EnvId> {
        EnvId::new(&name.value.0).map_err(|why| self.fault(name.at, Fault::Environment(why))).ok()
    }

    fn expect_header(&mut self, text: &At<Expectation>) -> Option<ExpectHeader> {
        text.value.0.parse().map_err(|why| self.fault(text.at, Fault::ExpectHeader(why))).ok()
    }

    fn workload(&mut self, entry: &At<WorkloadEntry>) -> Option<WorkloadSpec> {
        let WorkloadEntry { cgroup, environment, keys, context, path, netns, bypass, max_connections } =
            &entry.value;
        if environment.is_none() && keys.is_none() && *context == ContextSource::None && !bypass {
            self.fault(entry.at, Fault::NothingSaid);
        }
        let environment = environment.as_ref().and_then(|name| self.environment(name));
        let (none, at) = (BTreeMap::new(), keys.as_ref().map_or(entry.at, |keys| keys.at));
        let own =
            Context::for_workload(environment.as_ref(), keys.as_ref().map_or(&none, |keys| &keys.value));
        let own = own.map_err(|why| self.fault(at, Fault::Keys(why))).unwrap_or_default();
        if let Some(file) = netns
            && !file.value.is_absolute()
        {
            self.fault(file.at, Fault::RelativeNetns);
        }
        if let Some(most) = max_connections
            && most.value == 0
        {
            self.fault(most.at, Fault::NoConnections);
        }
        let pattern = CgroupPattern::new(&cgroup.value)
            .map_err(|why| self.fault(cgroup.at, Fault::Cgroup { text: cgroup.value.clone(), why }))
            .ok()?;
        match self.cgroups.entry(pattern.as_str().to_owned()) {
            Entry::Vacant(vacant) => {
                vacant.insert(cgroup.at.line());
            }
            Entry::Occupied(first) => {
                let line = *first.get();
                self.fault(cgroup.at, Fault::CgroupTwice { line });
            }
        }
        Some(WorkloadSpec {
            name: None,
            cgroup: pattern.into(),
            environment,
            context: *context,
            path: *path,
            netns: netns.as_ref().map(|path| path.value.clone()),
            own,
            bypass: *bypass,
            max_connections: max_connections.as_ref().map(|most| most.value),
        })
    }
}

#[cfg(test)]
mod tests;

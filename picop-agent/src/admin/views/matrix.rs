//! What the page shows: which environment has its own variant of which service, and who uses what.

use std::collections::BTreeMap;

use prometheus::proto::{Histogram, LabelPair, MetricFamily};
use serde::{Deserialize, Serialize};

use crate::{
    admin::{api::ApiError, metrics, state::State},
    route::Base,
    telemetry::metrics::families::OPENED_NAME,
};

/// Environments by services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Matrix {
    /// The version of the routes.
    pub version: u64,
    /// All services, by name.
    pub services: Vec<Service>,
    /// All environments, by name.
    pub environments: Vec<String>,
    /// Where an environment has a variant of its own: indexes of service and environment, and whether anything of it is
    /// ready. Everywhere else the base is used.
    pub variants: Vec<(usize, usize, bool)>,
}

/// A service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether its base has something ready.
    pub base_ready: bool,
}

/// What has happened so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Connections.
    pub connections: Vec<Used>,
    /// Payload of relayed connections that have ended.
    pub bytes: Vec<Carried>,
    /// How long relayed connections of each service took to set up.
    pub setup: BTreeMap<String, Quantiles>,
    /// How long they lasted.
    pub lasted: BTreeMap<String, Quantiles>,
}

/// Connections that have much in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// To this service.
    pub service: String,
    /// Of this environment; empty for none.
    pub environment: String,
    /// On this path.
    pub path: String,
    /// For this reason.
    pub reason: String,
    /// So many.
    pub count: u64,
}

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// To or from this service.
    pub service: String,
    /// Of this environment.
    pub environment: String,
    /// `relay`, or `graft`.
    pub path: String,
    /// `up`, or `down`.
    pub direction: String,
    /// So many.
    pub bytes: u64,
}

/// Of times, in seconds, estimated from a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many there are.
    pub count: u64,
    /// Half of them are below.
    pub p50: f64,
    /// All but one in a hundred are below.
    pub p99: f64,
}

/// Answers `matrix`.
pub fn matrix(state: &State) -> Matrix {
    let table = state.routes.load();
    let mut environments: Vec<_> = table.environments().map(ToString::to_string).collect();
    environments.sort();
    let mut all: Vec<_> = table.services().iter().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut matrix = Matrix { version: table.version(), environments, ..Matrix::default() };
    for (row, service) in all.into_iter().enumerate() {
        let base_ready = match &service.base {
            Base::Itself => true,
            Base::Endpoints(endpoints) => !endpoints.is_empty(),
        };
        matrix.services.push(Service { name: service.name.clone(), base_ready });
        for (environment, endpoints) in &service.variants {
            let column = matrix.environments.binary_search_by(|name| name.as_str().cmp(environment.as_str()));
            // The table knows all of its services' environments.
            matrix.variants.extend(column.map(|column| (row, column, !endpoints.is_empty())));
        }
    }
    matrix.variants.sort_unstable();
    matrix
}

/// Answers `usage`.
pub fn usage(state: &State) -> Result<Usage, ApiError> {
    let families = state.hub.metrics().gather(metrics::all(state)?);
    let of = |name: &'static str| {
        families.iter().filter(move |family| family.name() == name).flat_map(MetricFamily::get_metric)
    };
    let label = |labels: &[LabelPair], name: &str| {
        labels
            .iter()
            .find(|label| label.name() == name)
            .map(|label| label.value().to_owned())
            .unwrap_or_default()
    };
    let quantiles = |name: &'static str| {
        of(name)
            .map(|metric| (label(metric.get_label(), "service"), estimate(metric.get_histogram())))
            .collect::<BTreeMap<_, _>>()
    };
    Ok(Usage {
        connections: of(OPENED_NAME)
            .map(|metric| Used {
                service: label(metric.get_label(), "service"),
                environment: label(metric.get_label(), "environment"),
                path: label(metric.get_label(), "path"),
                reason: label(metric.get_label(), "reason"),
                count: whole(metric.get_counter().get_value()),
            })
            .collect(),
        bytes: of("picop_bytes_total")
            .map(|metric| Carried {
                service: label(metric.get_label(), "service"),
                environment: label(metric.get_label(), "environment"),
                path: label(metric.get_label(), "path"),
                direction: label(metric.get_label(), "direction"),
                bytes: whole(metric.get_counter().get_value()),
            })
            .collect(),
        setup: quantiles("picop_setup_seconds"),
        lasted: quantiles("picop_connection_duration_seconds"),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is a whole number")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn estimate(histogram: &Histogram) -> Quantiles {
    let count = histogram.get_sample_count();
    let buckets: Vec<_> = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .collect();
    Quantiles { count, p50: quantile(&buckets, count, 0.5), p99: quantile(&buckets, count, 0.99) }
}

/// As Prometheus' `histogram_quantile`: linear within a bucket; what is above the last bound counts as that.
#[expect(clippy::cast_precision_loss, reason = "a count of 2^53 is never reached")]
fn quantile(buckets: &[(f64, u64)], count: u64, part: f64) -> f64 {
    let rank = part * count as f64;
    let (mut lower, mut below) = (0.0, 0);
    for (upper, cumulative) in buckets {
        if *cumulative as f64 >= rank && *cumulative > below {
            let within = (rank - below as f64) / (cumulative - below) as f64;
            return lower + (upper - lower) * within;
        }
        (lower, below) = (*upper, *cumulative);
    }
    if count == 0 { 0.0 } else { lower }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_their_bucket() {
        let buckets = [(1.0, 0), (2.0, 100), (4.0, 200)];
        assert!((quantile(&buckets, 200, 0.5) - 2.0).abs() < 1e-9);
        assert!((quantile(&buckets, 200, 0.25) - 1.5).abs() < 1e-9);
        assert!((quantile(&buckets, 200, 0.99) - 3.96).abs() < 1e-9);
        assert!((quantile(&buckets, 300, 0.99) - 4.0).abs() < 1e-9);
        assert!(quantile(&[], 0, 0.5).abs() < 1e-9);
    }
}

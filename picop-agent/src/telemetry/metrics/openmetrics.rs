//! The text format of OpenMetrics 1.0 (<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>).
//! What differs from Prometheus' own: a counter's family is named without `_total`, and there is an end.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The content type of what [`encode`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Encodes families.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        one(&mut out, family).expect("writing to a string");
    }
    out.push_str("# EOF\n");
    out
}

fn one(out: &mut String, family: &MetricFamily) -> std::fmt::Result {
    let name = family.name();
    let (kind, name) = match family.get_field_type() {
        MetricType::COUNTER => ("counter", name.strip_suffix("_total").unwrap_or(name)),
        MetricType::GAUGE => ("gauge", name),
        MetricType::HISTOGRAM => ("histogram", name),
        MetricType::SUMMARY => ("summary", name),
        MetricType::UNTYPED => ("unknown", name),
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    writeln!(out, "# HELP {name} {}", escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => {
                sample(out, &format!("{name}_total"), labels, None, metric.get_counter().get_value())?;
            }
            MetricType::GAUGE => sample(out, name, labels, None, metric.get_gauge().get_value())?,
            MetricType::HISTOGRAM => histogram(out, name, metric)?,
            // There are none.
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a count of 2^53 is never reached")]
fn histogram(out: &mut String, name: &str, metric: &Metric) -> std::fmt::Result {
    let (labels, histogram) = (metric.get_label(), metric.get_histogram());
    let bucket = format!("{name}_bucket");
    for it in histogram.get_bucket() {
        let bound = number(it.upper_bound());
        sample(out, &bucket, labels, Some(&bound), it.cumulative_count() as f64)?;
    }
    let count = histogram.get_sample_count() as f64;
    sample(out, &bucket, labels, Some("+Inf"), count)?;
    sample(out, &format!("{name}_count"), labels, None, count)?;
    sample(out, &format!("{name}_sum"), labels, None, histogram.get_sample_sum())
}

fn sample(
    out: &mut String,
    name: &str,
    labels: &[LabelPair],
    le: Option<&str>,
    value: f64,
) -> std::fmt::Result {
    out.push_str(name);
    let labels = labels.iter().map(|label| (label.name(), label.value()));
    let mut separator = '{';
    for (name, value) in labels.chain(le.map(|le| ("le", le))) {
        write!(out, "{separator}{name}=\"{}\"", escaped(value))?;
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    writeln!(out, " {}", number(value))
}

/// A number; bounds of buckets are told apart from whole numbers, as the format asks for.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = value.to_string();
    if text.contains(['.', 'N']) { text } else { format!("{text}.0") }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, core::Collector as _};

    use super::*;

    #[test]
    fn as_the_format_asks_for() {
        let opened = IntCounterVec::new(Opts::new("opened_total", "Those \"open\"."), &["to"]).unwrap();
        opened.with_label_values(&["a\\b"]).inc_by(3);
        let now = IntGauge::new("now", "Now.").unwrap();
        now.set(-1);
        let wait =
            HistogramVec::new(HistogramOpts::new("wait_seconds", "Wait.").buckets(vec![0.5, 1.0]), &["to"]);
        let wait = wait.unwrap();
        wait.with_label_values(&["x"]).observe(0.75);
        let families: Vec<_> =
            opened.collect().into_iter().chain(now.collect()).chain(wait.collect()).collect();
        let expected = "\
# TYPE opened counter
# HELP opened Those \\\"open\\\".
opened_total{to=\"a\\\\b\"} 3.0
# TYPE now gauge
# HELP now Now.
now -1.0
# TYPE wait_seconds histogram
# HELP wait_seconds Wait.
wait_seconds_bucket{to=\"x\",le=\"0.5\"} 0.0
wait_seconds_bucket{to=\"x\",le=\"1.0\"} 1.0
wait_seconds_bucket{to=\"x\",le=\"+Inf\"} 1.0
wait_seconds_count{to=\"x\"} 1.0
wait_seconds_sum{to=\"x\"} 0.75
# EOF
";
        assert_eq!(encode(&families), expected);
    }
}

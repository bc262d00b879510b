//! The suite's part of the report.

use super::super::doc::Section;
use super::super::doc::plot::{Axis, Line, Plot};
use super::Reduction;
use super::model::Scheme;

/// Tables and plots.
pub fn section(reduction: &Reduction) -> Section {
    let Reduction { costs, shape, lines, .. } = reduction;
    let mut section = Section::new("Containers for many environments (`reduction`)");
    section.text(format!(
        "A model, fed with what `consumption` measured (commit {}, {} requests a second, one connection for each). {} services, \
         each of which every request passes; each environment but the base brings {} of its own; all have the same share of the \
         requests. A container has {} vCPU and {} MiB, and there are as many as keep CPU at or under {:.0}%. `apart`: every \
         environment has all services. `shared`: with one proxy (Envoy) in front of each service, or with picop's agent on each \
         node of {} containers; an agent that takes more than a container may counts as several.",
        reduction.measured,
        costs.rate,
        shape.services,
        shape.changed,
        shape.cpu_limit,
        shape.memory_limit >> 20,
        shape.cpu_target * 100.0,
        shape.per_node
    ));
    section.text(format!(
        "CPU time for a request: service (nginx) {:.0} us; Envoy {:.0} us, and {:.0} us more around it; picop's relay {:.0} us, and \
         {:.0} us around it; picop's direct path {:.0} us, all of it in the kernel. nginx is about the cheapest service there is: \
         the more a service itself takes, the more alike the three ways of sharing become.",
        costs.service_us,
        costs.proxy_us,
        costs.proxy_beside_us,
        costs.relay_us,
        costs.relay_beside_us,
        costs.direct_beside_us
    ));
    let mut rates: Vec<_> = lines.iter().map(|line| line.rate).collect();
    rates.dedup();
    for rate in rates {
        let own = || lines.iter().filter(move |line| line.rate == rate);
        let rows = own().map(|line| {
            let cell = |scheme: Scheme| {
                let count = line.counts.iter().find(|(of, _)| *of == scheme).map(|(_, count)| *count);
                count.map_or_else(String::new, |count| {
                    if scheme == Scheme::Apart {
                        count.all().to_string()
                    } else {
                        format!("{} ({} + {})", count.all(), count.services, count.network)
                    }
                })
            };
            let [apart, proxies, relay, direct] = Scheme::ALL.map(cell);
            [line.environments.to_string(), apart, proxies, relay, direct]
        });
        let [apart, proxies, relay, direct] = Scheme::ALL.map(Scheme::name);
        section.table(
            format!("containers at {rate} requests a second of all environments together (services + proxies or agents)"),
            ["environments", apart, proxies, relay, direct],
            rows,
        );
        let lines = Scheme::ALL.map(|scheme| {
            let points = own().filter_map(|line| {
                let (_, count) = line.counts.iter().find(|(of, _)| *of == scheme)?;
                Some((f64::from(line.environments), f64::from(u32::try_from(count.all()).ok()?)))
            });
            Line::new(scheme.name().replace("a proxy for each service", "proxies"), points.collect())
        });
        section.plot(Plot {
            name: format!("reduction-{rate}"),
            title: format!("Containers, {rate} requests a second of all environments together"),
            x: Axis::linear("environments"),
            y: Axis::log("containers"),
            lines: lines.to_vec(),
        });
    }
    section
}

#[cfg(test)]
mod tests {
    use super::super::super::consumption::tests::consumption;
    use super::super::compute;
    use super::*;

    #[test]
    fn people_find_containers_by_kind() {
        let args = super::super::super::with(&[]).expect("defaults");
        let reduction = compute(&args, &consumption()).expect("a result");
        let section = section(&reduction);
        let text = section.markdown(true);
        assert!(text.contains("| 100 | 1000 | 119 (109 + 10) | 110 (109 + 1) |"), "{text}");
        assert!(text.contains("containers at 1000 requests a second"), "{text}");
        assert_eq!(section.plots().count(), 2);
        for plot in section.plots() {
            plot.svg().expect("a drawing");
        }
    }
}

//! The report as text.

use std::fmt::Write as _;

use super::super::super::machine;
use super::super::super::report::table::{added, aligned, ratio};
use super::super::variant::Variant;
use super::{Conns, Entry, Report};

/// A figure's name, and how to get it.
type Figure = (&'static str, fn(&Conns) -> f64);

impl Report {
    /// All that there is to say.
    pub fn text(&self) -> String {
        let mut text = format!(
            "\nrelay: client and server each on a CPU of its own, what is between on any; {}, Linux {}, commit {}\n",
            machine::describe(),
            self.kernel,
            self.commit
        );
        let Some(first) = self.entries.first() else { return text };
        let timed = !(first.conns.is_empty() && first.requests.is_empty() && first.streams.is_empty());
        if timed || !first.transfers.is_empty() {
            text.push_str(&(self.load.sentence() + "\n"));
        }
        for (at, (clients, _)) in first.conns.iter().enumerate() {
            let title = format!("one request each, 1 kB there and back; clients at once: {clients}");
            section(&mut text, &title, &self.conns(at));
        }
        if !first.requests.is_empty() {
            section(&mut text, "requests over lasting connections, 1 kB there and back", &self.requests());
        }
        if !first.streams.is_empty() {
            section(&mut text, "a stream over one connection", &self.streams());
        }
        if !first.transfers.is_empty() {
            section(&mut text, "a connection, by the bytes it carries", &self.transfers());
        }
        if self.entries.iter().any(|entry| entry.memory.is_some()) {
            section(&mut text, "memory for each idle connection", &self.memory());
        }
        if let Some(worst) = self.noise() {
            writeln!(text, "\n  {worst}").expect("a String takes all");
        }
        for of in self.entries.iter().flat_map(|entry| &entry.watched) {
            writeln!(
                text,
                "  watched beside unwatched, {}: time {}, CPU of all {}; target 1.03",
                of.kind,
                ratio(of.time),
                ratio(of.cpu)
            )
            .expect("a String takes all");
        }
        for line in self.beside_peers() {
            writeln!(text, "  {line}").expect("a String takes all");
        }
        for (variant, version, _) in &self.peers {
            writeln!(text, "  {}: {version}", variant.name()).expect("a String takes all");
        }
        text
    }

    fn conns(&self, at: usize) -> Vec<Vec<String>> {
        let heading = [
            "",
            "p50 us",
            "added p50 us [95%]",
            "p99 us",
            "added p99 us [95%]",
            "conn/s",
            "proxy CPU us",
            "all CPU us",
            "machine us",
        ];
        let rows = self.entries.iter().map(|entry| {
            let (_, conns) = &entry.conns[at];
            let none = entry.variant == Variant::None;
            let beside = |estimate| if none { String::new() } else { added(estimate) };
            vec![
                entry.variant.name().to_owned(),
                format!("{:.1}", conns.p50_us),
                beside(conns.added_p50_us),
                format!("{:.1}", conns.p99_us),
                beside(conns.added_p99_us),
                format!("{:.0}", conns.per_second),
                format!("{:.1}", conns.proxy_cpu_us),
                format!("{:.1}", conns.cpu_us),
                format!("{:.1}", conns.busy_us),
            ]
        });
        table(&heading, rows)
    }

    fn requests(&self) -> Vec<Vec<String>> {
        let heading = [
            "",
            "connections",
            "p50 us",
            "p99 us",
            "requests/s",
            "of none [95%]",
            "proxy CPU us",
            "all CPU us",
        ];
        let rows = self.entries.iter().flat_map(|entry| {
            entry.requests.iter().map(|(clients, requests)| {
                vec![
                    entry.variant.name().to_owned(),
                    clients.to_string(),
                    format!("{:.1}", requests.p50_us),
                    format!("{:.1}", requests.p99_us),
                    format!("{:.0}", requests.per_second),
                    of_none(entry, ratio(requests.ratio_per_second)),
                    format!("{:.1}", requests.proxy_cpu_us),
                    format!("{:.1}", requests.cpu_us),
                ]
            })
        });
        table(&heading, rows)
    }

    fn streams(&self) -> Vec<Vec<String>> {
        let heading = [
            "",
            "way",
            "GB/s",
            "of none [95%]",
            "proxy CPU s/GB",
            "all CPU s/GB",
            "of none [95%]",
            "machine s/GB",
        ];
        let rows = self.entries.iter().flat_map(|entry| {
            entry.streams.iter().map(|(direction, stream)| {
                vec![
                    entry.variant.name().to_owned(),
                    direction.name().to_owned(),
                    format!("{:.2}", stream.gb_per_s),
                    of_none(entry, ratio(stream.ratio)),
                    format!("{:.3}", stream.proxy_cpu_s_per_gb),
                    format!("{:.3}", stream.cpu_s_per_gb),
                    of_none(entry, ratio(stream.cpu_ratio)),
                    format!("{:.3}", stream.busy_s_per_gb),
                ]
            })
        });
        table(&heading, rows)
    }

    fn transfers(&self) -> Vec<Vec<String>> {
        let heading = ["", "KiB", "way", "proxy CPU us", "all CPU us", "of relay [95%]"];
        let rows = self.entries.iter().flat_map(|entry| {
            entry.transfers.iter().map(|of| {
                vec![
                    entry.variant.name().to_owned(),
                    (of.bytes >> 10).to_string(),
                    of.direction.name().to_owned(),
                    format!("{:.1}", of.proxy_cpu_us),
                    format!("{:.1}", of.cpu_us),
                    of.of_relay.map(ratio).unwrap_or_default(),
                ]
            })
        });
        table(&heading, rows)
    }

    fn memory(&self) -> Vec<Vec<String>> {
        let rows = self.entries.iter().filter_map(|entry| {
            let memory = entry.memory?;
            Some(vec![
                entry.variant.name().to_owned(),
                memory.connections.to_string(),
                format!("{:.0}", memory.rss),
                format!("{:.0}", memory.pss),
            ])
        });
        table(&["", "connections", "RSS bytes", "PSS bytes"], rows)
    }

    /// How far the yardstick is from itself.
    fn noise(&self) -> Option<String> {
        let again = self.entries.iter().find(|entry| entry.variant == Variant::NoneAgain)?;
        let (_, conns) = again.conns.first()?;
        Some(format!(
            "noise: none against none is {} us at p50 of one client: no difference smaller than that is any",
            added(conns.added_p50_us)
        ))
    }

    /// picop beside the best of its peers, connection by connection.
    fn beside_peers(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in
            self.entries.iter().filter(|it| it.variant.is_picop() && it.variant != Variant::RelayWatched)
        {
            for (at, (clients, own)) in entry.conns.iter().enumerate() {
                let figures: [Figure; 2] = [
                    ("added p50", |conns| conns.added_p50_us.median),
                    ("proxy CPU", |conns| conns.proxy_cpu_us),
                ];
                for (what, of) in figures {
                    let peers = self.entries.iter().filter(|peer| peer.variant.is_peer());
                    // On a busy machine a difference may come out as less than nothing, which is no figure.
                    let figures =
                        peers.map(|peer| (peer.variant, of(&peer.conns[at].1))).filter(|(_, us)| *us > 0.0);
                    let Some((best, figure)) = figures.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
                    let floor = self.entries.iter().find(|entry| entry.variant == Variant::Floor);
                    let least = floor.map(|floor| of(&floor.conns[at].1)).filter(|us| *us > 0.0);
                    let least = least.map_or_else(String::new, |us| {
                        format!("; a program that does nothing but pass on: {us:.1} us, {:.2}", us / figure)
                    });
                    lines.push(format!(
                        "{} at {clients}: {what} {:.1} us, {:.2} of the best peer's ({}: {figure:.1} us); target 0.8{least}",
                        entry.variant.name(),
                        of(own),
                        of(own) / figure,
                        best.name()
                    ));
                }
            }
        }
        lines
    }
}

fn of_none(entry: &Entry, text: String) -> String {
    if entry.variant == Variant::None { String::new() } else { text }
}

fn table(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let heading = heading.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(heading).chain(rows).collect()
}

fn section(text: &mut String, title: &str, lines: &[Vec<String>]) {
    write!(text, "\n  {title}:\n{}", aligned(lines)).expect("a String takes all");
}

//! The suite's part of the report.

use super::super::doc::Section;
use super::Counts;

/// Tables.
pub fn section(counts: &Counts) -> Section {
    let mut section = Section::new("Programs and instructions (`counts`)");
    section.text(format!(
        "How long the kernel's own account says that each of picop's programs ran for a connection (connect, 1 kB there, 1 kB \
         back, close), of {} connections; the counting itself takes some of it, about 20 ns a run. Both ends are on this node, so \
         what runs for the server's socket is in it. Programs are below the attached cgroup only: `none` meets none.",
        counts.connections
    ));
    let rows = counts.programs.iter().flat_map(|(path, programs)| {
        let (runs, ns) =
            programs.values().fold((0.0, 0.0), |(runs, ns), part| (runs + part.runs, ns + part.ns));
        let row = move |program: &str, runs: f64, ns: f64| {
            [path.clone(), program.to_owned(), format!("{runs:.2}"), format!("{ns:.0}")]
        };
        let all = row("all", runs, ns);
        programs.iter().map(move |(program, part)| row(program, part.runs, part.ns)).chain([all])
    });
    section.table("eBPF programs for a connection", ["path", "program", "runs", "ns"], rows);
    if let Some(why) = &counts.codec_missing {
        section.text(format!("The codec's instructions could not be counted: {why}."));
    } else {
        let rows = counts.codec.iter().map(|(what, count)| [what.clone(), format!("{count:.0}")]);
        section.table("user-space instructions of the header codec (callgrind)", ["", "instructions"], rows);
    }
    section.text(if counts.hardware_counters {
        "This machine's CPU can count instructions itself (perf stat)."
    } else {
        "This machine shows no hardware counters (perf: not supported), so there are no instruction counts of the kernel's part."
    });
    section
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Part;
    use super::*;

    #[test]
    fn people_find_each_program_and_their_sum() {
        let programs = BTreeMap::from([
            ("connect4".to_owned(), Part { runs: 1.0, ns: 700.0 }),
            ("sock_ops".to_owned(), Part { runs: 2.5, ns: 300.0 }),
        ]);
        let counts = Counts {
            suite: "counts".to_owned(),
            commit: "abc".to_owned(),
            kernel: "6.18".to_owned(),
            connections: 100,
            programs: BTreeMap::from([
                ("direct-strip".to_owned(), programs),
                ("none".to_owned(), BTreeMap::new()),
            ]),
            codec: BTreeMap::from([("write a header".to_owned(), 512.0)]),
            codec_missing: None,
            hardware_counters: false,
        };
        let text = section(&counts).markdown(false);
        assert!(text.contains("| direct-strip | all | 3.50 | 1000 |"), "{text}");
        assert!(
            text.contains("| none | all | 0.00 | 0 |") && text.contains("| write a header | 512 |"),
            "{text}"
        );
        assert_eq!(counts.json().expect("JSON")["variants"]["direct-strip"]["program_ns_per_conn"], 1000.0);
    }
}

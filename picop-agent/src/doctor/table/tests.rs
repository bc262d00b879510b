use proptest::prelude::*;

use super::*;
use crate::doctor::check::{Feature, Finding, Spec};

fn report(findings: impl IntoIterator<Item = (&'static str, bool, Finding)>) -> Report {
    let checks = findings.into_iter().map(|(what, required, finding)| {
        let consequence = "nothing works ".repeat(12).leak();
        Spec { id: what, what, features: &[Feature::Interception], required, consequence }.found(finding)
    });
    Report::new("6.1.0".into(), None, checks.collect())
}

#[test]
fn the_table_of_a_good_node() {
    let text = render(
        &report([("kernel", true, Finding::ok("6.1.0")), ("longer name", false, Finding::ok("x"))]),
        false,
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[2], "  verdict   check        for           what was seen");
    assert_eq!(lines[3], "  ok        kernel       interception  6.1.0");
    assert_eq!(lines[4], "  ok        longer name  interception  x");
    assert_eq!(lines.last(), Some(&"The agent can run here."));
}

#[test]
fn what_is_wrong_is_marked_and_followed_by_its_consequence() {
    let text =
        render(&report([("a", true, Finding::missing("gone")), ("b", true, Finding::unknown("?"))]), false);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[3], "! missing   a      interception  gone");
    assert!(lines[4].starts_with("            => nothing works nothing works"), "{text}");
    assert_eq!(lines.last(), Some(&"The agent cannot run here. What it lacks first of all: a."));
    let text = render(&report([("b", true, Finding::unknown("?"))]), false);
    assert!(text.ends_with("first of all: b.\n"), "{text}");
}

#[test]
fn colours_change_no_column() {
    let report = report([("a", true, Finding::missing("gone")), ("b", false, Finding::ok("x"))]);
    let coloured = render(&report, true);
    assert!(
        coloured.contains("\x1b[31mmissing\x1b[0m") && coloured.contains("\x1b[32mok\x1b[0m"),
        "{coloured:?}"
    );
    let bare =
        ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"].iter().fold(coloured, |t, code| t.replace(code, ""));
    assert_eq!(bare, render(&report, false));
}

#[test]
fn a_verifiers_log_is_cut_short() {
    let log = "R1 type=ctx expected=fp\n".repeat(500);
    let text = render(&report([("a", true, Finding::missing(log))]), false);
    assert!(text.lines().count() < 20 && text.contains("--json"), "{text}");
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_table(detail in "[a-z ]{0,400}|[a-z/]{0,400}|\\PC{0,200}", which in 0_usize..4) {
        let make = [Finding::ok, Finding::degraded, Finding::unknown, Finding::missing][which];
        let text = render(&report([("some check", true, make(detail))]), false);
        for line in text.lines() {
            prop_assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn wrapping_loses_no_letter(text in "\\PC{0,300}", width in 1_usize..120) {
        let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        prop_assert_eq!(squeeze(&wrap(&text, width).concat()), squeeze(&text));
    }
}

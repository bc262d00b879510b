use serde_json::{Value, json};

use super::*;
use crate::doctor::check::{Finding, Spec};

fn spec(id: &'static str, features: &'static [Feature], required: bool) -> Spec {
    Spec { id, what: id, features, required, consequence: "nothing works" }
}

#[test]
fn only_required_checks_that_fail_keep_the_agent_from_running() {
    for (required, finding, can_run) in [
        (true, Finding::ok("x"), true),
        (true, Finding::degraded("x"), true),
        (true, Finding::unknown("x"), false),
        (true, Finding::missing("x"), false),
        (false, Finding::missing("x"), true),
        (false, Finding::unknown("x"), true),
    ] {
        let check = spec("a", &[Feature::Relay], required).found(finding.clone());
        let report = Report::new("6.1.0".into(), None, vec![check]);
        assert_eq!(report.can_run, can_run, "required {required}, {finding:?}");
    }
}

#[test]
fn a_feature_is_as_good_as_its_worst_check() {
    let both = &[Feature::Relay, Feature::Graft];
    let checks = vec![
        spec("a", both, true).found(Finding::degraded("x")),
        spec("b", &[Feature::Graft], false).found(Finding::missing("x")),
        spec("c", both, false).found(Finding::ok("x")),
    ];
    let report = Report::new("6.1.0".into(), None, checks);
    let verdict = |feature| report.features.iter().find(|(f, _)| *f == feature).map(|(_, verdict)| *verdict);
    assert_eq!(verdict(Feature::Relay), Some(Verdict::Degraded));
    assert_eq!(verdict(Feature::Graft), Some(Verdict::Missing));
    assert_eq!(verdict(Feature::Pinning), Some(Verdict::Unknown), "nothing was checked");
}

#[test]
fn the_json_is_one_object_with_every_check() {
    let checks = vec![
        spec("a", &[Feature::Interception, Feature::DirectPath], true).found(Finding::ok("seen")),
        spec("b", &[Feature::Pinning], false).found(Finding::missing("seen").so("own consequence")),
        spec("c", &[Feature::Pinning], false).found(Finding::unknown("seen")),
    ];
    let report = Report::new("6.1.0-49".into(), Some("/sys/fs/cgroup".into()), checks);
    let expected: Value = json!({
        "can_run": true,
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": "6.1.0-49",
        "cgroup": "/sys/fs/cgroup",
        "features": {
            "interception": "ok", "relay": "unknown", "direct path": "ok", "graft": "unknown", "pinning": "missing",
        },
        "checks": [
            {"id": "a", "what": "a", "for": ["interception", "direct path"], "required": true, "verdict": "ok",
             "detail": "seen", "consequence": null},
            {"id": "b", "what": "b", "for": ["pinning"], "required": false, "verdict": "missing",
             "detail": "seen", "consequence": "own consequence"},
            {"id": "c", "what": "c", "for": ["pinning"], "required": false, "verdict": "unknown",
             "detail": "seen", "consequence": "if it is missing: nothing works"},
        ],
    });
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
}

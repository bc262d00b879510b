use super::*;
use crate::doctor::check::Verdict;

fn proof(interception: Status, injection: Status) -> Proof {
    Proof { report: Report { interception, injection }, counted: "not_managed 2".to_owned() }
}

#[test]
fn verdicts() {
    let dead = || Status::Dead("refused".into());
    for (status, expected) in
        [(Status::Live, Verdict::Ok), (Status::Unknown, Verdict::Unknown), (dead(), Verdict::Missing)]
    {
        let detail = verdict(&proof(status.clone(), Status::Live));
        assert_eq!(detail.verdict, expected);
        assert_eq!(injected(&proof(Status::Live, status)).verdict, expected);
    }
    let finding = verdict(&proof(dead(), Status::Live));
    assert!(
        finding.detail.contains("refused") && finding.detail.contains("not_managed 2"),
        "{}",
        finding.detail
    );
}

#[tokio::test]
async fn not_tried_blocks() {
    let [interception, injection] = checks(Err("no object")).await;
    assert_eq!(interception.verdict, Verdict::Unknown);
    assert!(interception.blocks() && interception.detail.contains("no object"));
    assert!(!injection.blocks(), "the relay does its work");
}

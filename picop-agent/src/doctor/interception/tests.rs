use super::*;
use crate::doctor::check::Verdict;

#[test]
fn verdicts() {
    let counted = || "not_managed 2".to_owned();
    assert_eq!(verdict(&Proof { status: Status::Live, counted: counted() }).verdict, Verdict::Ok);
    assert_eq!(verdict(&Proof { status: Status::Unknown, counted: counted() }).verdict, Verdict::Unknown);
    let dead = verdict(&Proof { status: Status::Dead("refused".into()), counted: counted() });
    assert_eq!(dead.verdict, Verdict::Missing);
    assert!(dead.detail.contains("refused") && dead.detail.contains("not_managed 2"), "{}", dead.detail);
}

#[tokio::test]
async fn not_tried_blocks() {
    let check = check(Err("no object")).await;
    assert_eq!(check.verdict, Verdict::Unknown);
    assert!(check.blocks() && check.detail.contains("no object"));
}

//! New routes while connections run, and between a connection and its first send.

use testbed::{Talker, require_privilege};

use super::{AUTO, pr_1};
use crate::common::{Result, Routes, Scene, answer, change_workloads, header, hello, variants};

#[test]
fn old_connections_stay_and_new_ones_go_to_the_new_variant() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("reload-direct")?;
    let (one, two) = (scene.recorder("one")?, scene.recorder("two")?);
    let vip = scene.vip();
    let routes = |at| {
        Routes::new()
            .service("cart", &[vip], &format!("header: propagate, {}", variants(&[("pr-1", &[at])])))
            .workload(scene.workload(AUTO))
    };
    let agent = scene.agent(&routes(one.at), &[])?;
    let talker = Talker::in_pod(&scene.client)?;
    // One has sent already, one has yet to.
    let (begun, silent) = (talker.open(vip)?, talker.open(vip)?);
    begun.send(b"hello")?;
    assert_eq!(begun.receive(4)?.text(), "one\n");
    agent.routes(&routes(two.at).to_string())?;
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "two");
    // The variant goes altogether.
    let gone = Routes::new()
        .service("cart", &[vip], &format!("header: propagate, {}", variants(&[("pr-2", &[two.at])])))
        .workload(scene.workload(AUTO));
    agent.routes(&gone.to_string())?;
    assert!(!hello(vip).run(&scene.client)?.ok, "nothing is left to answer at the service's own address");

    silent.send(b"hello")?;
    assert_eq!(silent.receive(4)?.text(), "one\n");
    for (talk, number) in [(begun, 0), (silent, 1)] {
        assert_eq!(talk.names()?.peer, Some(vip));
        talk.send(b", again")?;
        talk.finish()?;
        assert!(talk.receive(1)?.eof);
        assert_eq!(one.whole(number)?.0, [pr_1(), b"hello, again".to_vec()].concat());
    }
    assert_eq!((one.count(), two.count()), (2, 1));
    Ok(())
}

#[test]
fn the_header_is_that_of_the_environment_at_connect() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("moved-before-sending")?;
    let (one, two) = (scene.recorder("one")?, scene.recorder("two")?);
    let vip = scene.vip();
    let to = variants(&[("pr-1", &[one.at]), ("pr-2", &[two.at])]);
    let routes = |workload: Option<String>| {
        let routes = Routes::new().service("cart", &[vip], &format!("header: propagate, {to}"));
        workload.into_iter().fold(routes, Routes::workload)
    };
    let of = |env: &str| routes(Some(scene.workload(&format!("environment: {env}, path: auto"))));
    let agent = scene.agent(&of("pr-1"), &[])?;
    let talker = Talker::in_pod(&scene.client)?;
    let (first, last) = (talker.open(vip)?, talker.open(vip)?);
    change_workloads(&agent, &of("pr-2"))?;
    let report = hello(vip).run(&scene.client)?;
    assert_eq!(answer(&report), "two");
    assert_eq!(two.whole(0)?.0, [header(&[("Env-Id", "pr-2")]), b"hello".to_vec()].concat());
    first.send(b"hello")?;
    first.finish()?;
    assert_eq!(first.receive_all()?.text(), "one\n");
    // Not managed at all any more.
    agent.routes(&routes(None).to_string())?;
    let unmanaged = testbed::eventually(crate::common::soon(), || {
        talker.try_open(vip).is_ok_and(|said| said.error.is_some())
    });
    assert!(unmanaged, "the workload is still managed");
    last.send(b"hello")?;
    last.finish()?;
    assert_eq!(last.receive_all()?.text(), "one\n");
    for number in 0..2 {
        assert_eq!(one.whole(number)?.0, [pr_1(), b"hello".to_vec()].concat());
    }
    Ok(())
}

//! Which instance the kernel chooses, and what it says of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use testbed::{Client, Proc, Talker, Target, require_privilege};

use super::{AUTO, Direct, last_told, pr_1, told};
use crate::common::{
    Result, Routes, Scene, answer, base, expect, expect_refused, hello, list, soon, variants, workload,
};

/// For how long an endpoint that refused is passed over.
pub(super) const EJECTION_S: u64 = 5;

#[test]
fn every_reason() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("reasons")?;
    let (main, variant) = (scene.recorder("main")?, scene.recorder("variant")?);
    let nobody = scene.cluster.pod("nobody")?;
    let plain = Talker::in_pod(&nobody)?;
    let vips: Vec<_> = (0..5).map(|_| scene.vip()).collect();
    let to_main = base(&[main.at]);
    let empty = variants(&[("pr-1", &[])]);
    let routes = Routes::new()
        .service(
            "both",
            &vips[..1],
            &format!("header: propagate, {to_main}, {}", variants(&[("pr-1", &[variant.at])])),
        )
        .service(
            "other",
            &vips[1..2],
            &format!("header: propagate, {to_main}, {}", variants(&[("pr-2", &[variant.at])])),
        )
        .service("empty", &vips[2..3], &format!("{to_main}, {empty}"))
        .service("strict", &vips[3..4], &format!("fallback: refuse, {to_main}, {empty}"))
        .service(
            "itself",
            &[main.at, vips[4]],
            &format!("header: propagate, {}", variants(&[("pr-2", &[variant.at])])),
        )
        .workload(scene.workload(AUTO));
    let agent = scene.agent(&routes, &[])?;
    let front = pr_1();
    let cases: [(&str, SocketAddr, &str, &str, &[u8]); 4] = [
        ("variant", vips[0], "variant", "variant", &front),
        ("no_variant", vips[1], "main", "no_variant", &front),
        ("variant_empty_base", vips[2], "main", "variant_empty_base", b""),
        ("itself", main.at, "main", "no_variant", &front),
    ];
    for (name, to, server, reason, front) in cases {
        let recorder = if server == "main" { &main } else { &variant };
        let number = recorder.count();
        let report = hello(to).run(&scene.client)?;
        assert_eq!((answer(&report), report.peer), (server, Some(to)), "{name}");
        assert_eq!(recorder.whole(number)?, ([front, b"hello"].concat(), "eof".to_owned()), "{name}");
        let line = last_told(&agent, to, 1)?;
        expect(
            &line,
            &[
                ("path", "direct"),
                ("outcome", "routed"),
                ("reason", reason),
                ("environment", "pr-1"),
                ("env_source", "workload"),
                ("backend", &recorder.at.to_string()),
                ("workload", scene.client.cgroup_path_rel()),
            ],
        );
    }
    let served = (main.count(), variant.count());
    let report = hello(vips[3]).run(&scene.client)?;
    let met = (report.stage.as_deref(), report.error.as_deref());
    assert_eq!(met, (Some("connect"), Some("ConnectionRefused")), "{report:?}");
    expect(
        &last_told(&agent, vips[3], 1)?,
        &[
            ("path", "refused"),
            ("outcome", "refused"),
            ("reason", "variant_empty_refused"),
            ("backend", "-"),
            ("service", "strict"),
        ],
    );
    // A pod that is not managed is not served, wherever it goes.
    assert!(plain.try_open(vips[0])?.error.is_some());
    assert_eq!((main.count(), variant.count()), served);
    Ok(())
}

#[test]
fn a_workload_without_an_environment_has_its_keys_alone() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("keys-alone")?;
    let (main, variant) = (scene.recorder("main")?, scene.recorder("variant")?);
    let vip = scene.vip();
    let settings =
        format!("header: propagate, {}, {}", base(&[main.at]), variants(&[("pr-1", &[variant.at])]));
    let routes = Routes::new()
        .service("cart", &[vip], &settings)
        .workload(scene.workload("keys: {tenant: acme}, path: auto"));
    let agent = scene.agent(&routes, &[])?;
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "main");
    let wanted = [crate::common::header(&[("Tenant", "acme")]), b"hello".to_vec()].concat();
    assert_eq!(main.whole(0)?.0, wanted);
    expect(
        &last_told(&agent, vip, 1)?,
        &[("reason", "no_environment"), ("environment", "-"), ("path", "direct")],
    );
    Ok(())
}

#[test]
fn connected_udp_is_untouched() -> Result {
    require_privilege!(Ok(()));
    let it = Direct::new("udp-direct", "propagate")?;
    let talker = Talker::in_pod(&it.scene.client)?;
    for vip in [it.vip, it.vip6] {
        // A service address is nobody's: it cannot be reached but by being routed.
        let said = talker.try_open(Target::new(vip).udp())?;
        assert!(said.socket.is_none() && said.error.is_some(), "{said:?}");
        assert_eq!(answer(&hello(vip).run(&it.scene.client)?), "variant");
    }
    Ok(())
}

/// Echo servers in pods of their own, of which each can be ended and begun again.
pub(super) fn echoes(scene: &Scene, count: usize) -> Result<Vec<(testbed::Pod, SocketAddr, Option<Proc>)>> {
    (0..count)
        .map(|number| {
            let pod = scene.cluster.pod(format!("echo-{number}").as_str())?;
            let at = pod.at4(crate::common::PORT);
            let proc = pod.serve::<&str>("echo", at, [])?;
            Ok((pod, at, Some(proc)))
        })
        .collect()
}

/// How many connections are spread.
const MANY: usize = 300;

#[test]
fn endpoints_share_evenly_and_one_that_refuses_is_passed_over() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("spread")?;
    let mut servers = echoes(&scene, 3)?;
    let vip = scene.vip();
    let at: Vec<_> = servers.iter().map(|(_, at, _)| *at).collect();
    let routes = Routes::new()
        .service("cart", &[vip], &format!("header: strip, {}", variants(&[("pr-1", &at)])))
        .workload(scene.workload(AUTO));
    let agent = scene.agent(&routes, &[])?;
    let client = Client::to(vip).text("hello").half_close().read_all().timeout(soon());
    let summary = client.run_many(&scene.client, MANY, 4)?;
    assert!(summary.ok, "{summary:?}");
    let lines = told(&agent, vip, MANY)?;
    let mut shares = HashMap::new();
    for line in &lines {
        *shares.entry(line["backend"].as_str().unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    // Five standard deviations (8.2) around the mean.
    let fair = |at: &SocketAddr| shares.get(&at.to_string()).is_some_and(|n| (59..=141).contains(n));
    assert!(at.iter().all(fair), "{shares:?}");

    servers[0].2.take();
    let start = Instant::now();
    let summary = client.run_many(&scene.client, MANY, 1)?;
    // Once each time that its turn comes again.
    let most = 1 + start.elapsed().as_secs() / EJECTION_S;
    assert!(summary.failed >= 1 && summary.failed as u64 <= most, "{summary:?}");
    assert_eq!(summary.errors.keys().collect::<Vec<_>>(), ["connect ConnectionRefused"]);

    // It comes back, and gets its share again.
    let (pod, at, proc) = &mut servers[0];
    *proc = Some(pod.serve::<&str>("echo", *at, [])?);
    let back = at.to_string();
    let served = agent.access_lines().len();
    let returned = testbed::eventually(soon(), || {
        let fine = client.run(&scene.client).is_ok_and(|report| report.ok);
        let lines = agent.access_lines();
        fine && lines.iter().skip(served).any(|line| line["backend"] == *back)
    });
    assert!(returned, "{back} is passed over for good");
    Ok(())
}

/// All refuse: what the application gets is a refusal, not a wait or another server.
#[test]
fn all_endpoints_refusing() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("all-refuse")?;
    let (pod, main) = (scene.cluster.pod("closed")?, scene.recorder("main")?);
    let vip = scene.vip();
    let settings = format!("{}, {}", base(&[main.at]), variants(&[("pr-1", &[pod.at4(81), pod.at4(82)])]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
    let _agent = scene.agent(&routes, &[])?;
    let summary = hello(vip).run_many(&scene.client, 20, 1)?;
    assert_eq!(summary.errors.get("connect ConnectionRefused"), Some(&20), "{summary:?}");
    assert_eq!(main.count(), 0);
    Ok(())
}

#[test]
fn a_server_that_speaks_first_is_told_at_once() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("first-word")?;
    let pod = scene.cluster.pod("server")?;
    let (vip, at) = (scene.vip(), pod.at4(crate::common::PORT));
    let settings = format!("header: propagate, speaks_first: server, variants: {{pr-1: {}}}", list(&[at]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
    let agent = scene.agent(&routes, &[])?;
    let (server, client) = (Talker::in_pod(&pod)?, Talker::in_pod(&scene.client)?);
    let listener = server.listen(at)?;
    let talk = client.open(vip)?;
    let serving = server.accept(listener)?;
    // The client has said nothing.
    let front = pr_1();
    assert_eq!(serving.receive(front.len())?.hex, testbed::hex::encode(&front));
    serving.send(b"welcome")?;
    assert_eq!(talk.receive(7)?.text(), "welcome");
    talk.send(b"thanks")?;
    assert_eq!(serving.receive(6)?.text(), "thanks");
    talk.close()?;
    serving.close()?;
    let line = last_told(&agent, vip, 1)?;
    expect(&line, &[("path", "relay"), ("relayed_for", "relay_server_first")]);
    expect(&line, &[("reason", "variant"), ("header", "propagate")]);
    Ok(())
}

/// Two workloads, one asks for the relay: the same answer by either path.
#[test]
fn both_paths_choose_the_same() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("both-paths")?;
    let relayed = scene.cluster.pod("relayed")?;
    let (main, variant) = (scene.recorder("main")?, scene.recorder("variant")?);
    let (there, absent, strict) = (scene.vip(), scene.vip(), scene.vip());
    let to = |env: &str, at: &[SocketAddr]| {
        format!("header: propagate, {}, {}", base(&[main.at]), variants(&[(env, at)]))
    };
    let routes = Routes::new()
        .service("there", &[there], &to("pr-1", &[variant.at]))
        .service("absent", &[absent], &to("pr-2", &[variant.at]))
        .service("strict", &[strict], &format!("fallback: refuse, {}", to("pr-1", &[])))
        .workload(scene.workload(AUTO))
        .workload(workload(&relayed, "environment: pr-1"));
    let agent = scene.agent(&routes, &[])?;
    for (vip, recorder, name) in [(there, &variant, "variant"), (absent, &main, "main")] {
        let number = recorder.count();
        for pod in [&scene.client, &relayed] {
            assert_eq!(answer(&hello(vip).run(pod)?), name);
        }
        assert_eq!(recorder.whole(number)?, recorder.whole(number + 1)?);
        let lines = told(&agent, vip, 2)?;
        let path = |of: &str| lines.iter().find(|line| line["path"] == of).ok_or("both paths");
        let (direct, relay) = (path("direct")?, path("relay")?);
        for field in ["service", "environment", "env_source", "reason", "backend", "header", "original"] {
            assert_eq!(direct[field], relay[field], "{field}");
        }
        expect(direct, &[("relayed_for", "-")]);
        expect(relay, &[("relayed_for", "relay_asked")]);
    }
    // A refusal is one at once, or a reset of what the relay has taken already.
    assert_eq!(hello(strict).run(&scene.client)?.error.as_deref(), Some("ConnectionRefused"));
    let talker = Talker::in_pod(&relayed)?;
    expect_refused(&talker, strict)?;
    Ok(())
}

//! Which instance a connection reaches, and what is said of it.

use std::net::IpAddr;

use testbed::{Client, Talker, Target, require_privilege};

use crate::common::{
    Result, Routes, Scene, access, answer, base, expect, expect_refused, header, hello, variants,
};

#[test]
fn by_the_workloads_environment() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("by-workload")?;
    let (main, variant) = (scene.recorder("main")?, scene.recorder("variant")?);
    let other = scene.cluster.pod("other")?;
    let vip = scene.vip();
    let settings =
        format!("header: propagate, {}, {}", base(&[main.at]), variants(&[("pr-1", &[variant.at])]));
    let routes = Routes::new()
        .service("cart", &[vip], &settings)
        .workload(scene.workload("environment: pr-1"))
        .workload(crate::common::workload(&other, "context: header"));
    let agent = scene.agent(&routes, &[])?;

    let report = hello(vip).run(&scene.client)?;
    assert_eq!(answer(&report), "variant");
    assert_eq!(report.peer, Some(vip));
    let line = access(&agent, report.local)?;
    expect(
        &line,
        &[
            ("service", "cart"),
            ("original", &vip.to_string()),
            ("environment", "pr-1"),
            ("env_source", "workload"),
            ("reason", "variant"),
            ("backend", &variant.at.to_string()),
            ("header", "propagate"),
            ("bytes_up", "5"),
            ("bytes_down", "8"),
            ("outcome", "ok"),
            ("workload", scene.client.cgroup_path_rel()),
        ],
    );
    // The server is told the workload's environment, and sees the pod, not the agent.
    let (bytes, end) = variant.whole(0)?;
    assert_eq!(bytes, [&header(&[("Env-Id", "pr-1")])[..], b"hello"].concat());
    assert_eq!((end.as_str(), variant.from(0)?), ("eof", scene.client.addr4().into()));

    // Without an environment there is nothing to tell.
    let report = hello(vip).run(&other)?;
    assert_eq!(answer(&report), "main");
    let line = access(&agent, report.local)?;
    let fields =
        [("reason", "no_environment"), ("environment", "-"), ("env_source", "none"), ("header", "none")];
    expect(&line, &fields);
    expect(&line, &[("backend", &main.at.to_string()), ("outcome", "ok")]);
    assert_eq!(main.whole(0)?.0, b"hello");
    Ok(())
}

#[test]
fn by_the_header_that_the_application_sends() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("by-header")?;
    let (main, one, two) = (scene.recorder("main")?, scene.recorder("one")?, scene.recorder("two")?);
    let (read, deaf) = (scene.vip(), scene.vip());
    let settings = format!("{}, {}", base(&[main.at]), variants(&[("pr-1", &[one.at]), ("pr-2", &[two.at])]));
    let routes = Routes::new()
        .service("read", &[read], &format!("header: propagate, expect_header: always, {settings}"))
        .service("deaf", &[deaf], &format!("header: strip, expect_header: always, {settings}"))
        .service("else", &[scene.vip()], &variants(&[("pr-3", &[one.at])]))
        .workload(scene.workload("context: header"));
    let agent = scene.agent(&routes, &[])?;

    let cases = [
        ("pr-1", &one, "one", "variant"),
        ("pr-2", &two, "two", "variant"),
        ("pr-3", &main, "main", "no_variant"),
        ("nobody", &main, "main", "unknown_environment"),
    ];
    for (env, server, name, reason) in cases {
        for (to, told) in [(read, "propagate"), (deaf, "strip")] {
            let number = server.count();
            let sent = header(&[
                ("Env-Id", env),
                ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ]);
            // Header and payload in one segment.
            let opening = [&sent[..], b"hello"].concat();
            let report = Client::to(to).bytes(&opening).half_close().read_all().run(&scene.client)?;
            assert_eq!(answer(&report), name, "{env} at {to}");
            let line = access(&agent, report.local)?;
            expect(
                &line,
                &[("reason", reason), ("environment", env), ("env_source", "header"), ("header", told)],
            );
            expect(&line, &[("backend", &server.at.to_string()), ("bytes_up", "5"), ("outcome", "ok")]);
            expect(&line, &[("relayed_for", "relay_header")]);
            let wanted = if told == "strip" { b"hello".to_vec() } else { opening };
            assert_eq!(server.whole(number)?, (wanted, "eof".to_owned()), "{env} at {to}");
        }
    }
    let number = main.count();
    let report = hello(read).run(&scene.client)?;
    assert_eq!(answer(&report), "main");
    expect(&access(&agent, report.local)?, &[("reason", "no_environment"), ("header", "none")]);
    assert_eq!(main.whole(number)?.0, b"hello");
    Ok(())
}

#[test]
fn a_header_goes_before_the_workloads_environment() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("both")?;
    let (main, one, two) = (scene.recorder("main")?, scene.recorder("one")?, scene.recorder("two")?);
    let vip = scene.vip();
    let variants = variants(&[("pr-1", &[one.at]), ("pr-2", &[two.at])]);
    let routes = Routes::new()
        .service(
            "cart",
            &[vip],
            &format!("header: propagate, expect_header: always, {}, {variants}", base(&[main.at])),
        )
        .workload(scene.workload("context: header, environment: pr-1"));
    let agent = scene.agent(&routes, &[])?;

    let report = hello(vip).header("env", "pr-2").run(&scene.client)?;
    assert_eq!(answer(&report), "two");
    expect(&access(&agent, report.local)?, &[("env_source", "header"), ("environment", "pr-2")]);
    // A header that names no environment: the server gets it with the workload's.
    let report = hello(vip).header("traceparent", "00-a-b-01").run(&scene.client)?;
    assert_eq!(answer(&report), "one");
    expect(&access(&agent, report.local)?, &[("env_source", "workload"), ("environment", "pr-1")]);
    let wanted = header(&[("Env-Id", "pr-1"), ("Traceparent", "00-a-b-01")]);
    assert_eq!(one.whole(0)?.0, [&wanted[..], b"hello"].concat());
    let report = hello(vip).run(&scene.client)?;
    assert_eq!(answer(&report), "one");
    assert_eq!(one.whole(1)?.0, [&header(&[("Env-Id", "pr-1")])[..], b"hello"].concat());
    assert_eq!(main.count(), 0);
    Ok(())
}

#[test]
fn ipv4_ipv6_and_v4_mapped_are_the_same_service() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("families")?;
    let (four, six) = (scene.recorder("four")?, scene.recorder("six")?);
    let (vip, vip6) = (scene.vip(), scene.vip6());
    let variants = variants(&[("pr-4", &[four.at]), ("pr-6", &[six.at6])]);
    // However long the client takes to send it.
    let settings = format!("expect_header: always, {variants}");
    let routes =
        Routes::new().service("cart", &[vip, vip6], &settings).workload(scene.workload("context: header"));
    let agent = scene.agent(&routes, &[])?;
    let talker = Talker::in_pod(&scene.client)?;

    let mapped = format!("[::ffff:{}]:{}", vip.ip(), vip.port()).parse()?;
    let clients = [
        ("v4", Target::new(vip), vip),
        ("v6", Target::new(vip6), vip6),
        ("mapped", Target::new(vip).mapped(), mapped),
    ];
    for (family, target, asked) in clients {
        // Whatever family the client speaks, the backend's may be another.
        for (env, server) in [("pr-4", &four), ("pr-6", &six)] {
            let number = server.count();
            let talk = talker.open(target.clone())?;
            let names = talk.names()?;
            assert_eq!(names.peer, Some(asked), "{family} to {env}");
            talk.send(&[&header(&[("Env-Id", env)])[..], b"hello"].concat())?;
            talk.finish()?;
            let said = talk.receive_all()?;
            assert_eq!(
                (said.text().trim_end(), said.eof),
                (if env == "pr-4" { "four" } else { "six" }, true),
                "{family}"
            );
            let line = access(&agent, names.local)?;
            let original = if family == "v6" { vip6 } else { vip };
            expect(&line, &[("original", &original.to_string()), ("reason", "variant"), ("outcome", "ok")]);
            let pod = &scene.client;
            let client: IpAddr = if env == "pr-4" { pod.addr4().into() } else { pod.addr6().into() };
            assert_eq!(server.from(number)?, client, "{family} to {env}");
            assert_eq!(server.whole(number)?.0, b"hello");
        }
    }
    Ok(())
}

#[test]
fn a_base_that_is_the_address_itself() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("itself")?;
    let (real, variant) = (scene.recorder("real")?, scene.recorder("variant")?);
    let variants = variants(&[("pr-1", &[variant.at])]);
    let routes = Routes::new()
        .service("cart", &[real.at, real.at6], &format!("expect_header: always, {variants}"))
        .workload(scene.workload("context: header"));
    let agent = scene.agent(&routes, &[])?;
    let clients =
        [(hello(real.at), real.at), (hello(real.at6), real.at6), (hello(real.at).mapped(), real.at)];
    for (client, to) in clients {
        let report = client.run(&scene.client)?;
        assert_eq!(answer(&report), "real");
        let line = access(&agent, report.local)?;
        expect(
            &line,
            &[("reason", "no_environment"), ("backend", &to.to_string()), ("original", &to.to_string())],
        );
        let report = client.header("env", "pr-1").run(&scene.client)?;
        assert_eq!(answer(&report), "variant");
        expect(&access(&agent, report.local)?, &[("reason", "variant"), ("original", &to.to_string())]);
    }
    Ok(())
}

#[test]
fn endpoints_share_the_connections_and_stand_in_for_one_another() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("endpoints")?;
    let mut servers = [scene.recorder("a")?, scene.recorder("b")?].map(Some);
    let at = [servers[0].as_ref().expect("made above").at, servers[1].as_ref().expect("made above").at];
    let vip = scene.vip();
    let routes = Routes::new()
        .service("cart", &[vip], &variants(&[("pr-1", &at)]))
        .workload(scene.workload("environment: pr-1"));
    let agent = scene.agent(&routes, &[])?;
    let ask = || -> Result<String> { Ok(answer(&hello(vip).run(&scene.client)?).to_owned()) };
    let answers = (0..20).map(|_| ask()).collect::<Result<Vec<_>>>()?;
    for name in ["a", "b"] {
        // Nearly every other one: which turns a service gets depends on the others.
        let share = answers.iter().filter(|answer| *answer == name).count();
        assert!((8..=12).contains(&share), "{answers:?}");
    }

    // Its port refuses from here on.
    servers[0].take();
    for _ in 0..4 {
        assert_eq!(ask()?, "b");
    }
    let lines = agent.wait_access(24, |line| line["outcome"] == "ok" && line["reason"] == "variant")?;
    let late = &lines[20..];
    assert!(late.iter().all(|line| line["backend"] == at[1].to_string()), "{late:?}");
    Ok(())
}

#[test]
fn a_variant_with_nothing_ready_falls_back_or_is_refused() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("fallback")?;
    let main = scene.recorder("main")?;
    let (lenient, strict) = (scene.vip(), scene.vip());
    let settings = format!("{}, {}", base(&[main.at]), variants(&[("pr-1", &[])]));
    let routes = Routes::new()
        .service("lenient", &[lenient], &settings)
        .service("strict", &[strict], &format!("fallback: refuse, {settings}"))
        .workload(scene.workload("environment: pr-1"));
    let agent = scene.agent(&routes, &[])?;
    let report = hello(lenient).run(&scene.client)?;
    assert_eq!(answer(&report), "main");
    expect(&access(&agent, report.local)?, &[("reason", "variant_empty_base"), ("outcome", "ok")]);

    let talker = Talker::in_pod(&scene.client)?;
    expect_refused(&talker, strict)?;
    let lines = agent.wait_access(1, |line| line["outcome"] == "refused")?;
    expect(&lines[0], &[("reason", "variant_empty_refused"), ("backend", "-"), ("service", "strict")]);
    assert_eq!(main.count(), 1, "the base must not see a refused connection");
    Ok(())
}

//! The commands that ask a running agent.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use testbed::{Agent, Talker, eventually, picop_bin, require_privilege, wait_until};

use crate::common::{Result, Routes, Scene, answer, base, header, hello, logged, soon, variants, workload};

/// Runs a command that asks the agent; its exit status and what it printed.
fn ask(agent: &Agent, args: &[&str]) -> Result<(bool, String)> {
    let output =
        Command::new(picop_bin()?).args(args).env("PICOP_ADMIN_SOCKET", agent.admin_socket()).output()?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

/// The same, with JSON.
fn json(agent: &Agent, args: &[&str]) -> Result<Value> {
    let (done, said) = ask(agent, &[args, &["--json"]].concat())?;
    assert!(done, "{args:?}: {said}");
    Ok(serde_json::from_str(&said)?)
}

#[test]
fn each_command_tells_the_truth() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("verbs")?;
    let (variant, _one) = scene.echo("variant")?;
    let (shared, _two) = scene.echo("shared")?;
    let instrumented = scene.cluster.pod("instrumented")?;
    let (cart, db) = (scene.vip(), scene.vip());
    let settings =
        format!("{}, {}, expect_header: always", base(&[shared]), variants(&[("pr-1", &[variant])]));
    let routes = Routes::new()
        .service("cart", &[cart], &settings)
        .service("db", &[db], &base(&[shared]))
        .workload(scene.workload("environment: pr-1, path: auto"))
        .workload(workload(&instrumented, "context: header, path: auto"));
    let agent = scene.agent(&routes, &[])?;
    let mode = std::fs::metadata(agent.admin_socket())?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let all_managed = || {
        let all = json(&agent, &["workloads"]).unwrap_or_default();
        all.as_array().is_some_and(|all| all.iter().filter(|one| one["state"] == "managed").count() == 2)
    };
    assert!(eventually(soon(), all_managed), "{}", ask(&agent, &["workloads"])?.1);
    let direct = Talker::in_pod(&scene.client)?;
    let to_cart = direct.open(cart)?;
    to_cart.echo("12345")?;
    let to_db = direct.open(db)?;
    let relayed = Talker::in_pod(&instrumented)?;
    let with_header = relayed.open(cart)?;
    with_header.send(&[&header(&[("Env-Id", "pr-1")])[..], b"123"].concat())?;
    assert_eq!(with_header.receive(3)?.text(), "123");

    // Connections: both kinds, where they go, and what they carried.
    let all = json(&agent, &["connections"])?;
    let all = all["connections"].as_array().ok_or("a list")?;
    assert_eq!(all.len(), 3, "{all:#?}");
    let find = |path: &str, service: &str| {
        let mut found = all.iter().filter(|one| one["path"] == path && one["service"] == service);
        found.next().cloned().unwrap_or_default()
    };
    let (one, two, three) = (find("direct", "cart"), find("direct", "db"), find("relay", "cart"));
    assert_eq!(
        (&one["backend"], &one["environment"]),
        (&variant.to_string().into(), &"pr-1".into()),
        "{all:#?}"
    );
    assert_eq!((&one["bytes_down"], &one["state"]), (&5.into(), &"open".into()), "{one}");
    assert_eq!((&two["backend"], &two["environment"]), (&shared.to_string().into(), &"pr-1".into()), "{two}");
    assert_eq!(
        (&three["backend"], &three["env_source"]),
        (&variant.to_string().into(), &"header".into()),
        "{three}"
    );
    assert_eq!(
        (&three["bytes_up"], &three["bytes_down"], &three["reason"]),
        (&3.into(), &3.into(), &"variant".into())
    );
    for (args, count) in [
        (&["--service", "db"][..], 1),
        (&["--service", "cart", "--env", "pr-1"], 2),
        (&["--env", "-"], 0),
        (&["--workload", "instrumented"], 1),
    ] {
        let found = json(&agent, &[&["connections"], args].concat())?;
        assert_eq!(found["connections"].as_array().map(Vec::len), Some(count), "{args:?}: {found:#}");
    }
    to_db.close()?;
    let gone = || {
        json(&agent, &["connections", "--service", "db"])
            .is_ok_and(|it| it["connections"] == Value::Array(vec![]))
    };
    assert!(eventually(soon(), gone), "a closed connection stays listed");

    // Routes, and that the kernel has them.
    let (done, said) = ask(&agent, &["routes"])?;
    assert!(done && said.contains("cart") && said.contains(&variant.to_string()), "{said}");
    let (done, said) = ask(&agent, &["routes", "--verify"])?;
    assert!(done && said.contains("the kernel has the same"), "{said}");
    let environments = json(&agent, &["environments"])?;
    assert_eq!(environments[0]["name"], "pr-1");
    assert_eq!(environments[0]["variants"], serde_json::json!(["cart"]));
    assert_eq!(environments[0]["workloads"], serde_json::json!([scene.client.cgroup_path_rel()]));

    // Explained for people.
    let (done, said) = ask(&agent, &["explain", "--from", "client", "--to", "db"])?;
    assert!(done && said.contains("> kernel yes no_variant") && said.contains(&shared.to_string()), "{said}");
    let (done, said) = ask(&agent, &["explain", "--from", "nobody", "--to", "db"])?;
    assert!(!done && said.contains("no workload is called"), "{said}");

    the_log_follows(&agent, &scene, cart)?;
    let top = json(&agent, &["top", "--once", "--interval", "1"])?;
    assert!(top.is_array(), "{top}");
    let config = json(&agent, &["config", "dump"])?;
    assert_eq!(config["arguments"]["log_direct"], true);
    let bundle = scene.cluster.dir().join("bundle.tar");
    let (done, said) = ask(&agent, &["support-bundle", "--output", bundle.to_str().ok_or("plain ASCII")?])?;
    assert!(done, "{said}");
    let listed = Command::new("tar").arg("tf").arg(&bundle).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    for name in ["status.json", "routes.json", "doctor.json", "connections.json", "README.txt"] {
        assert!(listed.contains(name), "{listed}");
    }
    Ok(())
}

/// The log's level can be changed for as long as the agent runs.
fn the_log_follows(agent: &Agent, scene: &Scene, cart: SocketAddr) -> Result {
    let before = agent.log_lines().len();
    let (done, said) = ask(agent, &["log", "level", "info,access=off"])?;
    assert!(done, "{said}");
    logged(agent, before, "what is logged was changed")?;
    let lines = agent.access_lines().len();
    assert_eq!(answer_of(scene, cart)?, "hello");
    assert_eq!(ask(agent, &["log", "level"])?.1, "info,access=off\n");
    let (done, said) = ask(agent, &["log", "level", "info,=,"])?;
    assert!(!done && said.contains("no filter"), "{said}");
    assert_eq!(agent.access_lines().len(), lines, "a line that nobody wants");
    Ok(())
}

fn answer_of(scene: &Scene, to: SocketAddr) -> Result<String> {
    Ok(answer(&hello(to).run(&scene.client)?).to_owned())
}

/// Live decisions, of both paths, and their ends; without `--log-direct`, so that the kernel tells only while somebody
/// listens.
#[test]
fn trace_shows_decisions_as_they_are_made() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("trace")?;
    let server = scene.recorder("variant")?;
    let vip = scene.vip();
    let instrumented = scene.cluster.pod("instrumented")?;
    let routes = Routes::new()
        .service("cart", &[vip], &variants(&[("pr-1", &[server.at])]))
        .workload(scene.workload("environment: pr-1, path: auto"))
        .workload(workload(&instrumented, "context: header, path: auto"));
    let options = testbed::AgentOptions { routes: routes.to_string(), plain: true, ..Default::default() };
    let agent = Agent::start_with(&scene.cluster, options)?;
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "variant");
    assert!(agent.access_lines().is_empty(), "nobody asked for it");

    let mut tracing = Command::new(picop_bin()?)
        .args(["trace", "--json", "--count", "3"])
        .env("PICOP_ADMIN_SOCKET", agent.admin_socket())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(tracing.stdout.take().ok_or("piped")?).lines();
    assert_eq!(lines.next().ok_or("a line")??, "{\"listening\":true}");
    let told = || {
        let status = json(&agent, &["status", "--pin-dir", "/nowhere"]).ok()?;
        let flags = status["agent"]["kernel"]["flags"].as_array()?.clone();
        flags.contains(&"tell".into()).then_some(())
    };
    wait_until("the hooks to tell", soon(), told)?;
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "variant");
    let direct: Value = serde_json::from_str(&lines.next().ok_or("a line")??)?;
    for (name, wanted) in [
        ("what", "routed"),
        ("path", "direct"),
        ("service", "cart"),
        ("environment", "pr-1"),
        ("reason", "variant"),
    ] {
        assert_eq!(direct[name], wanted, "{direct}");
    }
    let talker = Talker::in_pod(&instrumented)?;
    let talk = talker.open(vip)?;
    talk.send(&[&header(&[("Env-Id", "pr-1")])[..], b"hello"].concat())?;
    let relayed: Value = serde_json::from_str(&lines.next().ok_or("a line")??)?;
    for (name, wanted) in
        [("what", "routed"), ("path", "relay"), ("env_source", "header"), ("reason", "variant")]
    {
        assert_eq!(relayed[name], wanted, "{relayed}");
    }
    talk.close()?;
    let closed: Value = serde_json::from_str(&lines.next().ok_or("a line")??)?;
    assert_eq!((&closed["what"], &closed["bytes_up"]), (&"closed".into(), &5.into()), "{closed}");
    assert!(tracing.wait()?.success());
    Ok(())
}

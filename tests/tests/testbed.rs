//! The testbed itself: pods reach one another, services reach nobody, nothing stays behind.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::panic;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testbed::{
    Client, Cluster, PodSpec, Unwrapped, Verdict, hex, leftovers, leftovers_of, require_privilege, sweep,
    wait_until,
};

const SIZE: u64 = 8_000_000;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn pods_talk_over_both_families_and_leave_nothing_behind() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("pair")?;
    let server = cluster.pod("server")?;
    let client = cluster.pod(PodSpec::new("client").cgroup("nested/deep/client"))?;
    let _v4 = server.serve::<&str>("echo", "0.0.0.0:7".parse()?, [])?;
    let _v6 = server.serve::<&str>("echo", SocketAddr::new(server.addr6().into(), 7), [])?;

    let ping = |to| Client::to(to).text("ping").half_close().read_all();
    let cases = [
        ("v4", ping(server.at4(7)), client.addr4().into()),
        ("v4 without blocking", ping(server.at4(7)).nonblocking(), client.addr4().into()),
        ("v4-mapped", ping(server.at4(7)).mapped(), client.addr4().to_ipv6_mapped().into()),
        ("v6", ping(server.at6(7)), client.addr6().into()),
        ("v6, bound", ping(server.at6(7)).bind(client.addr6().into()), client.addr6().into()),
    ];
    for (name, what, from) in cases {
        let report = what.run(&client)?;
        assert!(report.ok, "{name}: {report:?}");
        assert_eq!((report.text.as_str(), report.eof), ("ping", true), "{name}");
        assert_eq!(report.local.map(|local| local.ip()), Some(from), "{name}");
    }

    let id = cluster.id();
    assert!(leftovers_of(id).len() >= 5, "two pods, a node, a cgroup, a directory: {:?}", leftovers_of(id));
    drop(cluster);
    assert_eq!(leftovers_of(id), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_program_runs_in_its_pods_cgroup_and_namespace() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("inside")?;
    let pod = cluster.pod("pod")?;
    let mut command = pod.command("cat")?;
    command.arg("/proc/self/cgroup");
    let output = pod.run(command, Duration::from_secs(5))?.success()?;
    let expected = format!("0::/{}", pod.cgroup_path_rel());
    assert!(output.stdout.lines().any(|line| line == expected), "{expected} not in {}", output.stdout);
    let mut command = pod.command("readlink")?;
    command.arg("/proc/self/ns/net");
    let inside = pod.run(command, Duration::from_secs(5))?.success()?.stdout;
    let by_thread = pod.in_netns(|| std::fs::read_link("/proc/thread-self/ns/net"))??;
    assert_eq!(inside.trim(), by_thread.display().to_string());
    assert_ne!(by_thread, std::fs::read_link("/proc/self/ns/net")?);
    Ok(())
}

#[test]
fn service_addresses_are_refused_at_once_and_given_out_once() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("services")?;
    let client = cluster.pod("client")?;
    let (first, second) = (cluster.service_addr4(), cluster.service_addr4());
    assert_ne!(first, second);
    for to in [SocketAddr::new(first.into(), 80), SocketAddr::new(cluster.service_addr6().into(), 80)] {
        let start = Instant::now();
        let report = Client::to(to).run(&client)?;
        assert_eq!(report.stage.as_deref(), Some("connect"), "{report:?}");
        assert_eq!(report.error.as_deref(), Some("HostUnreachable"), "{report:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{to} took {:?}", start.elapsed());
    }
    Ok(())
}

#[test]
fn a_panic_leaves_nothing_behind() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("panics")?;
    let id = cluster.id();
    let pod = cluster.pod(PodSpec::new("pod").cgroup("a/b/c"))?;
    let sleeper = pod.spawn("sleeper", {
        let mut command = pod.command("sh")?;
        // Grandchildren, in a session of their own: killing the child would not reach them.
        command.args(["-c", "setsid sleep 1000 & setsid sleep 1000 & wait"]);
        command
    })?;
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _both = (cluster, sleeper);
        panic!("as a failed test does");
    }));
    assert!(outcome.is_err());
    assert_eq!(leftovers_of(id), Vec::<String>::new());
    Ok(())
}

#[test]
fn what_a_killed_process_left_is_swept_and_what_is_in_use_is_not() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("in-use")?;
    let in_use = leftovers_of(cluster.id());
    let mut holder =
        Command::new(testbed::hop_bin()?).arg("hold").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut name = String::new();
    BufReader::new(holder.stdout.take().ok_or("stdout is a pipe")?).read_line(&mut name)?;
    let name = name.trim();
    let held = || leftovers().into_iter().filter(|path| path.contains(name)).count();
    assert!(held() >= 4, "a cgroup, two namespaces, a directory: {:?}", leftovers());
    sweep()?;
    assert!(held() >= 4, "its process still runs");

    holder.kill()?;
    holder.wait()?;
    assert!(held() >= 4, "nobody cleaned up");
    let swept = sweep()?;
    // Another test process may sweep at the same time: gone is what counts.
    assert!(held() == 0, "{swept:?}, {:?}", leftovers());
    assert_eq!(leftovers_of(cluster.id()), in_use);
    Ok(())
}

#[test]
fn large_streams_and_many_connections_are_told_from_damaged_ones() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("streams")?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let _echo = server.serve::<&str>("echo", server.at4(7), [])?;
    let _blob = server.serve("blob", server.at4(8), ["--bytes", &SIZE.to_string()])?;
    let _cut = server.serve("blob", server.at4(9), ["--bytes", "100000", "--stop-after", "70000"])?;
    let _dies = server.serve("blob", server.at4(10), ["--bytes", "100000", "--reset-after", "50000"])?;

    let echoed = Client::to(server.at4(7)).upload(SIZE).half_close().read_all().expect_blob().run(&client)?;
    assert!(echoed.ok && echoed.bytes == SIZE, "{echoed:?}");
    let blob = Client::to(server.at4(8)).text("go").half_close().read_all().expect_blob().run(&client)?;
    assert!(blob.ok && blob.bytes == SIZE && blob.eof, "{blob:?}");
    let shifted = Client::to(server.at4(7)).text("xx").upload(1000).half_close().read_all().expect_blob();
    assert_eq!(shifted.run(&client)?.error.as_deref(), Some("Mismatch"));
    let short = Client::to(server.at4(9)).text("go\n").expect_bytes(100_000).expect_blob().run(&client)?;
    assert_eq!((short.error.as_deref(), short.bytes), (Some("Short"), 70_000));
    let reset = Client::to(server.at4(10)).text("go\n").read_all().run(&client)?;
    assert_eq!(reset.error.as_deref(), Some("ConnectionReset"), "{reset:?}");

    let many = Client::to(server.at4(7)).text("x").half_close().read_all().together();
    let summary = many.run_many(&client, 300, 100)?;
    assert!(summary.ok && summary.succeeded == 300 && summary.bytes == 300, "{summary:?}");
    let refused = Client::to(server.at4(11)).run_many(&client, 3, 3)?;
    assert_eq!((refused.failed, refused.errors.get("connect ConnectionRefused")), (3, Some(&3)));
    Ok(())
}

#[test]
fn the_recorder_has_every_byte_and_how_it_ended() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("recorder")?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let dir = cluster.dir().join("recorded");
    let _recorder = server.serve("recorder", server.at4(7), ["--dir".as_ref(), dir.as_os_str()])?;
    let read = |name: &str| {
        wait_until(name, Duration::from_secs(5), || std::fs::read_to_string(dir.join(name)).ok())
    };

    let ends = Client::to(server.at4(7)).header("env", "pr-1").text("hi").split_at(5).half_close().read_all();
    let report = ends.run(&client)?;
    assert_eq!((report.ok, report.text.as_str()), (true, "recorded\n"), "{report:?}");
    assert_eq!(read("0.end")?, "eof");
    assert_eq!(read("0.hex")?, "0d0a0d0a000d0a515549540a010b456e762d49643a70722d316869");

    let report = Client::to(server.at4(7)).text("hi").expect_bytes(9).reset().run(&client)?;
    assert!(report.ok, "{report:?}");
    assert_eq!(read("1.end")?, "ConnectionReset");
    Ok(())
}

#[test]
fn the_event_loop_tells_good_streams_from_bad_ones() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("edge")?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let _echo = server.serve::<&str>("echo", server.at4(7), [])?;
    let _cut = server.serve("blob", server.at4(8), ["--bytes", "100000", "--reset-after", "50000"])?;
    let dir = cluster.dir().join("recorded");
    let silent = ["--dir".as_ref(), dir.as_os_str(), "--delay-ms".as_ref(), "60000".as_ref()];
    let _silent = server.serve("recorder", server.at4(9), silent)?;
    let edge = |port| Client::to(server.at4(port)).edge_triggered().half_close().read_all();

    let whole = edge(7).upload(100_000).expect_blob().send_buffer(4096).run_many(&client, 100, 30)?;
    assert!(whole.ok && whole.succeeded == 100 && whole.bytes == 10_000_000, "{whole:?}");
    let text = edge(7).text("ping").run(&client)?;
    assert!(text.ok && text.text == "ping" && text.eof && text.peer == Some(server.at4(7)), "{text:?}");
    // Each connection's stream is its own.
    let shifted = edge(7).text("xx").upload(1000).expect_blob().run_many(&client, 3, 3)?;
    assert_eq!(shifted.errors.get("check Mismatch"), Some(&3), "{shifted:?}");
    let short = Client::to(server.at4(7)).edge_triggered().half_close().upload(5).expect_bytes(6);
    assert_eq!(short.run(&client)?.error.as_deref(), Some("Short"));
    let cut = Client::to(server.at4(8)).edge_triggered().text("go\n").read_all().run_many(&client, 3, 2)?;
    assert_eq!(cut.errors.get("read ConnectionReset"), Some(&3), "{cut:?}");
    let refused = edge(11).run_many(&client, 3, 3)?;
    assert_eq!(refused.errors.get("connect ConnectionRefused"), Some(&3), "{refused:?}");
    // One that waits in vain does not wait for ever.
    let stuck = edge(9).timeout(Duration::from_millis(200)).run_many(&client, 2, 2)?;
    assert_eq!(stuck.errors.get("wait TimedOut"), Some(&2), "{stuck:?}");
    Ok(())
}

#[test]
fn the_instrumented_server_takes_one_right_header() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("unwrap")?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let _echo = server.serve::<&str>("echo", server.at4(7), [])?;
    let to = server.at4(7).to_string();
    let front = server.serve("unwrap", server.at4(8), ["--to", &to, "--header", "env=pr-1"])?;
    let _gone = server.serve("unwrap", server.at4(9), ["--to", "127.0.0.1:1", "--header", "env=pr-1"])?;
    let header = "0d0a0d0a000d0a515549540a010b456e762d49643a70722d31";
    let send = |text: &str| -> Result<_> {
        let client = Client::to(server.at4(8)).bytes(&hex::decode(text)?);
        Ok(client.half_close().read_all())
    };
    let right = send(header)?.upload(SIZE).expect_blob().split_at(20);
    let cases = [
        (right, Verdict::Right),
        (send(&format!("{header}6869"))?.split_every_byte(), Verdict::Right),
        (send("6869")?, Verdict::NoHeader),
        (send("")?, Verdict::Silent),
        (send(&header[..header.len() - 2])?, Verdict::HalfHeader),
        (send(&format!("{}326869", &header[..header.len() - 2]))?, Verdict::WrongHeader),
        (send(&format!("{header}{header}6869"))?, Verdict::SecondHeader),
        (send(&format!("{header}6869{header}"))?.split_at(30), Verdict::SecondHeader),
    ];
    for (number, (client_of, wanted)) in cases.into_iter().enumerate() {
        let report = client_of.run(&client)?;
        let told = wait_until("a report", Duration::from_secs(5), || {
            Unwrapped::told(&front).ok().filter(|told| told.len() == number + 1)
        })?;
        let told = &told[number];
        assert_eq!(told.verdict, wanted, "{number}: {report:?}");
        assert_eq!(report.ok, wanted == Verdict::Right, "{number}: {report:?}");
        if wanted == Verdict::Right {
            assert_eq!((told.up, told.down, &told.error), (report.bytes, report.bytes, &None), "{number}");
        }
    }
    let report = Client::to(server.at4(9)).header("env", "pr-1").read_all().run(&client)?;
    assert_eq!(report.error.as_deref(), Some("ConnectionReset"), "{report:?}");
    Ok(())
}

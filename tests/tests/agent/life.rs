//! What the agent leaves behind, however it ends, and how it says whether it is ready.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testbed::{Agent, Cluster, eventually, picop_bin, require_privilege, wait_until};

use crate::Result;

const SOON: Duration = Duration::from_secs(10);
const ROUTES: &str = "services: []\n";

/// The cgroup of an agent's canary.
fn canary(cluster: &Cluster, agent: &Agent) -> PathBuf {
    cluster.cgroup_dir().join(format!("picop-canary-{}", agent.pid()))
}

/// The processes of a cgroup; none when there is no such cgroup.
fn processes(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Where the testbed puts agents.
fn agents_cgroup(cluster: &Cluster) -> PathBuf {
    cluster.v2_mount().join(format!("{}-agent", cluster.id()))
}

fn ready_files(cluster: &Cluster) -> usize {
    let entries = fs::read_dir(cluster.dir()).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("ready-")).count()
}

#[test]
fn an_orderly_end_leaves_nothing() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("orderly")?;
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Agent::start(&cluster, ROUTES)?;
        let canary = canary(&cluster, &agent);
        assert_eq!(processes(&canary).len(), 1, "a canary in {}", canary.display());
        assert_eq!(ready_files(&cluster), 1);
        agent.signal(signal)?;
        assert!(agent.wait(SOON)?.success());
        assert!(!canary.exists(), "{} is still there", canary.display());
        assert_eq!(processes(&agents_cgroup(&cluster)), [] as [i32; 0]);
        assert_eq!(ready_files(&cluster), 0, "a ready file of an agent that is gone");
    }
    Ok(())
}

#[test]
fn a_sudden_end_leaves_nothing_for_long() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("sudden")?;
    let mut agent = Agent::start(&cluster, ROUTES)?;
    let canary = canary(&cluster, &agent);
    let process = processes(&canary);
    assert_eq!(process.len(), 1);
    agent.kill9()?;
    assert!(eventually(SOON, || !canary.exists()), "{} is still there", canary.display());
    assert!(eventually(SOON, || !Path::new(&format!("/proc/{}", process[0])).exists()), "{process:?}");
    assert_eq!(processes(&agents_cgroup(&cluster)), [] as [i32; 0]);
    Ok(())
}

#[test]
fn a_canary_that_is_killed_is_replaced() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("canary")?;
    let agent = Agent::start(&cluster, ROUTES)?;
    let canary = canary(&cluster, &agent);
    let process = processes(&canary);
    kill_process(Pid::from_raw(process[0]).ok_or("a pid")?, Signal::KILL)?;
    let another = || processes(&canary).first().is_some_and(|pid| *pid != process[0]);
    assert!(eventually(SOON, another), "no canary after {process:?}");
    // And it is asked: the agent is ready again, if it was not all along.
    assert!(eventually(SOON, || ready_files(&cluster) == 1), "not ready again");
    let dead = |line: &serde_json::Value| {
        line["message"] == "ready" || line["message"] == "not ready: interception is not live"
    };
    let last = wait_until("a verdict of the new canary", SOON, || {
        agent.log_lines().iter().rfind(|line| dead(line)).filter(|line| line["message"] == "ready").cloned()
    });
    assert!(last.is_ok());
    assert!(agent.stop()?.success());
    assert!(!canary.exists(), "{} is still there", canary.display());
    Ok(())
}

#[test]
fn the_next_agent_removes_what_the_last_one_could_not() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("next")?;
    let mut agent = Agent::start(&cluster, ROUTES)?;
    let canary = canary(&cluster, &agent);
    // Both end at once: nobody is left to clean up.
    let process = processes(&canary);
    kill_process(Pid::from_raw(process[0]).ok_or("a pid")?, Signal::STOP)?;
    agent.kill9()?;
    kill_process(Pid::from_raw(process[0]).ok_or("a pid")?, Signal::KILL)?;
    assert!(eventually(SOON, || processes(&canary).is_empty()));
    assert!(canary.exists(), "a positive control");
    let next = Agent::start(&cluster, ROUTES)?;
    assert!(!canary.exists(), "{} is still there", canary.display());
    assert!(next.stop()?.success());
    Ok(())
}

#[test]
fn readiness_hangs_on_the_canary() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("ready")?;
    let agent = Agent::start(&cluster, ROUTES)?;
    let file = fs::read_dir(cluster.dir())?.flatten().map(|entry| entry.path());
    let file =
        file.into_iter().find(|path| path.display().to_string().contains("/ready-")).ok_or("a ready file")?;
    assert_eq!(fs::read_to_string(&file)?.trim(), agent.pid().to_string());
    // Whatever interception looks like, nobody proves it any more.
    // (One process that stops is replaced.)
    let freeze = canary(&cluster, &agent).join("cgroup.freeze");
    fs::write(&freeze, "1")?;
    // It takes more than one silence.
    assert!(eventually(3 * SOON, || !file.exists()), "ready without a canary");
    let said = |wanted: &str| {
        let lines = agent.log_lines();
        lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(wanted)))
    };
    assert!(said("interception is not live"));
    fs::write(&freeze, "0")?;
    assert!(eventually(SOON, || file.exists()), "the canary is back");
    assert!(agent.stop()?.success());
    assert!(!file.exists());
    Ok(())
}

#[test]
fn logs_for_people_have_no_colours_where_nobody_sees_them() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("text-log")?;
    let routes = cluster.dir().join("routes.yaml");
    let log = cluster.dir().join("text.log");
    fs::write(&routes, ROUTES)?;
    let mut child = Command::new(picop_bin()?)
        .args(["run", "--log-format", "text", "--routes"])
        .arg(&routes)
        .arg("--cgroup")
        .arg(cluster.cgroup_dir())
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()?;
    let ready = wait_until("a ready agent", SOON, || {
        fs::read_to_string(&log).ok().filter(|text| text.lines().any(|line| line.contains("ready")))
    });
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    let status = testbed::wait_timeout(&mut child, SOON)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let text = ready?;
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert!(!text.contains('\u{1b}'), "escape sequences in a file: {text:?}");
    Ok(())
}

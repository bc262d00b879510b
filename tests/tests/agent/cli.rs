//! Whatever is wrong, one sentence says what, and nothing was done.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use testbed::{Cluster, picop_bin, require_privilege};

use crate::Result;

const ROUTES: &str = "services: [{name: cart, addresses: [\"10.96.0.1:80\"]}]\n";

fn picop(args: &[&str]) -> Result<Output> {
    Ok(clean(Command::new(picop_bin()?)).args(args).output()?)
}

/// Without what the environment of whoever runs the tests says.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PICOP_") {
            command.env_remove(name);
        }
    }
    command.env("RUST_BACKTRACE", "1");
    command
}

/// Its only words are one line on standard error, in which all of `words` come, and it failed.
#[track_caller]
fn expect_sentence(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(stderr.starts_with("picop: ") && stderr.ends_with('\n'), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    }
    assert!(stderr.matches("(os error").count() <= 1, "it says the same twice: {stderr}");
}

/// A file with this content in the cluster's directory.
fn file(cluster: &Cluster, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
    let path = cluster.dir().join(name);
    fs::write(&path, content)?;
    Ok(path.to_str().ok_or("a path of plain ASCII")?.to_owned())
}

fn text(path: &Path) -> Result<&str> {
    Ok(path.to_str().ok_or("a path of plain ASCII")?)
}

/// The cgroups below the cluster's.
fn inner_cgroups(cluster: &Cluster) -> Result<usize> {
    let entries = fs::read_dir(cluster.cgroup_dir())?.flatten();
    Ok(entries.filter(|entry| entry.path().is_dir()).count())
}

#[test]
fn a_run_that_cannot_be() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("cli")?;
    let cgroup = cluster.cgroup_dir();
    let cgroup = text(&cgroup)?;
    let good = file(&cluster, "good.yaml", ROUTES)?;
    let unknown_key = file(&cluster, "key.yaml", format!("{ROUTES}workload: []\n"))?;
    let bad_address =
        file(&cluster, "address.yaml", "services:\n- name: cart\n  addresses: [\"cart:80\"]\n")?;
    let not_text = file(&cluster, "text.yaml", b"services: []\n# \xff\n")?;
    let empty = file(&cluster, "empty.yaml", "")?;
    let no_dir = format!("{}/none/ready", cluster.dir().display());
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--routes", "/nowhere.yaml", "--cgroup", cgroup], &["/nowhere.yaml", "No such file"]),
        (
            &["--routes", text(cluster.dir())?, "--cgroup", cgroup],
            &[text(cluster.dir())?, "not a regular file"],
        ),
        (&["--routes", &unknown_key, "--cgroup", cgroup], &["key.yaml:2:1", "workload"]),
        (&["--routes", &bad_address, "--cgroup", cgroup], &["address.yaml:3:15", "cart:80"]),
        (&["--routes", &not_text, "--cgroup", cgroup], &["text.yaml:2:3"]),
        (&["--routes", &empty, "--cgroup", cgroup], &["empty.yaml", "empty"]),
        (
            &["--routes", &good, "--cgroup", "no/such/cgroup"],
            &["no/such/cgroup", "cgroup v2", text(cluster.v2_mount())?],
        ),
        (&["--routes", &good, "--cgroup", "/proc"], &["/proc", "cgroup v2"]),
        (&["--routes", &good, "--cgroup", text(cluster.dir())?], &[text(cluster.dir())?, "cgroup v2"]),
        (&["--routes", &good, "--cgroup", &format!("{cgroup}/cgroup.procs")], &["cgroup.procs", "cgroup v2"]),
        (&["--routes", &good, "--cgroup", cgroup, "--log", "info,=="], &["--log", "info,=="]),
        (
            &["--routes", &good, "--cgroup", cgroup, "--ready-file", &no_dir, "--log", "off"],
            &["ready", "No such file"],
        ),
    ];
    for (args, words) in cases {
        let output = picop(&[&["run", "--log", "error"], args].concat());
        // The last of two `--log` would be an error of usage.
        let output = if args.contains(&"--log") { picop(&[&["run"], args].concat()) } else { output };
        expect_sentence(&output?, words);
        assert_eq!(inner_cgroups(&cluster)?, 0, "{args:?} left a cgroup behind");
    }
    Ok(())
}

#[test]
fn a_file_that_may_not_be_read() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("unreadable")?;
    let path = file(&cluster, "secret.yaml", ROUTES)?;
    fs::set_permissions(&path, Permissions::from_mode(0o000))?;
    // Root reads it all the same, unless it may not override the mode.
    let cgroup = cluster.cgroup_dir();
    let run = ["run", "--log", "error", "--routes", &path, "--cgroup", text(&cgroup)?];
    let output = without("-dac_override,-dac_read_search", &run)?;
    expect_sentence(&output, &[&path, "Permission denied"]);
    expect_sentence(
        &without("-dac_override,-dac_read_search", &["check", &path])?,
        &[&path, "Permission denied"],
    );
    Ok(())
}

#[test]
fn a_capability_that_is_missing() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("capabilities")?;
    let good = file(&cluster, "good.yaml", ROUTES)?;
    let cgroup = cluster.cgroup_dir();
    let run = ["run", "--log", "error", "--routes", &good, "--cgroup", text(&cgroup)?];
    let needed = ["CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_BPF"];
    for name in needed {
        let dropped = format!("-{}", name.trim_start_matches("CAP_").to_lowercase());
        let output = without(&dropped, &run)?;
        expect_sentence(&output, &[name]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            needed.iter().all(|other| *other == name || !stderr.contains(other)),
            "only {name}: {stderr}"
        );
    }
    expect_sentence(&without("-all", &run)?, &needed);
    assert_eq!(inner_cgroups(&cluster)?, 0);
    Ok(())
}

/// Runs the agent with some capabilities taken away, in the words of `setpriv` (util-linux).
fn without(capabilities: &str, args: &[&str]) -> Result<Output> {
    let mut command = clean(Command::new("setpriv"));
    command.arg("--bounding-set").arg(capabilities).arg("--inh-caps").arg(capabilities).arg("--");
    Ok(command.arg(picop_bin()?).args(args).output()?)
}

#[test]
fn a_command_line_that_makes_no_sense() -> Result {
    let cases: [(&[&str], &[&str]); 8] = [
        (&[], &["Usage: picop <COMMAND>", "run", "doctor", "check", "schema"]),
        (&["start"], &["start"]),
        (&["run"], &["--routes"]),
        (&["run", "--routes", "x", "--drain-timeout", "5"], &["--drain-timeout", "'5'", "ms, s or m"]),
        (&["run", "--routes", "x", "--header-timeout", "soon"], &["--header-timeout", "'soon'", "500ms"]),
        (&["run", "--routes", "x", "--connect-timeout", "-1s"], &["-1"]),
        (&["run", "--routes", "x", "--max-connections", "many"], &["--max-connections", "'many'"]),
        (&["run", "--routes", "x", "--log-format", "xml"], &["--log-format", "xml", "text, json"]),
    ];
    for (args, words) in cases {
        let output = picop(args)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "`{word}` is not in the answer to {args:?}: {stderr}");
        }
    }
    Ok(())
}

#[test]
fn help_names_every_option() -> Result {
    let help = |args: &[&str]| -> Result<String> {
        let output = picop(args)?;
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let top = help(&["--help"])?;
    let commands = ["run", "doctor", "status", "uninstall", "check", "schema"];
    for word in ["Routes pods' TCP connections by environment"].into_iter().chain(commands) {
        assert!(top.contains(word), "`{word}` is not in: {top}");
    }
    assert!(!top.contains("canary"), "nobody is to start that: {top}");
    let run = help(&["run", "--help"])?;
    for option in [
        "--routes",
        "--cgroup",
        "--log",
        "--log-format",
        "--ready-file",
        "--pin-dir",
        "--drain-timeout",
        "--header-grace",
        "--header-timeout",
        "--connect-timeout",
        "--max-connections",
        "--max-connections-per-workload",
    ] {
        let variable = option.trim_start_matches("--").replace('-', "_").to_uppercase();
        assert!(run.contains(&format!("{option} <")), "{option} is not in: {run}");
        assert!(run.contains(&format!("PICOP_{variable}")), "PICOP_{variable} is not in: {run}");
    }
    let uninstall = help(&["uninstall", "--help"])?;
    assert!(uninstall.contains("--pin-dir <") && uninstall.contains("--header-grace <"), "{uninstall}");
    let status = help(&["status", "--help"])?;
    assert!(status.contains("--pin-dir <") && status.contains("--json"), "{status}");
    assert!(help(&["--version"])?.starts_with("picop "));
    Ok(())
}

#[test]
fn check_and_schema() -> Result {
    let dir = std::env::temp_dir().join(format!("picop-check-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let outcome = (|| -> Result {
        let (good, bad) = (dir.join("good.yaml"), dir.join("bad.yaml"));
        fs::write(&good, ROUTES)?;
        fs::write(&bad, "services:\n- name: cart\n  address: \"10.96.0.1:80\"\n")?;
        let output = picop(&["check", text(&good)?])?;
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8(output.stdout)?;
        assert!(stdout.contains("good.yaml: 1 services (1 addresses"), "{stdout}");
        let output = picop(&["check", text(&bad)?])?;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        let stderr = String::from_utf8(output.stderr)?;
        assert!(stderr.contains("bad.yaml:3:3") && stderr.contains("address"), "{stderr}");
        expect_sentence(&picop(&["check", "/nowhere.yaml"])?, &["/nowhere.yaml", "No such file"]);
        Ok(())
    })();
    fs::remove_dir_all(&dir)?;
    outcome?;

    let output = picop(&["schema"])?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/routes.schema.json");
    assert_eq!(
        String::from_utf8(output.stdout)?,
        fs::read_to_string(shipped)?,
        "`picop schema` is what is shipped"
    );
    Ok(())
}

#[test]
fn the_environment_says_what_the_command_line_does_not() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("env")?;
    let bad = file(&cluster, "bad.yaml", "services: 1\n")?;
    let with = |name: &str, value: &OsStr| -> Result<Output> {
        let mut command = clean(Command::new(picop_bin()?));
        command.arg("run").env("PICOP_ROUTES", &bad).env("PICOP_CGROUP", cluster.cgroup_dir());
        Ok(command.env(name, value).output()?)
    };
    expect_sentence(&with("PICOP_LOG_FORMAT", OsStr::new("text"))?, &["bad.yaml:1:"]);
    expect_sentence(&with("PICOP_CGROUP", OsStr::new("no/such"))?, &["no/such"]);
    expect_sentence(&with("PICOP_LOG", OsStr::new("=="))?, &["=="]);
    let output = with("PICOP_DRAIN_TIMEOUT", OsStr::new("long"))?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    Ok(())
}

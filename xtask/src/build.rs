//! The programs that tests and the demo run.

use crate::{build_ebpf, exec, workspace};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What users run, as the demo and the end-to-end tests run it.
pub const PROFILE: &str = "demo";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The agent and its command line.
    pub picop: PathBuf,
    /// A service that speaks PiCoP as an instrumented application does.
    pub hop: PathBuf,
}

/// Builds the agent and the demo's service, and before them whatever they need that is missing.
///
/// The profile is cargo's: [`PROFILE`] unless there is a reason.
pub fn agent(profile: &str) -> Result<Programs> {
    build_ebpf::ensure()?;
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root()).args([
        "build",
        "--profile",
        profile,
        "--package",
        "picop-agent",
        "--package",
        "picop-tests",
        "--bins",
    ]);
    let built = executables("building picop and the demo's service", &mut cargo)?;
    let find = |name: &str| {
        built
            .iter()
            .find(|executable| executable.name == name)
            .map(|executable| executable.path.clone())
            .with_context(|| format!("cargo built no program {name}"))
    };
    Ok(Programs { picop: find("picop")?, hop: find("hop")? })
}

/// Builds the programs of benchmarks and training: clients and servers.
pub fn hop() -> Result<PathBuf> {
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root());
    cargo.args(["build", "--release", "--package", "picop-tests", "--bin", "hop"]);
    let built = executables("building clients and servers for picop to meet", &mut cargo)?;
    Ok(built.into_iter().next().context("cargo built no program")?.path)
}

/// Something cargo built that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    pub name: String,
    pub path: PathBuf,
    /// The directory of the package, where cargo would run it if it is a test.
    pub package: PathBuf,
    /// Whether it is a test program, rather than one the tests start.
    pub is_test: bool,
}

/// Runs cargo, whose progress shows, and returns the executables it reports.
pub fn executables(what: &str, cargo: &mut Command) -> Result<Vec<Executable>> {
    exec::announce(what);
    let output = cargo
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    anyhow::ensure!(output.status.success(), "cargo failed ({}) while {what}", output.status);
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    Ok(messages.lines().filter_map(executable).collect())
}

fn executable(message: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = PathBuf::from(message.get("executable")?.as_str()?);
    let name = message.pointer("/target/name")?.as_str()?.to_owned();
    let package = PathBuf::from(message.get("manifest_path")?.as_str()?).parent()?.to_path_buf();
    let is_test = message.pointer("/profile/test").and_then(Value::as_bool).unwrap_or(false);
    Some(Executable { name, path, package, is_test })
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn only_what_can_be_run_is_taken_from_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"hop"},
            "profile":{"test":false},"executable":"/w/target/demo/hop"}"#;
        let found = executable(message).expect("a program");
        assert_eq!((found.name.as_str(), found.package.to_str()), ("hop", Some("/w/tests")));
        assert!(!found.is_test);
        let library = r#"{"reason":"compiler-artifact","target":{"name":"testbed"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable("not a message"), None);
    }
}

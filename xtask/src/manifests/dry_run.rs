//! `kubectl apply --dry-run=client`, with a double of the API server to ask what there is.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::kube::{ApiServer, Definition};

/// Kinds that are the cluster's, of those in the manifests.
const OF_THE_CLUSTER: [&str; 6] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "SecurityContextConstraints",
];

/// Has kubectl apply a file, so far as it can tell without a server's help; the objects that it would have sent.
pub fn apply(kubectl: &Path, home: &Path, file: &Path, text: &str) -> Result<Vec<Value>> {
    let server = ApiServer::start()?;
    let definitions = kinds(text);
    let expected = text.lines().filter(|line| line.starts_with("kind: ")).count();
    server.define(definitions);
    server.fail(|faults| faults.anonymous = true);
    let kubeconfig = server.kubeconfig(home)?;
    let name = file.file_name().unwrap_or_default();
    let output = {
        let mut command = Command::new(kubectl);
        // It keeps what it has learnt of a server; the next double may have the same address.
        command.arg("--cache-dir").arg(home.join(format!("cache-{}", std::process::id())).join(name));
        command.arg("--kubeconfig").arg(&kubeconfig);
        command.args(["apply", "--dry-run=client", "--output=json", "--filename"]).arg(file);
        command.output().context("running kubectl")?
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "kubectl does not take it: {said}");
    let answer: Value = serde_json::from_slice(&output.stdout).context("reading what kubectl would send")?;
    // One object comes as it is.
    let objects = match answer["kind"].as_str() {
        Some("List") => answer["items"].as_array().cloned().unwrap_or_default(),
        _ => vec![answer],
    };
    ensure!(objects.len() == expected, "{} objects of {expected} would be sent", objects.len());
    let asked = server.requests();
    ensure!(
        asked.iter().any(|it| it.starts_with("GET /openapi/v3"))
            && asked.iter().all(|it| it.starts_with("GET ")),
        "kubectl did not ask, or wrote although it was not to: {asked:?}"
    );
    Ok(objects)
}

/// The kinds of the objects in a file, but for those that the double knows by itself.
fn kinds(text: &str) -> Vec<Definition> {
    let field = |object: &str, name: &str| {
        let value = object.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(str::to_owned)
    };
    let of = |object: &str| {
        let (api_version, kind) = (field(object, "apiVersion")?, field(object, "kind")?);
        let namespaced = !OF_THE_CLUSTER.contains(&kind.as_str());
        Some(Definition { api_version, kind, namespaced })
    };
    let found: BTreeSet<_> = text.split("\n---\n").filter_map(of).collect();
    found.into_iter().filter(|it| !ApiServer::knows(&it.api_version, &it.kind)).collect()
}

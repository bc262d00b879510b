//! Users whose password MySQL keeps hashed only (`caching_sha2_password`, its default): a server that has not seen them since
//! it started wants the password itself, by TLS, a Unix socket, or encrypted for its key.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testbed::mysql::{Engine, Kind};

use crate::Result;
use crate::database::{Database, address};
use crate::refused::says;
use crate::running::Controller;

/// `careful` is to come by TLS only.
const USERS: &str = "\
CREATE USER IF NOT EXISTS app@'%' IDENTIFIED WITH caching_sha2_password BY 'secret';
CREATE USER IF NOT EXISTS careful@'%' IDENTIFIED WITH caching_sha2_password BY 'secret' REQUIRE SSL;
CREATE USER IF NOT EXISTS stranger@'%' IDENTIFIED WITH caching_sha2_password BY 'secret';
GRANT ALL ON picop.* TO app@'%', careful@'%';
";

/// An authority, with its certificate in a file.
fn authority(dir: &Path, name: &str) -> Result<(CertifiedIssuer<'static, KeyPair>, PathBuf)> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let path = dir.join(format!("{name}.pem"));
    fs::write(&path, authority.pem())?;
    Ok((authority, path))
}

/// The options of a server that shows a certificate for that name.
fn certificate(dir: &Path, issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Result<Vec<String>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, issuer)?;
    let written =
        [("ssl-ca", issuer.pem()), ("ssl-cert", certificate.pem()), ("ssl-key", key.serialize_pem())];
    let option = |(option, pem): &(&str, String)| {
        let path = dir.join(option);
        fs::write(&path, pem)?;
        Ok(format!("--{option}={}", path.display()))
    };
    written.iter().map(option).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_let_in_by_every_kind_of_connection_on_mysql() -> Result {
    const DENIED: [&str; 2] = ["refuses the user", "Access denied"];
    const CERTIFICATE: [&str; 2] = ["certificate is not accepted", "ssl-ca"];
    let Some(engine) = Engine::here_or_skip(Kind::MySql, module_path!()) else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let at = address(1);
    let (authority, known) = authority(dir.path(), "known")?;
    let (_, unknown) = self::authority(dir.path(), "unknown")?;
    let options = certificate(dir.path(), &authority, &at.ip().to_string())?;
    let mut server = Database::at(&engine, dir.path(), at, USERS, &options).await?;
    let tcp = |user: &str, settings: &str| format!("mysql://{user}@{at}/picop{settings}");
    let verified = |ca: &Path| format!("?ssl-mode=verify_identity&ssl-ca={}", ca.display());

    for good in [
        // First: no password is known to the server yet.
        tcp("app:secret", "?ssl-mode=disabled"),
        tcp("app:secret", "?ssl-mode=disabled"),
        tcp("app:secret", ""),
        tcp("careful:secret", ""),
        tcp("careful:secret", "?ssl-mode=required"),
        tcp("careful:secret", &verified(&known)),
        server.url_of("careful:secret", ""),
    ] {
        Controller::start(&good).await?.stop().await?;
    }
    server.kill_and_restart().await?;
    Controller::start(&server.url_of("app:secret", "")).await?.stop().await?;

    let refuses = |url: String, words: [&'static str; 2]| async move {
        let said = says("127.0.0.1:0", &url).await?;
        assert!(words.iter().all(|word| said.contains(word)), "{url}: {words:?}: {said:?}");
        assert!(said.starts_with("picop: ") && said.lines().count() == 1, "{said:?}");
        assert!(!said.contains("secret"), "{said:?}");
        Ok::<_, anyhow::Error>(())
    };
    refuses(tcp("app:secret2", ""), DENIED).await?;
    refuses(tcp("nobody:secret", ""), DENIED).await?;
    refuses(tcp("stranger:secret", ""), DENIED).await?;
    refuses(tcp("careful:secret", "?ssl-mode=disabled"), DENIED).await?;
    refuses(tcp("app:secret", &verified(&unknown)), CERTIFICATE).await?;
    refuses(tcp("app:secret", "?ssl-mode=verify_identity"), CERTIFICATE).await?;
    let elsewhere = server.url_of("root", "").replace("/picop?", "/none?");
    refuses(elsewhere, ["no such database", "CREATE DATABASE"]).await
}

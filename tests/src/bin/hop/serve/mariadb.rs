//! Asking MariaDB by its own client, which knows nothing of PiCoP: its connection goes out behind the request's context.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::PATIENCE;
use crate::conn::How;
use crate::prefix;

/// Adds a thing if the request is `add THING`, and lists what is there, in the order it came.
pub fn ask(to: SocketAddr, context: &[u8], request: &[u8]) -> Result<Vec<String>> {
    let request = str::from_utf8(request)?.trim_end();
    let add = match request.strip_prefix("add ") {
        Some(thing) => {
            ensure!(thing.chars().all(|c| c.is_ascii_alphanumeric()), "{thing:?} is no thing to add");
            format!("INSERT INTO shop.cart SELECT COALESCE(MAX(id), 0) + 1, '{thing}' FROM shop.cart; ")
        }
        None => String::new(),
    };
    let list = query(to, context, &format!("{add}SELECT what FROM shop.cart ORDER BY id"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn query(to: SocketAddr, context: &[u8], sql: &str) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening for MariaDB's client")?;
    let port = listener.local_addr()?.port();
    let client = Command::new("mariadb")
        .args(["--no-defaults", "--protocol=tcp", "--skip-ssl", "--user=app", "--password=secret", "--batch"])
        .args(["--skip-column-names", "--connect-timeout=20", "--host=127.0.0.1"])
        .args([format!("--port={port}"), format!("--execute={sql}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting MariaDB's client")?;
    let how = How { to, bind: None, mapped: false, nonblocking: false, timeout: PATIENCE };
    let context = context.to_vec();
    // It accepts until it is done: a client that never connects ends first, and nobody waits for this thread.
    thread::spawn(move || -> Result<()> {
        let (program, _) = listener.accept()?;
        prefix::forward(&program, &how, &context)
    });
    let output = client.wait_with_output().context("waiting for MariaDB's client")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "MariaDB at {to}: {}", said.trim_end());
    Ok(String::from_utf8(output.stdout)?)
}

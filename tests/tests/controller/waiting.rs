//! A controller that is started before its database.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use testbed::mysql::{Engine, on_each_engine};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::Result;
use crate::database::Database;
use crate::refused::says;
use crate::running::Controller;

const SOON: Duration = Duration::from_secs(30);

/// One that says that it waits.
async fn waiting(database: &str) -> Result<Child> {
    let mut command = Command::new(testbed::picop_bin()?);
    command.args(["controller", "--log-format", "json", "--listen", "127.0.0.1:0", "--database", database]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("it is piped")?).lines();
    let line = timeout(SOON, lines.next_line()).await.context("it says nothing")??.context("it ended")?;
    let said: Value = serde_json::from_str(&line)?;
    anyhow::ensure!(said["message"] == "the database is not there; it is waited for", "{said}");
    anyhow::ensure!(!line.contains("secret"), "{line}");
    Ok(child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_while_it_waits() -> Result {
    let dir = tempfile::tempdir()?;
    let nowhere = format!("mysql://picop:secret@localhost/picop?socket={}/none", dir.path().display());
    let mut child = waiting(&nowhere).await?;
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?));
    rustix::process::kill_process(pid.context("it has ended")?, rustix::process::Signal::TERM)?;
    let status = timeout(SOON, child.wait()).await.context("it does not stop")??;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}

on_each_engine!(async a_database_that_comes_later_is_waited_for_and_one_that_refuses_is_not);

async fn a_database_that_comes_later_is_waited_for_and_one_that_refuses_is_not(engine: &Engine) -> Result {
    let dir = tempfile::tempdir()?;
    let database = Database::url_in(dir.path());
    let controller = tokio::spawn({
        let database = database.clone();
        async move { Controller::start(&database).await }
    });
    // This one stands for the other: it has said that nobody is there.
    drop(waiting(&database).await?);
    let _server = Database::start(engine, dir.path()).await?;
    let controller = controller.await??;
    controller.good("PUT", "/proxy/p/register", &json!({"endpoint": "http://127.0.0.1:1"})).await?;
    assert!(controller.log().contains("it is waited for"), "{}", controller.log());
    controller.stop().await?;

    let refused = database.replace("root@", "nobody:secret@");
    let said = says("127.0.0.1:0", &refused).await?;
    assert!(said.starts_with("picop: cannot open the database: the database refuses the user"), "{said}");
    assert!(said.contains("Access denied") && !said.contains("secret"), "{said}");
    Ok(())
}

//! Controllers that cannot be.

use anyhow::Context as _;
use tokio::process::Command;

use crate::Result;
use crate::running::Controller;

/// Runs one that ends by itself, and returns what it says.
pub async fn says(listen: &str, database: &str) -> Result<String> {
    let mut command = Command::new(testbed::picop_bin()?);
    command.args(["controller", "--log", "error", "--listen", listen, "--database", database]);
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), output).await;
    let output = output.context("it runs on")??;
    anyhow::ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentence_says_why() -> Result {
    let dir = tempfile::tempdir()?;
    let database = format!("sqlite:{}", dir.path().join("controller.db").display());
    let controller = Controller::start(&database).await?;
    let taken = controller.place().now().to_string();
    let free = "127.0.0.1:0";
    let other = format!("sqlite:{}", dir.path().join("other.db").display());
    std::fs::write(dir.path().join("text.db"), "not a database, but text that is long enough to look at\n")?;
    let text = format!("sqlite:{}", dir.path().join("text.db").display());
    let nowhere = format!("mysql://picop:secret@localhost/picop?socket={}/none", dir.path().display());
    for (listen, database, words) in [
        (free, database.as_str(), ["another controller uses", "controller.db"]),
        (free, "sqlite:/no/such/dir/controller.db", ["/no/such/dir/controller.db", "No such file"]),
        (free, &text, ["the database fails", "not a database"]),
        (free, &nowhere, ["cannot reach the database", "No such file"]),
        (&taken, &other, ["cannot listen", &taken]),
    ] {
        let said = says(listen, database).await?;
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said:?}");
        assert!(said.starts_with("picop: ") && said.lines().count() == 1, "{said:?}");
        assert!(!said.contains("secret"), "{said:?}");
    }
    controller.stop().await
}

//! `--keep` and `--clean`.

use anyhow::Result;

use super::stage::{CLIENTS, Stage};
use crate::exec;

/// Prints what can be tried in a cluster that stays up.
pub fn print_commands(stage: &Stage) -> Result<()> {
    let hop = testbed::hop_bin()?;
    let hop = hop.display();
    println!(
        "\nThe cluster stays up. In a pod (its network namespace and its cgroup) runs whatever follows one of these:\n"
    );
    for (client, environment) in CLIENTS {
        let pod = stage.pod(client)?;
        let name = client.replace('-', "_");
        println!("  # {}", environment.unwrap_or("no environment"));
        println!(
            "  {name}='{hop} enter --cgroup {} --netns {} --'",
            pod.cgroup_dir().display(),
            pod.netns_path().display()
        );
    }
    println!(
        "
For example, paste those and then:

  # who serves a request of pr-1: frontend, cart and db
  $client_pr_1 bash -c 'exec 3<>/dev/tcp/{}/{}; echo who >&3; cat <&3'
  # which redis pr-2 has, and which all others
  $client_pr_2 redis-cli -h {db} get who
  $client redis-cli -h {db} get who
  # what picop decided, and why
  grep '\"access\"' {log} | tail
  # the routes: edit, save, ask again
  ${{EDITOR:-vi}} {routes}
  # remove everything
  cargo xtask demo --clean
",
        stage.frontend.ip(),
        stage.frontend.port(),
        db = stage.db.ip(),
        log = stage.agent()?.log_path().display(),
        routes = stage.agent()?.routes_path().display(),
    );
    Ok(())
}

/// Removes clusters that were left up, or that killed runs left.
pub fn clean() -> Result<()> {
    let removed = testbed::remove_kept()?;
    for id in &removed {
        exec::announce(&format!("removed {id}"));
    }
    if removed.is_empty() {
        exec::announce("nothing to remove");
    }
    Ok(())
}

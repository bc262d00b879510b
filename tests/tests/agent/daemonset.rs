//! The agent with no more rights than the DaemonSet gives it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use testbed::{Agent, AgentOptions, Cluster, require_privilege, wait_until};

use crate::Result;

/// The names below `add:`, as the manifest has them.
fn asked_for() -> Result<Vec<String>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base/daemonset.yaml");
    let text = fs::read_to_string(manifest)?;
    let lines = text.lines().map(str::trim).skip_while(|line| *line != "add:").skip(1);
    let listed = lines.filter(|line| !line.starts_with('#')).map_while(|line| line.strip_prefix("- "));
    Ok(listed.map(str::to_lowercase).collect())
}

/// The words of `setpriv` (util-linux) that leave these and no others.
fn with(capabilities: &[String]) -> Vec<String> {
    let all = capabilities.iter().fold("-all".to_owned(), |text, name| text + ",+" + name);
    ["setpriv", "--bounding-set", &all, "--inh-caps", &all, "--"].map(str::to_owned).to_vec()
}

/// At a cgroup with the mode that the root of the tree has on every node.
#[test]
fn its_capabilities_are_enough_and_the_one_for_the_canary_is_needed() -> Result {
    require_privilege!(Ok(()));
    let cluster = Cluster::new("daemonset")?;
    fs::set_permissions(cluster.cgroup_dir(), Permissions::from_mode(0o555))?;
    let capabilities = asked_for()?;
    assert!(capabilities.iter().any(|name| name == "net_admin"), "{capabilities:?}");
    let options = |capabilities: &[String]| AgentOptions {
        routes: "services: []\nworkloads: []\n".to_owned(),
        through: with(capabilities),
        ..AgentOptions::default()
    };
    // Ready: its programs are attached, and the canary has seen them at work.
    let agent = Agent::start_with(&cluster, options(&capabilities))?;
    assert!(agent.stop()?.success());

    let fewer: Vec<_> = capabilities.into_iter().filter(|name| name != "dac_override").collect();
    let mut refused = Agent::start_with(&cluster, AgentOptions { unready: true, ..options(&fewer) })?;
    wait_until("its end", std::time::Duration::from_secs(30), || {
        (!refused.is_running().ok()?).then_some(())
    })?;
    let said = format!("{:?}", refused.log_lines());
    assert!(said.contains("CAP_DAC_OVERRIDE"), "{said}");
    Ok(())
}

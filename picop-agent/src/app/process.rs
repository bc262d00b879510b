//! What this process must be allowed to do, and may use.

use anyhow::{Context as _, Result, bail};

use crate::intercept::capabilities;

/// Refuses to start without what the agent cannot do without.
pub fn check_capabilities() -> Result<()> {
    let effective = capabilities::effective().context("cannot tell which capabilities this process has")?;
    let missing = capabilities::missing(effective);
    if !missing.is_empty() {
        let list: Vec<_> = missing.iter().map(|c| format!("{} ({})", c.name, c.purpose)).collect();
        bail!("missing capabilities: {}; run as root, or give these to the container", list.join(", "));
    }
    Ok(())
}

/// Two descriptors a connection: as many as the hard limit lets.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}

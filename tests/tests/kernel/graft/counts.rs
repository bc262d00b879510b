//! What became of messages is counted: in each connection's line, and for all of them in `picop status`.

use std::path::Path;

use testbed::{BpfFs, require_privilege, status};

use super::Grafted;
use crate::common::{Result, Scene, scaled};

/// Of a direction, so far: bytes redirected, and passed.
fn counted(dir: &Path, way: &str) -> Result<(u64, u64)> {
    let status = status(dir)?;
    let of = &status["sets"][0]["grafted"][way];
    let count = |name: &str| of[name].as_u64().ok_or_else(|| format!("no {name} in {status}"));
    Ok((count("redirected_bytes")?, count("passed_bytes")?))
}

#[test]
fn in_the_line_and_in_status() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("graft-counts")?;
    let bpf = BpfFs::mount(&scene.cluster)?;
    let dir = bpf.pin_dir();
    let dir_text = dir.display().to_string();
    let it = Grafted::in_scene(scene, "graft: always", false, &["--pin-dir", &dir_text])?;
    assert_eq!((counted(&dir, "up")?, counted(&dir, "down")?), ((0, 0), (0, 0)));
    let size = scaled(2_000_000) as u64;
    let server = it.serve(&format!("--expect {size} --send {size} --end late"))?;
    let outcomes = it.exchange_until_grafted(&server, &format!("--send {size} --expect {size}"))?;
    let sums = outcomes.iter().map(super::Outcome::grafted);
    let (up, down) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let total = outcomes.len() as u64 * size;
    // Connections that have ended are counted like the others: as soon as their line is written.
    assert_eq!(counted(&dir, "up")?, (up, total - up));
    // A server whose client has ended its stream has left the map, and what it sends then is counted by the relay alone.
    let (redirected, passed) = counted(&dir, "down")?;
    assert!(redirected == down && passed <= total - down, "{redirected} {passed}");
    Ok(())
}

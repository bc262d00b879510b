//! `hop train`, by which builds for installation see what picop does.

use std::path::Path;
use std::process::{Command, Output};

use testbed::{hop_bin, picop_bin};

use crate::Result;

fn train(picop: &Path) -> Result<Output> {
    Ok(Command::new(hop_bin()?).args(["train", "--requests", "400", "--picop"]).arg(picop).output()?)
}

#[test]
fn it_asks_and_ends_a_gateway() -> Result {
    let trained = train(&picop_bin()?)?;
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    Ok(())
}

#[test]
fn what_is_no_gateway_is_not_trained() -> Result {
    let failed = train(Path::new("/bin/false"))?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("the gateway ended"), "{said}");
    Ok(())
}

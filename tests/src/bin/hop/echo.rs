//! A server that sends back what it gets.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use anyhow::Result;

use crate::server;

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Say this first, on every connection, as servers that speak first do
    #[arg(long)]
    greeting: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let listener = server::listen(args.listen)?;
    let greeting = args.greeting.clone().unwrap_or_default();
    server::serve(&listener, move |mut stream, _| {
        stream.write_all(greeting.as_bytes())?;
        let mut buf = vec![0; 64 * 1024];
        loop {
            let count = stream.read(&mut buf)?;
            if count == 0 {
                return Ok(stream.shutdown(Shutdown::Write)?);
            }
            stream.write_all(&buf[..count])?;
        }
    })
}

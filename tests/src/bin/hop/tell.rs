//! A server of many ports that tells whoever connects at which address it was met, and reads what it is sent to its end.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::thread;

use anyhow::Result;

use crate::server;

#[derive(clap::Args)]
pub struct Args {
    /// The first port to listen at
    #[arg(long)]
    listen: SocketAddr,
    /// At how many ports, from that one on
    #[arg(long, default_value_t = 1)]
    ports: u16,
}

pub fn run(args: &Args) -> Result<()> {
    let mut serving = Vec::new();
    // The first port last: whoever waits for it finds all of them.
    for port in (0..args.ports).rev() {
        let listener = server::listen(SocketAddr::new(args.listen.ip(), args.listen.port() + port))?;
        serving.push(thread::spawn(move || {
            server::serve(&listener, |mut stream, _| {
                let local = stream.local_addr()?;
                let ip: IpAddr = local.ip().to_canonical();
                writeln!(stream, "{}", SocketAddr::new(ip, local.port()))?;
                stream.shutdown(Shutdown::Write)?;
                let mut buf = [0; 1024];
                // What is left unread would turn the close into a reset.
                while stream.read(&mut buf)? > 0 {}
                Ok(())
            })
        }));
    }
    for thread in serving {
        thread.join().expect("it does not panic")?;
    }
    Ok(())
}

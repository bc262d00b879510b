//! A forwarder that makes an instrumented client of any program: what connects to it is connected on, with a PiCoP header
//! ahead of its bytes.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::carry::carry;
use crate::conn::{Conn, How};
use crate::{payload, server};

/// Bounds each wait for the server. As long as a test's idle connection may be.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone)]
pub struct Args {
    /// Where programs connect to
    #[arg(long)]
    listen: SocketAddr,
    /// Where they are connected on to
    #[arg(long)]
    to: SocketAddr,
    /// Reach the IPv4 address through an IPv6 socket (`::ffff:a.b.c.d`)
    #[arg(long)]
    mapped: bool,
    /// An entry of the header; may be repeated (`env` stands for `env-id`)
    #[arg(long, required = true, value_name = "KEY=VALUE", value_parser = payload::entry)]
    header: Vec<(String, String)>,
}

pub fn run(args: &Args) -> Result<()> {
    let header = payload::header(&args.header)?;
    let how = How { to: args.to, bind: None, mapped: args.mapped, nonblocking: false, timeout: PATIENCE };
    let listener = server::listen(args.listen)?;
    server::serve(&listener, move |program, _| forward(&program, &how, &header))
}

/// Connects a program on, `header` first.
pub fn forward(program: &TcpStream, how: &How, header: &[u8]) -> Result<()> {
    let conn = match Conn::connect(how) {
        Ok(conn) => conn,
        Err(error) => {
            server::reset(program.try_clone()?)?;
            return Err(error).with_context(|| format!("connecting to {}", how.to));
        }
    };
    // At once, before anything is read: the server may be one that speaks first.
    (&conn).write_all(header).context("writing the header")?;
    let (up, down) = thread::scope(|scope| {
        let up = scope.spawn(|| carry(program, &conn, || conn.half_close()));
        let down = carry(&conn, program, || program.shutdown(Shutdown::Write));
        if down.is_err() {
            // The program would wait for an answer for ever, and `up` for the program.
            program.shutdown(Shutdown::Both).ok();
        }
        (up.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), down)
    });
    up.context("from the program to the server")?;
    down.context("from the server to the program")?;
    Ok(())
}

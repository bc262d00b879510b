//! An instrumented server of any program: it reads the PiCoP header off each connection, as a server's library does, and
//! carries what follows to a server that knows nothing of it. It takes no connection without exactly the header it expects.
//!
//! It prints a line of JSON ([`testbed::Unwrapped`]) when a connection has ended.

mod inspect;

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, SockAddr, Socket, Type};
use testbed::{Unwrapped, Verdict};

use crate::carry::carry;
use crate::{payload, server};
use inspect::{Inspector, Violation};

/// Bounds each wait for a client. As long as a test's idle connection may be.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone)]
pub struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    #[command(flatten)]
    server: Server,
    /// An entry of the header that every connection must begin with; may be repeated (`env` stands for `env-id`)
    #[arg(long, required = true, value_name = "KEY=VALUE", value_parser = payload::entry)]
    header: Vec<(String, String)>,
}

#[derive(clap::Args, Clone)]
#[group(required = true, multiple = false)]
struct Server {
    /// The server that gets what follows the header
    #[arg(long)]
    to: Option<SocketAddr>,
    /// The same, at a socket in the file system
    #[arg(long)]
    to_path: Option<PathBuf>,
}

impl Server {
    fn connect(&self) -> io::Result<Socket> {
        let (domain, address) = match (&self.to, &self.to_path) {
            (Some(to), _) => (Domain::for_address(*to), SockAddr::from(*to)),
            (None, Some(path)) => (Domain::UNIX, SockAddr::unix(path)?),
            (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect(&address)?;
        if self.to.is_some() {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    }
}

pub fn run(args: &Args) -> Result<()> {
    let listener = server::listen(args.listen)?;
    let args = args.clone();
    server::serve(&listener, move |client, _| {
        let mut report = Unwrapped::default();
        let outcome = serve(&args, &client, &mut report);
        if let Err(error) = &outcome {
            match Violation::of(error) {
                Some(violation) => report.verdict = violation.verdict(),
                None => report.error = Some(format!("{:?}: {error}", error.kind())),
            }
            server::reset(client)?;
        }
        // One write for each line: many threads share the output.
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    })
}

fn serve(args: &Args, client: &TcpStream, report: &mut Unwrapped) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut from = Reader { stream: client, inspector: Inspector::new(&args.header) };
    report.verdict = Verdict::Silent;
    from.read_header()?;
    report.verdict = Verdict::Right;
    let server = args.server.connect()?;
    let aborted = AtomicBool::new(false);
    let give_up = || {
        aborted.store(true, Ordering::SeqCst);
        // Whoever waits for either of them would wait for ever. One that is gone already needs nothing. The client is
        // told nothing by this: it is to be reset.
        client.shutdown(Shutdown::Read).ok();
        server.shutdown(Shutdown::Both).ok();
    };
    // What looks like the end of a stream then is none.
    let end = |shut: &dyn Fn() -> io::Result<()>| {
        if aborted.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionAborted.into()) } else { shut() }
    };
    let (up, down) = thread::scope(|scope| {
        let up = scope.spawn(|| {
            carry(from, &server, || end(&|| server.shutdown(Shutdown::Write))).inspect_err(|_| give_up())
        });
        let down =
            carry(&server, client, || end(&|| client.shutdown(Shutdown::Write))).inspect_err(|_| give_up());
        (up.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), down)
    });
    match (up, down) {
        (Ok(up), Ok(down)) => {
            (report.up, report.down) = (up, down);
            Ok(())
        }
        // The one that failed first, not what became of the other.
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(up), Err(down)) => Err(if up.kind() == io::ErrorKind::ConnectionAborted { down } else { up }),
    }
}

/// A client's stream without its header.
struct Reader<'a> {
    stream: &'a TcpStream,
    inspector: Inspector,
}

impl Reader<'_> {
    /// Reads until the header is whole, and right.
    fn read_header(&mut self) -> io::Result<()> {
        let mut buf = [0; 4096];
        while !self.inspector.has_header() {
            let count = self.stream.read(&mut buf)?;
            self.inspector.take(&buf[..count])?;
        }
        Ok(())
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let early = self.inspector.early(buf);
        if early > 0 {
            return Ok(early);
        }
        let count = self.stream.read(buf)?;
        self.inspector.look(&buf[..count])?;
        Ok(count)
    }
}

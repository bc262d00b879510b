//! A server that writes down what it gets: one file per connection in a directory, named by the connection's number.
//! `<n>.from` holds the client's address; `<n>.hex` grows byte by byte; `<n>.end` appears when the connection ended and holds `eof` or the error's kind.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::hex;

use crate::server;

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where to write; made if absent
    #[arg(long)]
    dir: PathBuf,
    /// What to answer, once, as soon as something came (or the client's end of stream)
    #[arg(long, default_value = "recorded\n")]
    answer: String,
    /// Answer before anything came
    #[arg(long)]
    speak_first: bool,
    /// Reset the connection as soon as so many bytes came
    #[arg(long)]
    reset_after: Option<usize>,
    /// Wait so long before reading, so that the client's data stays on its way
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

pub fn run(args: &Args) -> Result<()> {
    fs::create_dir_all(&args.dir).with_context(|| format!("creating {}", args.dir.display()))?;
    let listener = server::listen(args.listen)?;
    let (dir, answer, speak_first) = (args.dir.clone(), args.answer.clone(), args.speak_first);
    let (reset_after, delay) = (args.reset_after, Duration::from_millis(args.delay_ms));
    server::serve(&listener, move |stream, number| {
        // A connection that is reset already has no peer any more; the record says how it went all the same.
        let from = stream.peer_addr().map_or_else(|error| error.to_string(), |from| from.to_string());
        write_whole(&dir.join(format!("{number}.from")), &from)?;
        thread::sleep(delay);
        let end = match record(&stream, &dir.join(format!("{number}.hex")), &answer, speak_first, reset_after)
        {
            Ok(end) => end.to_owned(),
            Err(error) => {
                error.downcast_ref::<std::io::Error>().map_or("error".into(), |e| format!("{:?}", e.kind()))
            }
        };
        if end == "reset" {
            server::reset(stream)?;
        } else {
            // A client that is gone cannot be told; the record says how it went.
            stream.shutdown(Shutdown::Write).ok();
        }
        write_whole(&dir.join(format!("{number}.end")), &end)
    })
}

fn record(
    mut stream: &TcpStream,
    file: &Path,
    answer: &str,
    speak_first: bool,
    reset_after: Option<usize>,
) -> Result<&'static str> {
    let mut file = File::create(file)?;
    let mut answered = speak_first;
    if speak_first {
        stream.write_all(answer.as_bytes())?;
    }
    let (mut buf, mut total) = ([0; 16 * 1024], 0);
    loop {
        let count = stream.read(&mut buf)?;
        file.write_all(hex::encode(&buf[..count]).as_bytes())?;
        total += count;
        if reset_after.is_some_and(|limit| total >= limit) {
            return Ok("reset");
        }
        if !std::mem::replace(&mut answered, true) {
            stream.write_all(answer.as_bytes())?;
        }
        if count == 0 {
            return Ok("eof");
        }
    }
}

/// A file that, if it exists, is complete.
fn write_whole(path: &Path, text: &str) -> Result<()> {
    let staged = path.with_extension("staged");
    fs::write(&staged, text)?;
    fs::rename(&staged, path).with_context(|| format!("writing {}", path.display()))
}

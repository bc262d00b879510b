//! As much of HTTP/1.1 as the tests need: one request a connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// What was answered.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Sends a request and reads the answer to its end.
pub fn ask(at: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {at}\r\n") };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut status, mut length, mut chunked) = (String::new(), None, None, false);
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the answer ends within its head");
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if status.is_none() {
            status = Some(text.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?);
        }
        match text.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = Some(value.trim().parse()?);
            }
            Some((name, value)) if name.eq_ignore_ascii_case("transfer-encoding") => {
                chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
            _ => {}
        }
    }
    let mut body = Vec::new();
    // Some keep a connection open whatever they are asked.
    match length {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None => drop(stream.read_to_end(&mut body)?),
    }
    if chunked {
        body = unchunked(&body)?;
    }
    Ok(Answer { status: status.context("no status")?, body })
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            bail!("a chunk without a size")
        };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(rest.get(..size).context("a chunk that is cut off")?);
        rest = &rest[size + 2..];
    }
}

/// The text at `path`, which is to be there.
pub fn text(at: SocketAddr, path: &str, headers: &str) -> Result<String> {
    let answer = ask(at, "GET", path, headers, b"")?;
    if answer.status != 200 {
        bail!("{path}: {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(String::from_utf8(answer.body)?)
}

//! Asking an agent by its socket, as fast as it answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A connection to an agent's admin socket (HTTP/1.1, kept open).
#[derive(Debug)]
pub struct Asked {
    stream: BufReader<UnixStream>,
}

impl Asked {
    /// Connects.
    pub fn at(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks for `path`: the status code and the body.
    pub fn raw(&mut self, path: &str) -> Result<(u16, String)> {
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status line")?;
        let mut length = None;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.context("no length")?];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body)?))
    }

    /// Asks for `path`, which is to be there, and reads its JSON.
    pub fn get(&mut self, path: &str) -> Result<Value> {
        let (status, body) = self.raw(path)?;
        ensure!(status == 200, "{path}: {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}

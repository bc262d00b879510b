//! HTTP/1.1.

use anyhow::{Context as _, Result};

use super::super::paced::http::Response;
use super::{Host, Protocol};

/// A connection with at most one request under way.
pub struct Http1 {
    /// Of each host.
    requests: Vec<Vec<u8>>,
    keep_alive: bool,
    /// Which host was asked, for which request.
    asked: Option<(usize, usize)>,
    response: Response,
}

impl Http1 {
    pub fn new(hosts: &[Host], keep_alive: bool) -> Self {
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let request =
            |host: &Host| format!("GET /payload HTTP/1.1\r\nHost: {}\r\n{close}\r\n", host.name).into_bytes();
        Self {
            requests: hosts.iter().map(request).collect(),
            keep_alive,
            asked: None,
            response: Response::default(),
        }
    }
}

impl Protocol for Http1 {
    fn greeting(&self) -> Vec<u8> {
        Vec::new()
    }

    fn ask(&mut self, out: &mut Vec<u8>, host: usize, number: usize) {
        out.extend_from_slice(&self.requests[host]);
        self.asked = Some((host, number));
    }

    fn took(&mut self, bytes: &[u8], hosts: &[Host], _: &mut Vec<u8>) -> Result<Vec<usize>> {
        let (host, number) = self.asked.context("an answer to nothing")?;
        if !self.response.take(bytes)? {
            return Ok(Vec::new());
        }
        std::mem::take(&mut self.response).check(&hosts[host].body)?;
        self.asked = None;
        Ok(vec![number])
    }

    fn goes_on(&self) -> bool {
        self.keep_alive
    }
}

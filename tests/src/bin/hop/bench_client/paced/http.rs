//! As much of an HTTP/1.1 response as the benchmark's servers and proxies send.

use anyhow::{Context as _, Result, ensure};

/// What has come of it.
#[derive(Debug, Default)]
pub struct Response {
    bytes: Vec<u8>,
    /// Where its body begins and ends, once that is known.
    body: Option<(usize, usize)>,
}

impl Response {
    /// Takes more of it; says whether it is whole.
    pub fn take(&mut self, bytes: &[u8]) -> Result<bool> {
        self.bytes.extend_from_slice(bytes);
        if self.body.is_none() {
            self.body = body(&self.bytes)?;
        }
        let Some((_, end)) = self.body else { return Ok(false) };
        ensure!(self.bytes.len() <= end, "more than the response came");
        Ok(self.bytes.len() == end)
    }

    /// That it is what it should be.
    pub fn check(&self, body: &str) -> Result<()> {
        let (start, end) = self.body.context("a response without a body")?;
        ensure!(self.bytes.starts_with(b"HTTP/1.1 200 "), "not OK: {}", self.beginning());
        let got = &self.bytes[start..end];
        ensure!(
            got == body.as_bytes(),
            "the response is not {:?}... but {:?}: it went the wrong way",
            &body[..body.len().min(16)],
            String::from_utf8_lossy(&got[..got.len().min(16)])
        );
        Ok(())
    }

    fn beginning(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(300)]).into_owned()
    }
}

/// Where the body is, if the head is whole.
fn body(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head]).context("a response's head that is no text")?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.with_context(|| format!("a response without a length: {text}"))??;
    Ok(Some((head + 4, head + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_at_its_length_however_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 0..text.len() {
            let mut response = Response::default();
            assert!(!response.take(&text[..cut]).expect("a beginning"));
            assert!(response.take(&text[cut..]).expect("all of it"));
            response.check("hello").expect("as sent");
            assert!(response.check("hullo").is_err());
        }
        let mut long = Response::default();
        assert!(long.take(&[&text[..], b"!"].concat()).is_err());
    }

    #[test]
    fn what_is_not_ok_or_has_no_length_is_no_response() {
        let mut refused = Response::default();
        assert!(refused.take(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").expect("a response"));
        assert!(refused.check("").is_err());
        assert!(Response::default().take(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}

//! As much of HTTP/2 (RFC 9113) and of HPACK (RFC 7541) as a client of the benchmark needs: it sends a few bytes that are the same
//! each time, and of headers looks at the status only, which comes first. So it takes little of the CPU that it shares.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Host, Protocol};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Flags.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// `:status: 200`, by its place in the static table.
const STATUS_200: u8 = 0x88;
/// More than a turn carries.
const WINDOW: u32 = 0x7fff_ffff;
const FIRST_WINDOW: u32 = 65_535;

/// A connection.
pub struct Http2 {
    /// Header blocks, of each host.
    blocks: Vec<Vec<u8>>,
    next_stream: u32,
    streams: HashMap<u32, Stream>,
    /// The beginning of a frame.
    partial: Vec<u8>,
}

struct Stream {
    host: usize,
    number: usize,
    is_ok: bool,
    body: Vec<u8>,
}

impl Http2 {
    pub fn new(hosts: &[Host]) -> Self {
        Self {
            blocks: hosts.iter().map(|host| block(&host.name)).collect(),
            next_stream: 1,
            streams: HashMap::new(),
            partial: Vec::new(),
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match kind {
            HEADERS => {
                let stream = self.streams.get_mut(&stream).context("headers of no request")?;
                // Tables of no size are confirmed first.
                let status = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                ensure!(flags & (PADDED | 0x20) == 0, "headers that are padded or have a priority");
                stream.is_ok |= status == Some(&STATUS_200);
            }
            DATA => {
                ensure!(flags & PADDED == 0, "padded data");
                self.streams.get_mut(&stream).context("data of no request")?.body.extend_from_slice(payload);
            }
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            RST_STREAM | GOAWAY => bail!("the connection or a request of it was ended: {kind}, {payload:?}"),
            SETTINGS | PING | WINDOW_UPDATE | CONTINUATION => {}
            other => bail!("a frame of type {other}"),
        }
        Ok(())
    }
}

impl Protocol for Http2 {
    fn greeting(&self) -> Vec<u8> {
        let mut out = PREFACE.to_vec();
        // No dynamic table (1), no pushes (2), windows that nobody needs to look at (4).
        let settings = [(1_u16, 0_u32), (2, 0), (4, WINDOW)];
        let payload: Vec<_> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frame(&mut out, SETTINGS, 0, 0, &payload);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
        out
    }

    fn ask(&mut self, out: &mut Vec<u8>, host: usize, number: usize) {
        frame(out, HEADERS, END_STREAM | END_HEADERS, self.next_stream, &self.blocks[host]);
        self.streams
            .insert(self.next_stream, Stream { host, number, is_ok: false, body: Vec::with_capacity(1024) });
        self.next_stream += 2;
    }

    fn took(&mut self, bytes: &[u8], hosts: &[Host], out: &mut Vec<u8>) -> Result<Vec<usize>> {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        let mut answered = Vec::new();
        while let Some((head, behind)) = rest.split_at_checked(FRAME_HEAD) {
            let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]]))?;
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            self.frame(kind, flags, stream, payload, out)?;
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                let Stream { host, number, is_ok, body } =
                    self.streams.remove(&stream).context("a stream")?;
                ensure!(is_ok, "not OK");
                ensure!(
                    body == hosts[host].body.as_bytes(),
                    "the response to {} is {:?}...: it went the wrong way",
                    hosts[host].name,
                    String::from_utf8_lossy(&body[..body.len().min(16)])
                );
                answered.push(number);
            }
            rest = behind;
        }
        self.partial = rest.to_vec();
        Ok(answered)
    }

    fn goes_on(&self) -> bool {
        true
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A GET of `/payload`, each header as a literal that goes into no table, or by its place in the static one.
fn block(host: &str) -> Vec<u8> {
    // :method GET, :scheme http, :path and :authority.
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x04, "/payload"), (0x01, host)] {
        // Up to 126 bytes, and not Huffman's.
        block.extend([name, u8::try_from(value.len()).expect("a short name")]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<Host> {
        ["a", "b"].map(|name| Host { name: name.to_owned(), body: format!("body of {name}") }).into()
    }

    fn answer(stream: u32, status: &[u8], body: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, END_HEADERS, stream, status);
        frame(&mut bytes, DATA, END_STREAM, stream, body.as_bytes());
        bytes
    }

    #[test]
    fn answers_are_found_however_they_are_cut_and_in_any_order() {
        let hosts = hosts();
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        bytes.extend(answer(3, &[0x20, STATUS_200], "body of b"));
        bytes.extend(answer(1, &[STATUS_200], "body of a"));
        for cut in 0..bytes.len() {
            let (mut client, mut out) = (Http2::new(&hosts), Vec::new());
            client.ask(&mut out, 0, 70);
            client.ask(&mut out, 1, 71);
            out.clear();
            let mut answered = client.took(&bytes[..cut], &hosts, &mut out).expect("frames");
            answered.extend(client.took(&bytes[cut..], &hosts, &mut out).expect("frames"));
            assert_eq!(answered, [71, 70]);
            assert_eq!(out, [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn what_is_not_the_hosts_answer_is_an_error() {
        let hosts = hosts();
        for bytes in [answer(1, &[STATUS_200], "body of b"), answer(1, &[0x8d], "body of a")] {
            let (mut client, mut out) = (Http2::new(&hosts), Vec::new());
            client.ask(&mut out, 0, 0);
            assert!(client.took(&bytes, &hosts, &mut out).is_err());
        }
    }
}

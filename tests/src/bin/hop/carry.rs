//! Copying from one connection into another.

use std::io::{self, Read, Write};

const CHUNK: usize = 64 * 1024;

/// Copies to the end of the stream, and carries that too. Returns how many bytes it copied.
pub fn carry(
    mut from: impl Read,
    mut to: impl Write,
    end: impl FnOnce() -> io::Result<()>,
) -> io::Result<u64> {
    let mut buf = vec![0; CHUNK];
    let mut carried = 0;
    loop {
        let count = from.read(&mut buf)?;
        if count == 0 {
            return match end() {
                // It is gone already, which its own direction tells.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(carried),
                ended => ended.map(|()| carried),
            };
        }
        to.write_all(&buf[..count])?;
        carried += count as u64;
    }
}

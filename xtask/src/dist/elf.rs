//! Whether a program is static.

use anyhow::{Context, Result, ensure};

const PT_INTERP: u32 = 3;

/// Whether a 64-bit little-endian ELF program names a dynamic linker.
pub fn asks_for_an_interpreter(elf: &[u8]) -> Result<bool> {
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "no 64-bit little-endian ELF program");
    let number = |at: usize, len: usize| -> Result<usize> {
        let bytes = elf.get(at..at + len).context("the ELF header is cut short")?;
        Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        if number(table + header * size, 4)? == PT_INTERP as usize {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::asks_for_an_interpreter;

    #[test]
    fn this_program_is_told_from_text() {
        let own = std::fs::read("/proc/self/exe").expect("this program");
        assert!(asks_for_an_interpreter(&own).expect("a program"), "tests are dynamic");
        assert!(asks_for_an_interpreter(b"#!/bin/sh").is_err());
        assert!(asks_for_an_interpreter(&own[..60]).is_err());
    }
}

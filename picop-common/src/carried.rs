//! What a connection has carried, out of what TCP counts at its end.

/// States of TCP (`BPF_TCP_*` of linux/bpf.h).
const FIN_WAIT2: u32 = 5;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// Payload bytes up and down of a client's socket that left the state `from` for CLOSE. `acked` and `received` are TCP's own
/// counts (`tcp_sock.bytes_acked`, `bytes_received`), in which the SYN of the client and each FIN are a byte; `header` is how
/// many bytes were written in front of the payload.
///
/// A socket that ended first leaves FIN_WAIT2 when its peer has ended as well, or before that, when its process has closed it.
/// What tells is whether anything was received since (`mark` is what [`mark`] said then): data is not, once it is closed.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a BPF call is dearer")]
pub const fn payload(from: u32, acked: u64, received: u64, mark: u8, header: u64) -> (u64, u64) {
    let (own_fin, peers_fin) = match from {
        FIN_WAIT2 if mark == self::mark(received) => (1, 0),
        FIN_WAIT2 | LAST_ACK | CLOSING => (1, 1),
        CLOSE_WAIT => (0, 1),
        _ => (0, 0),
    };
    let syn = 1;
    (acked.saturating_sub(syn + own_fin + header), received.saturating_sub(peers_fin))
}

/// What to remember of the bytes received when a socket enters FIN_WAIT2.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a BPF call is dearer")]
#[expect(clippy::cast_possible_truncation, reason = "a byte there is room for")]
pub const fn mark(received: u64) -> u8 {
    received as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_payload_is_not_counted() {
        const ESTABLISHED: u32 = 1;
        for (name, from, acked, received, header, expected) in [
            ("reset, nothing said", ESTABLISHED, 1, 0, 0, (0, 0)),
            ("reset under way", ESTABLISHED, 11, 20, 0, (10, 20)),
            ("the server ended first", LAST_ACK, 12, 21, 0, (10, 20)),
            ("the client ended first, and alone", FIN_WAIT2, 12, 20, 0, (10, 20)),
            ("the client ended first", FIN_WAIT2, 12, 21, 0, (10, 20)),
            ("both at once", CLOSING, 12, 21, 0, (10, 20)),
            ("the server ended, the client reset", CLOSE_WAIT, 11, 21, 0, (10, 20)),
            ("a header in front", LAST_ACK, 52, 21, 40, (10, 20)),
            ("a header that was not acknowledged", ESTABLISHED, 1, 0, 40, (0, 0)),
        ] {
            assert_eq!(payload(from, acked, received, mark(20), header), expected, "{name}");
        }
    }
}

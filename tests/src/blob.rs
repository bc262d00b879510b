//! A byte stream that both ends can compute, so that a lost, doubled or moved byte shows.

/// The byte at `offset` of the stream. No two aligned words of it are alike, so a shifted copy never matches for long.
pub fn byte_at(offset: u64) -> u8 {
    let word = (offset >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.rotate_left(29).to_le_bytes()[(offset & 7) as usize]
}

/// Fills `buf` with the stream's bytes from `offset` on.
pub fn fill(offset: u64, buf: &mut [u8]) {
    for (at, byte) in (offset..).zip(buf) {
        *byte = byte_at(at);
    }
}

/// Where `bytes`, taken to start at `offset` of the stream, first differs from it.
pub fn mismatch(offset: u64, bytes: &[u8]) -> Option<u64> {
    (offset..).zip(bytes).find(|(at, byte)| byte_at(*at) != **byte).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_stream() {
        let mut whole = vec![0; 1000];
        fill(0, &mut whole);
        for cut in [1, 7, 8, 9, 500, 999] {
            let mut rest = vec![0; 1000 - cut];
            fill(cut as u64, &mut rest);
            assert_eq!(rest, whole[cut..]);
        }
    }

    #[test]
    fn every_kind_of_damage_shows() {
        let mut bytes = vec![0; 4096];
        fill(0, &mut bytes);
        assert_eq!(mismatch(0, &bytes), None);
        let mut lost = bytes.clone();
        lost.remove(1000);
        assert!(mismatch(0, &lost).is_some_and(|at| (1000..1010).contains(&at)));
        let mut doubled = bytes.clone();
        doubled.insert(1000, bytes[999]);
        assert!(mismatch(0, &doubled).is_some_and(|at| (1000..1010).contains(&at)));
        assert!(mismatch(8, &bytes).is_some(), "a shift by one block");
    }
}

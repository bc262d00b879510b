use super::*;

/// Puts a description together, type by type.
#[derive(Default)]
struct Written {
    types: Vec<u8>,
    strings: Vec<u8>,
}

const KIND_INT: u32 = 1;
const KIND_POINTER: u32 = 2;

impl Written {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0] }
    }

    fn name(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    /// Members: name, type, offset in bits, bits of a bit field.
    fn structure(&mut self, kind: u32, name: &str, fields: bool, members: &[(&str, u32, u32, u32)]) {
        let name = self.name(name);
        let count = u32::try_from(members.len()).unwrap();
        self.words(&[name, u32::from(fields) << 31 | kind << 24 | count, 0]);
        for (name, kind, bit, bits) in members {
            let name = self.name(name);
            self.words(&[name, *kind, bits << 24 | bit]);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len(), self.strings.len());
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, types, types, strings] {
            bytes.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        [bytes, self.types.clone(), self.strings.clone()].concat()
    }
}

/// `request` and `connect` are bits; the first is in a nameless union in a nameless struct, as the kernel groups members.
fn kernel(request: u32, connect: u32, connect_bits: u32) -> Vec<u8> {
    let mut it = Written::new();
    let int = it.name("int");
    it.words(&[int, KIND_INT << 24, 4, 32]); // 1
    it.words(&[0, KIND_POINTER << 24, 1]); // 2
    it.structure(KIND_UNION, "", false, &[("other", 1, 0, 0), ("fastopen_req", 2, 0, 0)]); // 3
    it.structure(KIND_STRUCT, "", false, &[("before", 2, 0, 0), ("", 3, 64, 0)]); // 4
    it.structure(KIND_STRUCT, "sock", false, &[("fastopen_req", 2, 64, 0), ("write_seq", 1, 32, 0)]); // 5
    it.structure(
        KIND_STRUCT,
        "tcp_sock",
        true,
        &[
            ("sk", 5, 0, 0),
            ("a_bit", 1, connect.saturating_sub(1), 1),
            ("fastopen_connect", 1, connect, connect_bits),
            ("", 4, request - 64, 0),
        ],
    );
    it.bytes()
}

#[test]
fn members_are_found_also_in_nameless_structs() {
    let layout = fast_open_in(&kernel(8 * 2040, 8 * 1701 + 3, 1)).unwrap();
    assert_eq!(layout, FastOpenLayout { request: 2040, connect: 1701, connect_mask: 8 });
}

#[test]
fn what_the_programs_could_not_read_is_not_known() {
    for (name, bytes) in [
        ("a pointer across words", kernel(8 * 2044, 8 * 1701 + 3, 1)),
        ("no bit field", kernel(8 * 2040, 8 * 1701 + 3, 0)),
        ("two bits", kernel(8 * 2040, 8 * 1701 + 3, 2)),
        ("at the beginning", kernel(8 * 2040, 0, 1)),
    ] {
        assert!(matches!(fast_open_in(&bytes), Err(BtfError::Malformed)), "{name}");
    }
    let mut other = Written::new();
    other.structure(KIND_STRUCT, "tcp_sock", false, &[("fastopen_req", 0, 64, 0)]);
    let missing = fast_open_in(&other.bytes());
    assert!(matches!(missing, Err(BtfError::NoMember { member: "fastopen_connect", .. })), "{missing:?}");
}

#[test]
fn what_a_graft_reads_is_found_in_its_own_structs() {
    let with = |write_seq: u32, bits: u32, ulp_ops: u32| {
        let mut it = Written::new();
        it.structure(KIND_STRUCT, "sock", true, &[("write_seq", 1, 32, 0), ("icsk_ulp_ops", 2, 64, 0)]);
        it.structure(KIND_STRUCT, "tcp_sock", true, &[("sk", 1, 0, 0), ("write_seq", 2, write_seq, bits)]);
        it.structure(KIND_STRUCT, "inet_connection_sock", true, &[("icsk_ulp_ops", 2, ulp_ops, 0)]);
        graft_in(&it.bytes())
    };
    assert_eq!(with(8 * 1700, 0, 8 * 1200).unwrap(), GraftLayout { write_seq: 1700, ulp_ops: 1200 });
    for (name, found) in [
        ("a bit field", with(8 * 1700, 3, 8 * 1200)),
        ("across words", with(8 * 1702, 0, 8 * 1200)),
        ("a pointer across words", with(8 * 1700, 0, 8 * 1204)),
        ("the first member", with(8 * 1700, 0, 0)),
    ] {
        assert!(matches!(found, Err(BtfError::Malformed)), "{name}: {found:?}");
    }
    let missing = graft_in(&kernel(8 * 2040, 8 * 1701 + 3, 1));
    assert!(matches!(missing, Err(BtfError::NoMember { member: "write_seq", .. })), "{missing:?}");
}

/// Whatever is cut off or overwritten: an error, or a layout, but no panic.
#[test]
fn garbage_is_refused() {
    let whole = kernel(8 * 2040, 8 * 1701 + 3, 1);
    for len in 0..whole.len() {
        assert!(fast_open_in(&whole[..len]).is_err(), "the first {len} bytes");
        assert!(graft_in(&whole[..len]).is_err(), "the first {len} bytes");
        assert!(cookie_in(&whole[..len]).is_err(), "the first {len} bytes");
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        drop(fast_open_in(&changed));
        drop(graft_in(&changed));
    }
}

/// The kernel that runs the tests, if it describes itself.
#[test]
fn this_kernel_is_understood() {
    match fast_open() {
        Ok(layout) => assert!(layout.is_known() && layout.request < 16_384, "{layout:?}"),
        Err(BtfError::Read(error)) => println!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
    match cookie() {
        Ok(at) => assert!((1..16_384).contains(&at), "{at}"),
        Err(BtfError::Read(error)) => println!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
    match graft() {
        Ok(layout) => assert!(layout.write_seq < 16_384 && layout.ulp_ops < 16_384, "{layout:?}"),
        Err(BtfError::Read(error)) => println!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
}

use super::{frame::Link, hex, *};
use crate::gateway::testing::{header, of};

/// A TCP segment from 10.0.0.1:1000 to 10.0.0.2:80, in IPv4.
fn packet(sequence: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(40 + payload.len()).expect("short").to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend([3, 232, 0, 80]);
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 0, 0x50, if syn { 2 } else { 16 }, 0, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

fn packet6(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let tcp = &packet(sequence, false, payload)[20..];
    let len = u16::try_from(tcp.len() + 8).expect("short").to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], 0, 64];
    packet.extend([[0xfd; 16], [0xfe; 16]].concat());
    // Hop-by-hop options, all padding.
    packet.extend([6, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend(tcp);
    packet
}

fn framed(link: Link, packet: &[u8]) -> Vec<u8> {
    let before: &[u8] = match link {
        Link::Raw => &[],
        Link::Null => &[2, 0, 0, 0],
        Link::Ethernet => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 7, 8, 0],
        Link::Cooked => &[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0],
        Link::Cooked2 => &[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    // Ethernet pads short frames.
    [before, packet, &[0; 6]].concat()
}

fn pcap(link: u32, is_big: bool, frames: &[Vec<u8>]) -> Vec<u8> {
    let u32 = |number: u32| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut file = [u32(0xa1b2_c3d4), u32(0x0002_0004), u32(0), u32(0), u32(65535), u32(link)].concat();
    for frame in frames {
        let len = u32(u32::try_from(frame.len()).expect("short"));
        file.extend([u32(1), u32(2), len, len].concat());
        file.extend(frame);
    }
    file
}

fn pcapng(link: u16, is_big: bool, frames: &[Vec<u8>]) -> Vec<u8> {
    let u32 = |number: u32| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    let u16 = |number: u16| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    let block = |kind: u32, body: &[u8]| {
        let padding = vec![0; (4 - body.len() % 4) % 4];
        let len = u32(u32::try_from(body.len() + padding.len() + 12).expect("short"));
        [&u32(kind)[..], &len, body, &padding, &len].concat()
    };
    let section = [u32(0x1a2b_3c4d), u32(1), [0xff; 4], [0xff; 4]].concat();
    let interface = [&u16(link)[..], &[0, 0], &u32(65535)].concat();
    let mut file =
        [block(0x0a0d_0d0a, &section), block(1, &interface), block(0x0bad, b"what is this")].concat();
    for frame in frames {
        let len = u32(u32::try_from(frame.len()).expect("short"));
        file.extend(block(6, &[&u32(0)[..], &u32(1), &u32(2), &len, &len, frame].concat()));
    }
    file
}

const LINKS: [(u32, Link); 5] =
    [(1, Link::Ethernet), (101, Link::Raw), (113, Link::Cooked), (276, Link::Cooked2), (0, Link::Null)];

#[test]
fn captures_of_every_kind() {
    let sent = [&header(&[("Env-Id", "pr-1"), ("Baggage", "a=b:c")])[..], b"GET /"].concat();
    for (number, link) in LINKS {
        let frames = [packet(9, true, b""), packet(10, false, &sent)].map(|packet| framed(link, &packet));
        for file in [
            pcap(number, false, &frames),
            pcap(number, true, &frames),
            pcapng(u16::try_from(number).expect("small"), false, &frames),
            pcapng(u16::try_from(number).expect("small"), true, &frames),
        ] {
            let report = of_file(&file).expect("a header");
            let lines: Vec<_> = report.lines().collect();
            assert_eq!(
                lines,
                [
                    "10.0.0.1:1000 -> 10.0.0.2:80",
                    "  PiCoP header, version 1, 40 bytes",
                    "  Baggage: a=b:c",
                    "  Env-Id: pr-1",
                    "  environment: pr-1",
                ],
                "{link:?}"
            );
        }
    }
}

#[test]
fn segments_in_any_order() {
    let head = of("pr-1");
    let start = u32::MAX - 3;
    let syn = packet(start.wrapping_sub(1), true, b"");
    for cut in 1..head.len() {
        let at = start.wrapping_add(u32::try_from(cut).expect("small"));
        let (first, last) = (packet(start, false, &head[..cut]), packet(at, false, &head[cut..]));
        let report = of_file(&pcap(101, false, &[syn.clone(), last.clone(), first.clone(), last]));
        assert!(report.expect("a header").contains("environment: pr-1"), "cut at {cut}");
        let report = of_file(&pcap(101, false, &[syn.clone(), first]));
        match report {
            Ok(report) => assert!(cut > 4 && report.contains("part of a header"), "cut at {cut}: {report}"),
            Err(error) => assert!(cut <= 4, "cut at {cut}: {error}"),
        }
    }
}

#[test]
fn several_streams_of_one_pair_of_ports() {
    let stream = |start: u32, env: &str| [packet(start - 1, true, b""), packet(start, false, &of(env))];
    let frames = [stream(1000, "pr-1"), stream(900_000, "pr-2")].concat();
    let report = of_file(&pcap(101, false, &frames)).expect("headers");
    assert_eq!(report.matches("->").count(), 2, "{report}");
    assert!(report.find("pr-1") < report.find("pr-2"), "{report}");
    // A capture that began in the middle.
    let frames = [packet(5, false, b"old"), packet(777, false, &of("pr-3"))];
    assert!(of_file(&pcap(101, false, &frames)).expect("a header").contains("pr-3"));
}

#[test]
fn ipv6() {
    let report = of_file(&pcap(101, false, &[packet6(1, &of("pr-6"))])).expect("a header");
    assert!(report.starts_with("[fdfd:") && report.contains("environment: pr-6"), "{report}");
}

#[test]
fn hexadecimal() {
    let digits = |write: fn(&u8) -> String| of("pr-1").iter().map(write).collect::<Vec<_>>();
    let plain = digits(|byte| format!("{byte:02x}")).concat();
    let spaced = digits(|byte| format!("0x{byte:02X}, ")).concat();
    for text in [plain.clone(), plain.to_uppercase(), spaced, format!("{plain}\n474554")] {
        let report = of_file(text.as_bytes()).expect("a header");
        assert!(report.contains("  Env-Id: pr-1\n  environment: pr-1\n"), "{report}");
        assert_eq!(report.contains("3 bytes of payload follow"), text.ends_with("474554"), "{report}");
    }
    assert_eq!(hex::decode("0d:0A"), Ok(vec![13, 10]));
    assert_eq!(hex::decode("0d0"), Err(HexError::Odd(3)));
    assert_eq!(hex::decode(" "), Err(HexError::Empty));
    assert_eq!(hex::decode("0g"), Err(HexError::Digit { found: 'g', at: 2 }));
}

#[test]
fn what_is_no_header_is_said() {
    let other = pcap(101, false, &[packet(1, false, b"GET / HTTP/1.1")]);
    let unknown = pcap(147, false, &[packet(1, false, &of("a"))]);
    let mut proxy = of("pr-1");
    proxy[12] = 0x21;
    let cases: [(Result<String, DecodeError>, &str); 7] = [
        (of_bytes(b"GET /"), "do not begin with its signature"),
        (of_bytes(&of("pr-1")[..20]), "beginning of one, and at least 5 more"),
        (of_bytes(&proxy), "PROXY protocol"),
        (of_file(&other), "none of 1 TCP streams"),
        (of_file(&unknown), "link type is 147"),
        (of_file(b"hello"), "no capture"),
        (of_file(&[&0x0a0d_0d0a_u32.to_be_bytes()[..], &[0; 20]].concat()), "byte order"),
    ];
    for (result, words) in cases {
        let error = crate::telemetry::chain(&result.expect_err(words));
        assert!(error.contains(words), "{error}");
    }
}

/// Whatever a file holds, reading it ends.
#[test]
fn damaged_captures() {
    let sent = framed(Link::Ethernet, &packet(1, false, &of("pr-1")));
    for file in [pcap(1, false, std::slice::from_ref(&sent)), pcapng(1, true, std::slice::from_ref(&sent))] {
        for end in 0..file.len() {
            drop(of_file(&file[..end]));
        }
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bent = file.clone();
                bent[at] = value;
                drop(of_file(&bent));
            }
        }
    }
}

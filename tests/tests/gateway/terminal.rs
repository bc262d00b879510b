//! `picop connect`, `decode`, and what is said when something cannot be.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use testbed::hex;

use crate::Result;
use crate::program::{feed, run, said};

const HEADER: &str = "0d0a0d0a000d0a515549540a010b456e762d49643a70722d31";

#[test]
fn a_conversation() -> Result {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?.to_string();
    let serving = thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got)?;
        stream.write_all(b"answer")?;
        Ok(got)
    });
    let output = feed(&["connect", "pr-1", &at], b"question")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"answer");
    let got = serving.join().map_err(|_| "the server panicked")??;
    assert_eq!(got, [&hex::decode(HEADER)?[..], b"question"].concat());
    Ok(())
}

#[test]
fn headers_of_text_and_of_files() -> Result {
    let told = "  PiCoP header, version 1, 25 bytes\n  Env-Id: pr-1\n  environment: pr-1\n";
    assert_eq!(said(&["decode", "--hex", HEADER])?, told);
    let output = feed(&["decode", "-"], HEADER.as_bytes())?;
    assert_eq!(String::from_utf8(output.stdout)?, told);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("header.hex");
    fs::write(&file, HEADER)?;
    assert_eq!(said(&["decode", file.to_str().ok_or("a path of plain ASCII")?])?, told);
    Ok(())
}

#[test]
fn whatever_is_wrong_one_sentence_says_what() -> Result {
    let taken = TcpListener::bind("[::]:0")?;
    let port = taken.local_addr()?.port().to_string();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?.to_string()
    };
    let cases: [(&[&str], &[&str]); 7] = [
        (&["decode", "--hex", "474554"], &["signature"]),
        (&["decode", "/nowhere.pcap"], &["/nowhere.pcap", "No such file"]),
        (&["connect", "pr-1", &nobody], &[&nobody, "refused"]),
        (&["curl", "--url", "ftp://localhost/"], &["http://HOST"]),
        (
            &["gateway", "tcp", "--env-id", "pr-1", "--destination", "cart:80", "--port", &port],
            &[&port, "in use"],
        ),
        (
            &[
                "gateway",
                "http",
                "--listen",
                "127.0.0.1:0",
                "--upstream",
                "cart:80",
                "--tls-cert",
                "/nowhere.crt",
                "--tls-key",
                "x",
            ],
            &["TLS", "/nowhere.crt", "No such file"],
        ),
        (&["gateway", "proxy", "--log", "info,=="], &["--log", "info,=="]),
    ];
    for (args, words) in cases {
        let output = run(args)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.starts_with("picop: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "`{word}` is not in what {args:?} says: {stderr}");
        }
    }
    Ok(())
}

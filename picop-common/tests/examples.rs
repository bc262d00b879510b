//! The examples as programs, two of each in a row: what a client says is known to both.
#![cfg(all(feature = "tokio", feature = "opentelemetry"))]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use picop_common::header::{Field, MAX_LEN, encode};

/// An example that runs. It is killed when this is dropped.
struct Example {
    child: Child,
    at: SocketAddr,
}

/// Where cargo has put it: beside the directory that this test is in.
fn path(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a path");
    let built = here.ancestors().nth(2).expect("target/PROFILE/deps").join("examples").join(name);
    assert!(built.exists(), "{} is not there; cargo build --examples makes it", built.display());
    built
}

impl Example {
    fn start(name: &str, next: Option<SocketAddr>) -> Self {
        let mut command = Command::new(path(name));
        command.arg("127.0.0.1:0").args(next.map(|next| next.to_string()));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a process");
        let mut said = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_line(&mut said).expect("text");
        let at = said.trim().strip_prefix("listening at ").and_then(|at| at.parse().ok());
        Self { at: at.unwrap_or_else(|| panic!("{name}: {said:?}")), child }
    }

    /// What it answers to a request on a connection that begins with these fields, or with no header if there are none.
    fn answers(&self, fields: &[(&str, &str)]) -> String {
        let mut stream = TcpStream::connect(self.at).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("TCP");
        if !fields.is_empty() {
            let mut fields: Vec<_> = fields.iter().map(|(key, value)| Field::new(key, value)).collect();
            let mut header = [0; MAX_LEN];
            let len = encode(&mut fields, &mut header).expect("a header");
            stream.write_all(&header[..len]).expect("open");
        }
        stream.write_all(b"GET / HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n").expect("open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        body.to_owned()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn axum() {
    let second = Example::start("axum", None);
    let first = Example::start("axum", Some(second.at));
    for environment in ["pr-1", "pr-2", "none", "pr-1"] {
        let fields = [("Env-Id", environment)];
        let said = first.answers(if environment == "none" { &[] } else { &fields });
        let known = said.matches(&format!(" is in environment {environment}\n")).count();
        assert_eq!((known, said.lines().count()), (2, 2), "{environment}: {said}");
        assert!(said.contains(&format!("{} says: ", second.at)), "{said}");
    }
}

#[test]
fn hyper() {
    let second = Example::start("hyper", None);
    let first = Example::start("hyper", Some(second.at));
    let (none, trace) = ("0".repeat(32), "4bf92f3577b34da6a3ce929d0e0e4736");
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    for (fields, environment, trace) in [
        (vec![("Env-Id", "pr-1"), ("Traceparent", &*parent)], "pr-1", trace),
        (vec![("Traceparent", &parent)], "none", trace),
        (vec![("Env-Id", "pr-2")], "pr-2", &*none),
        (vec![], "none", &none),
    ] {
        let line = format!("environment {environment}, trace {trace}");
        assert_eq!(first.answers(&fields), format!("{line}\n{} says: {line}\n", second.at));
    }
}

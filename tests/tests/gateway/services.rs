//! Small services as in PiCoP's demo: each says who it is, and asks the next one in the same context.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use picop_common::header::{Detected, detect};

use crate::Result;

/// A request: the header that its connection began with, its environment, and its path.
pub struct Asked {
    pub header: Vec<u8>,
    pub environment: Option<String>,
    pub path: String,
}

/// Serves HTTP at a port of loopback for as long as the process lives; each connection is one request.
pub fn serve(answer: impl Fn(&Asked) -> Result<String> + Send + Sync + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                // A client that goes away is no failure.
                if let Err(error) = one(stream, &*answer) {
                    eprintln!("a service: {error}");
                }
            });
        }
    });
    Ok(at)
}

/// A service that names itself, and then asks the next one, if there is one.
pub fn named(name: &'static str, next: Option<SocketAddr>) -> Result<SocketAddr> {
    serve(move |asked| match next {
        Some(next) => Ok(format!("{name} {}", ask(next, &asked.header, &asked.path)?)),
        None => Ok(name.to_owned()),
    })
}

fn one(mut stream: TcpStream, answer: &dyn Fn(&Asked) -> Result<String>) -> Result {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !got.ends_with(b"\r\n\r\n") || got.len() < 8 {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        got.extend_from_slice(&buffer[..count]);
    }
    let (header, environment) = match detect(&got) {
        Detected::Header(header) => {
            let name = header.env_id().map(|name| String::from_utf8_lossy(name).into_owned());
            (header.wire().to_vec(), name)
        }
        _ => (Vec::new(), None),
    };
    let head = String::from_utf8(got[header.len()..].to_vec())?;
    let path = head.split(' ').nth(1).ok_or("a path")?.to_owned();
    let (status, body) = match answer(&Asked { header, environment, path }) {
        Ok(body) => ("200 OK", body),
        Err(error) => ("500 Internal Server Error", error.to_string()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    Ok(stream.shutdown(Shutdown::Write)?)
}

/// Asks a service, over a connection that begins with `header`.
pub fn ask(at: SocketAddr, header: &[u8], path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(at)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    stream.write_all(&[header, request.as_bytes()].concat())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(body.into()) }
}

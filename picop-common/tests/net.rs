//! Accepting and dialling with a context, on streams whose time is virtual and on real sockets.
use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use picop_common::{
    header::{Detected, FIXED_LEN, MAX_BODY, SIGNATURE, VERSION, detect},
    net::{self, Accepted, LateHeader, Listener, Rules, Stream, accept},
    protocol::{Context, EnvId, ExpectHeader, HeadError, HeadKind},
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

const TICK: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(1);
const RULES: Rules = Rules { expect: ExpectHeader::Always, header_timeout: TIMEOUT, waiting: 2 };

fn context(env: &str) -> Context {
    Context::for_env(&EnvId::new(env).unwrap())
}

fn env_of<S>(accepted: &Accepted<S>) -> Option<String> {
    accepted.context.as_ref().and_then(Context::env_id).map(|env| env.to_string())
}

/// What a client that sends these parts with a pause between them, and then ends, comes to.
async fn accepted(parts: Vec<Vec<u8>>) -> Result<Accepted<DuplexStream>, HeadError> {
    let (mut client, server) = duplex(64 * 1024);
    tokio::spawn(async move {
        for part in parts {
            client.write_all(&part).await.expect("the server reads");
            sleep(TICK).await;
        }
    });
    accept(server, &RULES).await
}

async fn rest(accepted: Accepted<DuplexStream>) -> Vec<u8> {
    let (mut stream, mut rest) = (accepted.stream, vec![]);
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Streams and headers of the reference implementation, each with its name.
fn vectors(kind: &str) -> Vec<(String, Vec<u8>)> {
    let all: serde_json::Value = serde_json::from_str(include_str!("data/header-v1.json")).unwrap();
    let text = |case: &serde_json::Value, key| case[key].as_str().unwrap_or_default().to_owned();
    let cases = all[kind].as_array().unwrap().iter();
    cases.map(|case| (text(case, "name"), bytes(&text(case, "hex")))).collect()
}

/// Every vector, split at every byte: the context is that of the codec, and the application gets every other byte.
#[tokio::test(start_paused = true)]
async fn vectors_split_at_every_byte() {
    let mut headers = 0;
    for (name, stream) in vectors("decode").into_iter().chain(vectors("encode")) {
        let payload = b"GET / HTTP/1.1\r\n\r\n";
        let stream = [&stream[..], payload].concat();
        let header = match detect(&stream) {
            Detected::Header(header) => Some(Context::from_header(&header)),
            Detected::Other(_) => None,
            // Declared longer than it is, even with the payload.
            Detected::Partial { .. } => continue,
        };
        headers += usize::from(header.is_some());
        let taken = header.as_ref().map_or(0, |header| header.wire().len());
        for at in 1..stream.len() {
            let accepted = accepted(vec![stream[..at].to_vec(), stream[at..].to_vec()]).await;
            let accepted = accepted.unwrap_or_else(|error| panic!("{name} at {at}: {error}"));
            assert_eq!(accepted.context, header, "{name} at {at}");
            let (mut io, mut read) =
                accepted.stream.into_parts().map(|(io, first)| (io, first.to_vec())).unwrap();
            // Not a byte behind a header was read.
            assert!(header.is_none() || read.is_empty(), "{name} at {at}");
            io.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, stream[taken..], "{name} at {at}");
        }
    }
    assert!(headers > 15, "{headers}");
}

/// What is dialled with the context of a vector is, to the byte, what the reference writes.
#[tokio::test]
async fn vectors_dialled() {
    for (name, wire) in vectors("encode") {
        // Errors of the reference have no bytes.
        let Detected::Header(header) = detect(&wire) else { continue };
        let context = Context::from_header(&header);
        let (client, mut server) = duplex(64 * 1024);
        let mut client = Stream::dialled(client, Some(&context));
        client.write_all(b"payload").await.unwrap();
        client.shutdown().await.unwrap();
        let mut sent = vec![];
        server.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, [&wire[..], b"payload"].concat(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_the_header_stay_where_they_are() {
    let (mut client, server) = duplex(64 * 1024);
    client.write_all(&[context("pr-1").wire(), b"payload"].concat()).await.unwrap();
    drop(client);
    let accepted = accept(server, &RULES).await.unwrap();
    assert_eq!((env_of(&accepted).as_deref(), accepted.begins), (Some("pr-1"), HeadKind::Header));
    let mut raw = accepted.stream.into_inner().expect("nothing was read beyond the header");
    let mut rest = vec![];
    raw.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"payload");
}

#[tokio::test(start_paused = true)]
async fn without_a_header() {
    for (payload, begins) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), HeadKind::Payload),
        (b"\r\n\r\nOPTIONS".to_vec(), HeadKind::Payload),
        (b"\r\n\r\n".to_vec(), HeadKind::Payload),
        ([&SIGNATURE[..], b"\x21\x11\0\x04abcd"].concat(), HeadKind::ProxyV2),
        ([&SIGNATURE[..], b"\x02\x04abcd"].concat(), HeadKind::UnknownVersion(2)),
        (vec![], HeadKind::Eof),
    ] {
        let accepted = accepted(vec![payload.clone()]).await.unwrap();
        assert_eq!((env_of(&accepted), accepted.begins), (None, begins));
        assert_eq!(rest(accepted).await, payload);
    }
}

/// The protocol's limit is the length byte's: a header of 255 bytes passes, and of a longer one the rest is payload.
#[tokio::test(start_paused = true)]
async fn longest_header() {
    let body = [b"Env-Id:".to_vec(), vec![b'e'; EnvId::MAX_LEN]].concat();
    assert_eq!(body.len(), MAX_BODY);
    let stream = [&SIGNATURE[..], &[VERSION, u8::MAX], &body, b"one too many"].concat();
    let accepted = accepted(vec![stream]).await.unwrap();
    assert_eq!(env_of(&accepted).map(|env| env.len()), Some(EnvId::MAX_LEN));
    assert_eq!(rest(accepted).await, b"one too many");
}

#[tokio::test(start_paused = true)]
async fn half_a_header() {
    let half = context("pr-1").wire()[..FIXED_LEN + 3].to_vec();
    let got = half.len();
    let ended = accepted(vec![half.clone()]).await;
    assert!(matches!(ended, Err(HeadError::Truncated { got: told }) if told == got), "{ended:?}");

    let (mut client, server) = duplex(1024);
    client.write_all(&half).await.unwrap();
    let stuck = accept(server, &RULES).await;
    let as_told =
        matches!(stuck, Err(HeadError::Timeout { got: told, waited }) if (told, waited) == (got, TIMEOUT));
    assert!(as_told, "{stuck:?}");
}

/// A client that was silent for as long as it may be.
async fn silent() -> (DuplexStream, Stream<DuplexStream>) {
    let (client, server) = duplex(1024);
    let accepted = accept(server, &RULES).await.unwrap();
    assert_eq!((env_of(&accepted), accepted.begins), (None, HeadKind::Silent));
    (client, accepted.stream)
}

#[tokio::test(start_paused = true)]
async fn late_payload_is_payload() {
    for payload in [&b"hello"[..], b"\r\n\r\n\0\r\nQUIX", b"\r\n"] {
        let (mut client, mut server) = silent().await;
        // Also one that the server answers first.
        server.write_all(b"welcome").await.unwrap();
        client.read_exact(&mut [0; 7]).await.unwrap();
        for byte in payload {
            client.write_all(&[*byte]).await.unwrap();
        }
        drop(client);
        let mut rest = vec![];
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, payload);
    }
}

/// What an application may send to see whether anybody is there is not held back for a header that it could begin.
#[tokio::test(start_paused = true)]
async fn a_late_ping_is_read_at_once() {
    let (mut client, mut server) = silent().await;
    client.write_all(b"\r\n\r\n").await.unwrap();
    let mut ping = [0; 4];
    timeout(TIMEOUT, server.read_exact(&mut ping)).await.expect("not held back").unwrap();
    assert_eq!(&ping, b"\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_late_header_is_an_error_and_not_payload() {
    let header = context("pr-1");
    for at in 5..header.wire().len() {
        let (mut client, mut server) = silent().await;
        client.write_all(&header.wire()[..at]).await.unwrap();
        let mut byte = [0];
        let early = timeout(TICK, server.read(&mut byte)).await;
        assert!(early.is_err(), "at {at}: {early:?}");
        client.write_all(&[&header.wire()[at..], b"payload"].concat()).await.unwrap();
        for _ in 0..2 {
            let error = server.read(&mut byte).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let late = error.get_ref().and_then(|source| source.downcast_ref::<LateHeader>());
            assert_eq!(late, Some(&LateHeader), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_read_can_be_repeated() {
    let stream = [context("pr-1").wire(), b"payload"].concat();
    for at in 1..context("pr-1").wire().len() {
        let (mut client, server) = duplex(1024);
        let mut server = Stream::new(server);
        client.write_all(&stream[..at]).await.unwrap();
        let first = timeout(TICK, server.read_head(&RULES)).await;
        assert!(first.is_err(), "{first:?}");
        client.write_all(&stream[at..]).await.unwrap();
        let head = server.read_head(&RULES).await.unwrap();
        assert_eq!(head.context, Some(context("pr-1")), "at {at}");
        let mut payload = [0; 7];
        server.read_exact(&mut payload).await.unwrap();
        assert_eq!(&payload, b"payload");
    }
}

/// A reader that comes first sends the header, so that a server that speaks first knows where it is.
#[tokio::test(start_paused = true)]
async fn the_header_goes_before_a_read() {
    let (client, mut server) = duplex(1024);
    let mut client = Stream::dialled(client, Some(&context("pr-1")));
    let mut welcome = [0; 7];
    let read = tokio::spawn(async move { client.read_exact(&mut welcome).await.map(|_| (client, welcome)) });
    let mut header = vec![0; context("pr-1").wire().len()];
    server.read_exact(&mut header).await.unwrap();
    assert_eq!(header, context("pr-1").wire());
    server.write_all(b"welcome").await.unwrap();
    let (client, welcome) = read.await.unwrap().unwrap();
    assert_eq!(&welcome, b"welcome");
    assert!(client.into_inner().is_ok());
}

#[tokio::test]
async fn a_flush_sends_the_header_and_nothing_does_without_a_context() {
    let (client, mut server) = duplex(1024);
    let client = Stream::dialled(client, Some(&context("pr-1")));
    let mut client = client.into_inner().expect_err("the header is still to be sent");
    client.flush().await.unwrap();
    let mut plain = client.into_inner().expect("it was sent");
    plain.write_all(b"x").await.unwrap();
    drop(plain);
    let mut sent = vec![];
    server.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, [context("pr-1").wire(), b"x"].concat());

    let (client, _server) = duplex(1024);
    assert!(Stream::dialled(client, None).into_inner().is_ok());
}

/// Halves in two tasks, over a pipe with room for little: each wakes when it may go on.
#[tokio::test(start_paused = true)]
async fn halves_in_two_tasks() {
    for room in [1, 2, 7, 64] {
        let (client, mut server) = duplex(room);
        let (mut read, mut write) = tokio::io::split(Stream::dialled(client, Some(&context("pr-1"))));
        let reading = tokio::spawn(async move {
            let mut answer = vec![];
            read.read_to_end(&mut answer).await.map(|_| answer)
        });
        let writing = tokio::spawn(async move {
            write.write_all(b"question").await?;
            write.shutdown().await
        });
        let both = async {
            let mut asked = vec![];
            server.read_to_end(&mut asked).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            drop(server);
            asked
        };
        let asked = timeout(TIMEOUT, both).await.expect("nobody waits for ever");
        assert_eq!(asked, [context("pr-1").wire(), b"question"].concat(), "room for {room}");
        writing.await.unwrap().unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b"answer");
    }
}

#[tokio::test]
async fn a_service_dials_with_the_context_of_what_it_serves() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend_at = backend.local_addr().unwrap();
    let mut service = Listener::bind("127.0.0.1:0", RULES).await.unwrap();
    let service_at = service.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (accepted, _) = service.accept().await.unwrap();
            tokio::spawn(net::scope(accepted.context, async move {
                let mut client = accepted.stream;
                // A task of a task.
                let dialled = net::spawn(async move { net::connect(backend_at).await });
                let mut server = dialled.await.unwrap().unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.unwrap();
            }));
        }
    });
    assert_eq!(net::current(), None);
    for context in [Some(context("pr-1")), None, Some(context("pr-2"))] {
        let mut client = net::connect_with(service_at, context.as_ref()).await.unwrap();
        client.write_all(b"question").await.unwrap();
        let (backend, _) = backend.accept().await.unwrap();
        let mut backend = accept(backend, &RULES).await.unwrap();
        assert_eq!(backend.context, context);
        let mut question = [0; 8];
        backend.stream.read_exact(&mut question).await.unwrap();
        backend.stream.write_all(b"answer").await.unwrap();
        backend.stream.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = vec![];
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!((&question, &answer[..]), (b"question", &b"answer"[..]));
    }
}

/// A silent client and one that is stuck hold up nobody, up to the bound; what does not come whole is told.
#[tokio::test]
async fn a_listener_waits_for_many() {
    let told = Arc::new(Mutex::new(vec![]));
    let telling = Arc::clone(&told);
    let rules = Rules { header_timeout: Duration::from_secs(3600), ..RULES };
    let listener = Listener::bind("127.0.0.1:0", rules).await.unwrap();
    let mut listener =
        listener.on_refused(move |client, error| telling.lock().unwrap().push((client, error.to_string())));
    let at = listener.local_addr().unwrap();

    let silent = TcpStream::connect(at).await.unwrap();
    let mut ready = net::connect_with(at, Some(&context("pr-1"))).await.unwrap();
    ready.flush().await.unwrap();
    let (first, client) = listener.accept().await.unwrap();
    assert_eq!((env_of(&first).as_deref(), client), (Some("pr-1"), ready.get_ref().local_addr().unwrap()));

    let mut stuck = TcpStream::connect(at).await.unwrap();
    stuck.write_all(&SIGNATURE).await.unwrap();
    let mut third = net::connect_with(at, Some(&context("pr-3"))).await.unwrap();
    third.flush().await.unwrap();
    // Two are waited for, so the third is in the kernel's queue, and what was begun is not lost in the cancelled calls.
    for _ in 0..3 {
        let early = timeout(TICK, listener.accept()).await;
        assert!(early.is_err(), "{early:?}");
    }
    let stuck_at = stuck.local_addr().unwrap();
    stuck.shutdown().await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    assert_eq!(env_of(&accepted).as_deref(), Some("pr-3"));
    let told = told.lock().unwrap().clone();
    assert!(
        matches!(&told[..], [(client, why)] if *client == stuck_at && why.contains("12 bytes")),
        "{told:?}"
    );
    drop(silent);
    let (gone, _) = listener.accept().await.unwrap();
    assert_eq!(gone.begins, HeadKind::Eof);
}

proptest! {
    /// Whatever a client sends, in whatever parts: it is an error, or the application gets all of it less the header.
    #[test]
    fn nothing_is_lost(
        env in proptest::option::of("[a-z]{1,8}"),
        payload in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(0), any::<u8>()], 0..64),
        cuts in proptest::collection::vec(0_usize..120, 0..6),
        read_again in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let header = env.as_deref().map(context);
        let stream = [header.as_ref().map_or(&[][..], Context::wire), &payload].concat();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| stream[cut[0]..cut[1]].to_vec()).filter(|part| !part.is_empty());
        let parts: Vec<_> = parts.collect();
        runtime.unwrap().block_on(async {
            let (mut client, server) = duplex(1024);
            tokio::spawn(async move {
                for part in parts {
                    client.write_all(&part).await.expect("the server reads");
                    sleep(TICK).await;
                }
            });
            let mut server = Stream::new(server);
            let read = if read_again {
                loop {
                    // A call for each part, and each cancelled.
                    if let Ok(read) = timeout(TICK / 2, server.read_head(&RULES)).await {
                        break read;
                    }
                }
            } else {
                server.read_head(&RULES).await
            };
            match (read, &header) {
                (Ok(head), Some(_)) => prop_assert_eq!(&head.context, &header),
                // Random bytes hardly ever make one.
                (Ok(head), None) => prop_assert_eq!(head.context, None),
                (Err(error), _) => prop_assert!(header.is_none(), "{}", error),
            }
            let mut rest = vec![];
            server.read_to_end(&mut rest).await.unwrap();
            prop_assert_eq!(rest, payload);
            Ok(())
        })?;
    }
}

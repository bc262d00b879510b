use std::{pin::Pin, task};

use crate::header::{SIGNATURE, VERSION};
use bytes::BufMut as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::*;
use crate::protocol::EnvId;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const SNIFF: ExpectHeader = ExpectHeader::Sniff(Duration::from_millis(50));
const BOTH: [ExpectHeader; 2] = [SNIFF, ExpectHeader::Always];
const TICK: Duration = Duration::from_millis(10);

fn header(env: &str) -> Vec<u8> {
    Context::for_env(&EnvId::new(env).unwrap()).wire().to_vec()
}

/// A stream of tokio's, whose time is virtual.
struct Stream<'a, R>(&'a mut R);

impl<R: AsyncRead + Unpin> HeadSource for Stream<'_, R> {
    type Deadline = Instant;

    fn after(&self, wait: Duration) -> Instant {
        Instant::now() + wait
    }

    async fn read(&mut self, into: &mut BytesMut, _: usize, by: Instant) -> Option<io::Result<usize>> {
        into.reserve(READ_SIZE);
        timeout_at(by, self.0.read_buf(&mut into.limit(READ_SIZE))).await.ok()
    }
}

async fn read_head<R: AsyncRead + Unpin>(
    io: &mut R,
    buf: &mut BytesMut,
    expect: ExpectHeader,
    header_timeout: Duration,
) -> Result<Head, HeadError> {
    super::read_head(&mut Stream(io), buf, expect, header_timeout).await
}

/// A step of a client. Time is virtual throughout: it passes when everyone waits.
#[derive(Clone)]
enum Do {
    Send(Vec<u8>),
    Wait(Duration),
    Close,
}
use Do::{Close, Send, Wait};

/// A client that does as told; without [`Close`], its connection stays open until the handle goes.
fn client(steps: Vec<Do>) -> (DuplexStream, JoinHandle<Option<DuplexStream>>) {
    let (mut ours, theirs) = duplex(64 * 1024);
    let task = tokio::spawn(async move {
        for step in steps {
            match step {
                Send(bytes) => ours.write_all(&bytes).await.expect("the reader is there"),
                Wait(time) => sleep(time).await,
                Close => return None,
            }
        }
        Some(ours)
    });
    (theirs, task)
}

struct Seen {
    result: Result<Head, HeadError>,
    /// What is left to replay.
    buf: Vec<u8>,
    took: Duration,
}

async fn run(steps: Vec<Do>, expect: ExpectHeader) -> Seen {
    let (mut io, client) = client(steps);
    let mut buf = BytesMut::new();
    let start = Instant::now();
    let result = read_head(&mut io, &mut buf, expect, HEADER_TIMEOUT).await;
    let took = start.elapsed();
    client.abort();
    Seen { result, buf: buf.to_vec(), took }
}

fn env_of(head: &Head) -> Option<String> {
    head.context.as_ref().and_then(Context::env_id).map(|env| env.to_string())
}

#[tokio::test(start_paused = true)]
async fn header_split_at_every_byte() {
    let stream = [&header("pr-1")[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    let header_len = header("pr-1").len();
    for expect in BOTH {
        for at in 1..stream.len() {
            let steps = vec![Send(stream[..at].to_vec()), Wait(TICK), Send(stream[at..].to_vec())];
            let (mut io, client) = client(steps);
            let mut buf = BytesMut::new();
            let head = read_head(&mut io, &mut buf, expect, HEADER_TIMEOUT).await.expect("a header");
            assert_eq!((env_of(&head).as_deref(), head.why), (Some("pr-1"), HeadKind::Header), "at {at}");
            assert_eq!(head.context.unwrap().wire(), header("pr-1"));
            // What was read beyond the header and what is yet to be read are the payload, in order.
            drop(client.await);
            let mut rest = buf.to_vec();
            io.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, stream[header_len..], "at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn header_byte_by_byte() {
    let steps = header("pr-1").into_iter().flat_map(|byte| [Send(vec![byte]), Wait(TICK)]).collect();
    let seen = run(steps, SNIFF).await;
    assert_eq!(env_of(&seen.result.unwrap()).as_deref(), Some("pr-1"));
    assert!(seen.buf.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_header_is_replayed() {
    let proxy_v2 = [&SIGNATURE[..], b"\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x1f\x90\0\x50"].concat();
    let version_2 = [&SIGNATURE[..], b"\x02\x03a:b"].concat();
    let cases = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), HeadKind::Payload),
        (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec(), HeadKind::Payload),
        (vec![0], HeadKind::Payload),
        (SIGNATURE[..11].iter().copied().chain([b'\r']).collect(), HeadKind::Payload),
        (proxy_v2, HeadKind::ProxyV2),
        (version_2, HeadKind::UnknownVersion(2)),
    ];
    for (bytes, why) in cases {
        for expect in BOTH {
            let seen = run(vec![Send(bytes.clone())], expect).await;
            assert_eq!(seen.result.unwrap(), Head { context: None, why });
            assert_eq!((seen.buf, seen.took), (bytes.clone(), Duration::ZERO));
            // The same, byte by byte.
            let steps = bytes.iter().flat_map(|byte| [Send(vec![*byte]), Wait(TICK)]).collect();
            let seen = run(steps, expect).await;
            assert_eq!(seen.result.unwrap().why, why);
            assert!(!seen.buf.is_empty() && bytes.starts_with(&seen.buf));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_clients() {
    for (expect, just_in_time) in
        [(SNIFF, 40), (ExpectHeader::Always, 4990)].map(|(e, t)| (e, Duration::from_millis(t)))
    {
        let wait = just_in_time + TICK;
        let seen = run(vec![], expect).await;
        assert_eq!(seen.result.unwrap(), Head { context: None, why: HeadKind::Silent });
        assert_eq!((seen.buf, round(seen.took)), (vec![], wait));
        // One that speaks just in time is heard.
        let seen = run(vec![Wait(just_in_time), Send(header("pr-1"))], expect).await;
        assert_eq!(env_of(&seen.result.unwrap()).as_deref(), Some("pr-1"));
    }
}

#[tokio::test(start_paused = true)]
async fn never_reads_nothing() {
    let (mut io, client) = client(vec![Send(header("pr-1")), Close]);
    client.await.unwrap();
    let mut buf = BytesMut::new();
    let head = read_head(&mut io, &mut buf, ExpectHeader::Never, HEADER_TIMEOUT).await.unwrap();
    assert_eq!(head, Head { context: None, why: HeadKind::NotRead });
    assert!(buf.is_empty());
    let mut rest = vec![];
    io.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, header("pr-1"));
}

/// At every length: what a stream that stops there comes to.
#[tokio::test(start_paused = true)]
async fn cut_off() {
    let header = header("pr-1");
    for expect in BOTH {
        for got in 0..header.len() {
            let part = header[..got].to_vec();
            let sent = if got == 0 { vec![] } else { vec![Send(part.clone())] };

            let closed = run([sent.clone(), vec![Close]].concat(), expect).await;
            match (got, closed.result) {
                (0, Ok(head)) => assert_eq!(head.why, HeadKind::Eof),
                (1..=4, Ok(head)) => assert_eq!(head.why, HeadKind::Payload),
                (5.., Err(HeadError::Truncated { got: told })) => assert_eq!(told, got),
                (_, other) => panic!("closed after {got}: {other:?}"),
            }
            assert_eq!(closed.buf, part);

            let stuck = run(sent, expect).await;
            match (got, stuck.result) {
                (0, Ok(head)) => assert_eq!(head.why, HeadKind::Silent),
                (1..=4, Ok(head)) => assert_eq!(head.why, HeadKind::Payload),
                (5.., Err(HeadError::Timeout { got: told, waited })) => {
                    assert_eq!((told, waited), (got, HEADER_TIMEOUT));
                }
                (_, other) => panic!("stuck after {got}: {other:?}"),
            }
            assert_eq!(stuck.buf, part);
            if got > 0 {
                assert_eq!(round(stuck.took), HEADER_TIMEOUT);
            }
        }
    }
}

/// Bytes that trickle do not extend the time for a whole header.
#[tokio::test(start_paused = true)]
async fn trickling_client() {
    let long = header(&"e".repeat(EnvId::MAX_LEN));
    let steps = long.iter().flat_map(|byte| [Send(vec![*byte]), Wait(Duration::from_secs(1))]).collect();
    let seen = run(steps, SNIFF).await;
    assert!(matches!(seen.result, Err(HeadError::Timeout { got: 5..=6, .. })), "{:?}", seen.result);
    assert_eq!(round(seen.took), HEADER_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_read_than_needed() {
    let stream = [header("pr-1"), vec![b'x'; 60_000]].concat();
    for split in [0, 1, header("pr-1").len() - 1] {
        let steps = vec![Send(stream[..split].to_vec()), Wait(TICK), Send(stream[split..].to_vec())];
        let seen = run(steps, SNIFF).await;
        assert_eq!(seen.result.unwrap().why, HeadKind::Header);
        let beyond = READ_SIZE - (header("pr-1").len() - split);
        assert_eq!(seen.buf.len(), beyond, "split at {split}");
        assert!(seen.buf.iter().all(|byte| *byte == b'x'));
    }
    // Room that a buffer happens to have is no reason to read more.
    let (mut io, _client) = client(vec![Send(stream)]);
    let mut roomy = BytesMut::with_capacity(64 * 1024);
    read_head(&mut io, &mut roomy, SNIFF, HEADER_TIMEOUT).await.unwrap();
    assert_eq!(roomy.len(), READ_SIZE - header("pr-1").len());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_can_be_repeated() {
    let stream = [&header("pr-1")[..], b"payload"].concat();
    let (mut io, _client) =
        client(vec![Send(stream[..20].to_vec()), Wait(TICK), Send(stream[20..].to_vec())]);
    let mut buf = BytesMut::new();
    let first = tokio::time::timeout(TICK / 2, read_head(&mut io, &mut buf, SNIFF, HEADER_TIMEOUT)).await;
    assert!(first.is_err(), "{first:?}");
    assert_eq!(buf, stream[..20]);
    let head = read_head(&mut io, &mut buf, SNIFF, Duration::MAX).await.unwrap();
    assert_eq!(env_of(&head).as_deref(), Some("pr-1"));
    assert_eq!(&buf[..], b"payload");
}

#[tokio::test(start_paused = true)]
async fn a_failing_connection() {
    struct Reset;
    impl AsyncRead for Reset {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> task::Poll<io::Result<()>> {
            task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    let mut buf = BytesMut::from(&header("pr-1")[..7]);
    match read_head(&mut Reset, &mut buf, SNIFF, HEADER_TIMEOUT).await {
        Err(HeadError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn version_is_that_of_the_codec() {
    assert_eq!(header("x")[SIGNATURE.len()], VERSION);
}

/// tokio's timers fire at the millisecond after the one asked for.
fn round(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap() / 10 * 10)
}

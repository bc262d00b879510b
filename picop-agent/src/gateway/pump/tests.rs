use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::gateway::testing::{accept, connect, expect, listener, rest, send, within};

/// Both ends of a connection that is pumped, and its end.
async fn pumped(buffer: usize) -> (TcpStream, TcpStream, tokio::task::JoinHandle<(End, u64, u64)>) {
    let ((front, at), (back, to)) = (listener().await, listener().await);
    let client = connect(at).await;
    let accepted = accept(&front).await;
    let upstream = connect(to).await;
    let server = accept(&back).await;
    let pumping = tokio::spawn(async move {
        let carried = Carried::default();
        let end = pump(&accepted, &upstream, BytesMut::from(&b"first"[..]), &carried, buffer).await;
        (end, carried.up.load(Ordering::Relaxed), carried.down.load(Ordering::Relaxed))
    });
    (client, server, pumping)
}

#[tokio::test]
async fn all_bytes_both_ways_in_order() {
    for buffer in [1, 1000, DEFAULT_BUFFER] {
        let (mut client, mut server, pumping) = pumped(buffer).await;
        expect(&mut server, b"first").await;
        let count = buffer * 50 + 7;
        let bytes: Vec<u8> = (0..count).map(|at| u8::try_from(at % 251).expect("small")).collect();
        for (from, to) in [(&mut client, &mut server)] {
            send(from, &bytes).await;
            expect(to, &bytes).await;
        }
        send(&mut server, &bytes).await;
        expect(&mut client, &bytes).await;
        client.shutdown().await.expect("open");
        assert_eq!(rest(&mut server).await.0, b"");
        drop(server);
        assert_eq!(rest(&mut client).await.0, b"");
        let count = u64::try_from(count).expect("fits");
        assert_eq!(within(pumping).await.expect("no panic"), (End::Closed, count + 5, count));
    }
}

#[tokio::test]
async fn an_answer_before_a_reset_is_delivered() {
    let (mut client, mut server, pumping) = pumped(4096).await;
    expect(&mut server, b"first").await;
    let answer = vec![1; 100_000];
    send(&mut server, &answer).await;
    // All of it has left before the reset, which would throw away what has not.
    delivered(&server).await;
    crate::gateway::stream::reset(&server);
    drop(server);
    // The client keeps sending, as one that has not read the answer yet does.
    let (end, ..) = within(pumping).await.expect("no panic");
    assert!(matches!(end, End::Upstream(_)), "{end:?}");
    assert_eq!(rest(&mut client).await.0.len(), answer.len());
}

#[tokio::test]
async fn a_reset_behind_a_half_close_is_noticed() {
    let (client, mut server, pumping) = pumped(4096).await;
    expect(&mut server, b"first").await;
    SockRef::from(&client).shutdown(Shutdown::Write).expect("open");
    assert_eq!(rest(&mut server).await.0, b"");
    crate::gateway::stream::reset(&client);
    drop(client);
    // The server says nothing meanwhile, so nothing is written either.
    let (end, ..) = within(pumping).await.expect("no panic");
    assert_eq!(end, End::Client(io::ErrorKind::ConnectionReset));

    let (mut client, server, pumping) = pumped(4096).await;
    SockRef::from(&server).shutdown(Shutdown::Write).expect("open");
    assert_eq!(rest(&mut client).await.0, b"");
    crate::gateway::stream::reset(&server);
    drop(server);
    let (end, ..) = within(pumping).await.expect("no panic");
    assert_eq!(end, End::Upstream(io::ErrorKind::ConnectionReset));
}

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::OwnedFd,
    thread,
};

use socket2::SockRef;

use super::*;
use crate::relay::event_loop::block_on;

/// A connection over loopback: the peer's end, and the relay's.
fn pair() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    let (own, _) = listener.accept().expect("it has connected");
    own.set_nonblocking(true).expect("a socket");
    peer.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    peer.set_write_timeout(Some(Duration::from_secs(20))).expect("a socket");
    (peer, own.into())
}

/// A pump on a thread of its own: client, server, and what comes of it.
fn relay() -> (TcpStream, TcpStream, thread::JoinHandle<(End, u64, u64)>) {
    let ((client, down), (server, up)) = (pair(), pair());
    let pumping = thread::spawn(move || {
        let (down, up) = (Socket::new(down), Socket::new(up));
        block_on(async move {
            let carried = Carried::default();
            let end = pump(&down, &up, &carried, None).await;
            if end != End::Closed {
                for socket in [&down, &up] {
                    SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("a socket");
                }
            }
            (end, carried.up.load(Ordering::Relaxed), carried.down.load(Ordering::Relaxed))
        })
    });
    (client, server, pumping)
}

/// Bytes that tell where they belong.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).expect("a byte")).collect()
}

/// Both ways at once, each with its own end of stream.
fn exchange(up: usize, down: usize) {
    let (client, server, pumping) = relay();
    let (request, response) = (pattern(up), pattern(down));
    let send = |mut to: &TcpStream, bytes: &[u8]| {
        to.write_all(bytes).expect("room some day");
        to.shutdown(Shutdown::Write).expect("connected");
    };
    let receive = |mut from: &TcpStream| {
        let mut all = Vec::new();
        from.read_to_end(&mut all).expect("an end of stream");
        all
    };
    thread::scope(|scope| {
        scope.spawn(|| send(&client, &request));
        scope.spawn(|| send(&server, &response));
        let at_server = scope.spawn(|| receive(&server));
        assert!(receive(&client) == response, "{down} bytes down");
        assert!(at_server.join().expect("no panic") == request, "{up} bytes up");
    });
    assert_eq!(pumping.join().expect("no panic"), (End::Closed, up as u64, down as u64));
}

#[test]
fn nothing_and_little_and_much_arrive_whole() {
    for (up, down) in
        [(0, 0), (1, 0), (0, 1), (1000, 1000), (65_536, 65_537), (30_000_000, 17), (5, 20_000_000)]
    {
        exchange(up, down);
    }
    exchange(10_000_000, 10_000_000);
}

/// From buffers to a pipe and back, many times, with a reader that sees each piece before the next is sent.
#[test]
fn pieces_of_changing_size_arrive_in_order() {
    let (mut client, mut server, pumping) = relay();
    let sizes = [2_000_000, 1, 300_000, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 4_000_000, 65_536, 3];
    let mut total = 0;
    for size in sizes.into_iter().cycle().take(48) {
        let piece = pattern(size);
        let mut got = vec![0; size];
        thread::scope(|scope| {
            scope.spawn(|| client.write_all(&piece).expect("room some day"));
            server.read_exact(&mut got).expect("all of it");
        });
        assert!(got == piece, "a piece of {size} bytes");
        total += size as u64;
    }
    drop((client, server));
    assert_eq!(pumping.join().expect("no panic"), (End::Closed, total, 0));
}

#[test]
fn a_half_closed_connection_goes_on_the_other_way() {
    let (mut client, mut server, pumping) = relay();
    client.write_all(b"request").expect("connected");
    client.shutdown(Shutdown::Write).expect("connected");
    let mut request = String::new();
    server.read_to_string(&mut request).expect("an end of stream");
    assert_eq!(request, "request");
    let response = pattern(3_000_000);
    thread::scope(|scope| {
        let mut got = Vec::new();
        scope.spawn(|| {
            server.write_all(&response).expect("connected");
            drop(server);
        });
        client.read_to_end(&mut got).expect("an end of stream");
        assert!(got == response);
    });
    assert_eq!(pumping.join().expect("no panic"), (End::Closed, 7, 3_000_000));
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(stream);
}

#[test]
fn a_reset_of_the_server_reaches_the_client_behind_what_it_sent() {
    let (mut client, mut server, pumping) = relay();
    server.write_all(b"the last word").expect("connected");
    let mut word = [0; 13];
    client.read_exact(&mut word).expect("it was sent");
    reset(server);
    assert_eq!(client.read(&mut [0]).expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(pumping.join().expect("no panic"), (End::Upstream(io::ErrorKind::ConnectionReset), 0, 13));
}

/// A client that stops reading, with the relay stuck writing to it, and then resets.
#[test]
fn a_reset_is_noticed_while_the_other_direction_is_stuck() {
    for bytes in [1000, 5_000_000] {
        let (client, mut server, pumping) = relay();
        server.set_write_timeout(Some(Duration::from_millis(300))).expect("a socket");
        // Fills what there is to fill; nobody reads.
        let stuck = pattern(bytes);
        while server.write_all(&stuck).is_ok() {}
        reset(client);
        let (end, _, down) = pumping.join().expect("no panic");
        assert!(matches!(end, End::Client(_)), "{end:?}");
        assert!(down > 0);
    }
}

#[test]
fn a_reset_is_noticed_after_the_end_of_its_stream() {
    let (mut client, server, pumping) = relay();
    server.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(client.read(&mut [0]).expect("an end of stream"), 0);
    // The direction from the server has ended; nothing reads from it.
    reset(server);
    let (end, ..) = pumping.join().expect("no panic");
    assert_eq!(end, End::Upstream(io::ErrorKind::ConnectionReset));
    assert!(
        client.write_all(b"x").and_then(|()| client.write_all(b"y")).is_err()
            || client.read(&mut [0]).is_err()
    );
}

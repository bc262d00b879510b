use std::{io, net::Ipv4Addr};

use super::*;
use crate::gateway::testing::{connect, listener, within};

#[tokio::test]
async fn all_addresses_of_a_port() {
    let listener = listen_everywhere(0).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let client = connect((Ipv4Addr::LOCALHOST, port).into()).await;
    let (_, peer) = within(listener.accept()).await.expect("a client");
    assert_eq!(peer.port(), client.local_addr().expect("an address").port());
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let (_taken, at) = listener().await;
    let error = listen(at).await.expect_err("taken");
    assert!(error.to_string().contains(&at.to_string()), "{error}");
}

#[tokio::test]
async fn places_are_given_back() {
    let (listener, at) = listener().await;
    let life = Life::default();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let accepting = life.accept(listener, 2, |_| {
        let tell = tell.clone();
        move |stream, peer| {
            tell.send(peer).expect("somebody listens");
            async move { drop(stream) }
        }
    });
    accepting.expect("a listener");
    for _ in 0..10 {
        let client = connect(at).await;
        let peer = within(told.recv()).await.expect("accepted");
        assert_eq!(peer, client.local_addr().expect("an address"));
    }
    assert_eq!(within(life.drain(Duration::from_secs(20))).await, 0);
}

#[tokio::test]
async fn workers_serve_where_they_accept() {
    let (listener, at) = listener().await;
    let workers = Workers::start(2).expect("threads");
    let life = Life::with_workers(&workers);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let accepting = life.accept(listener, 3, |worker| {
        let tell = tell.clone();
        move |stream, peer| {
            let tell = tell.clone();
            async move {
                let thread = std::thread::current().name().map(str::to_owned);
                tell.send((worker, thread, peer)).expect("somebody listens");
                drop(stream);
            }
        }
    });
    accepting.expect("a listener");
    for _ in 0..20 {
        let client = connect(at).await;
        let (worker, thread, peer) = within(told.recv()).await.expect("accepted");
        assert_eq!(peer, client.local_addr().expect("an address"));
        assert_eq!(thread, Some(format!("picop-gateway-{worker}")));
    }
    assert_eq!(within(life.drain(Duration::from_secs(20))).await, 0);
    // Nobody accepts any more: the listener is closed on all threads.
    let refused = within(TcpStream::connect(at)).await.expect_err("closed");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // In a runtime's thread, which may not wait for another runtime's end.
    tokio::task::spawn_blocking(move || drop(workers)).await.expect("no panic");
}

#[tokio::test]
async fn what_is_accepted_inherits_what_its_listener_was_told() {
    let (listener, at) = listener().await;
    let life = Life::default();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let accepting = life.accept(listener, 2, |_| {
        let tell = tell.clone();
        move |stream: TcpStream, _| {
            let socket = socket2::SockRef::from(&stream);
            let is_set = socket.keepalive().and_then(|keepalive| Ok(keepalive && socket.tcp_nodelay()?));
            tell.send(is_set.expect("a socket")).expect("somebody listens");
            async move { drop(stream) }
        }
    });
    accepting.expect("a listener");
    let _client = connect(at).await;
    assert_eq!(within(told.recv()).await, Some(true));
}

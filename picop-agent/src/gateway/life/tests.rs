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
    life.accept(listener, 2, move |stream, peer| {
        tell.send(peer).expect("somebody listens");
        async move { drop(stream) }
    });
    for _ in 0..10 {
        let client = connect(at).await;
        let peer = within(told.recv()).await.expect("accepted");
        assert_eq!(peer, client.local_addr().expect("an address"));
    }
    assert_eq!(within(life.drain(Duration::from_secs(20))).await, 0);
}

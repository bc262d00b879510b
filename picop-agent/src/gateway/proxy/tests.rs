use std::{net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{
    table::{Entry, Table},
    *,
};
use crate::{
    gateway::testing::{
        accept, connect, expect, expect_end, expect_reset, header, listener, of, rest, rules, send, within,
    },
    protocol::ExpectHeader,
};

/// A proxy, with a server for pr-1 and one for all others.
struct Scene {
    proxy: SocketAddr,
    variant: TcpListener,
    base: TcpListener,
    table: Arc<Table>,
    life: Life,
}

impl Scene {
    async fn new(expect: ExpectHeader, propagate: bool, at_once: u32) -> Self {
        let ((variant, to), (base, default)) = (listener().await, listener().await);
        let (at, proxy_at) = listener().await;
        let table = Arc::new(Table::default());
        let entry = Entry { env_id: "pr-1".parse().expect("a name"), destination: to.to_string() };
        table.put(vec![entry]).expect("room");
        let default = Some(default.to_string().into());
        let proxy = Arc::new(Proxy { table: Arc::clone(&table), default, propagate });
        let life = Life::default();
        let (rules, serving) = (rules(expect), life.clone());
        let accepting = life.accept(at, at_once, |_| {
            let (proxy, serving) = (Arc::clone(&proxy), serving.clone());
            move |client, peer| connection::serve(Arc::clone(&proxy), rules, serving.clone(), client, peer)
        });
        accepting.expect("a listener");
        Self { proxy: proxy_at, variant, base, table, life }
    }

    async fn always() -> Self {
        Self::new(ExpectHeader::Always, false, 1000).await
    }
}

#[tokio::test]
async fn by_environment() {
    let baggage = header(&[("Baggage", "a=1,env-id=pr-1")]);
    for propagate in [false, true] {
        let scene = Scene::new(ExpectHeader::Always, propagate, 100).await;
        for (head, is_variant) in [
            (of("pr-1"), true),
            (baggage.clone(), true),
            (of("pr-2"), false),
            (of("PR-1"), false),
            (of(""), false),
            (vec![], false),
        ] {
            let mut client = connect(scene.proxy).await;
            send(&mut client, &[&head[..], b"payload"].concat()).await;
            let mut served = accept(if is_variant { &scene.variant } else { &scene.base }).await;
            if propagate {
                expect(&mut served, &head).await;
            }
            expect(&mut served, b"payload").await;
            send(&mut served, b"answer").await;
            expect(&mut client, b"answer").await;
            drop(client);
            expect_end(&mut served).await;
        }
    }
}

#[tokio::test]
async fn a_header_in_two_segments_split_at_every_byte() {
    let scene = Scene::always().await;
    let whole = [&header(&[("Env-Id", "pr-1"), ("Traceparent", "00-a:b-01")])[..], b"xy"].concat();
    for at in 1..whole.len() {
        let mut client = connect(scene.proxy).await;
        client.set_nodelay(true).expect("TCP");
        send(&mut client, &whole[..at]).await;
        // What it has sent is in the proxy's socket, and has been looked at, when another client was served.
        let mut other = connect(scene.proxy).await;
        send(&mut other, b"z").await;
        expect(&mut accept(&scene.base).await, b"z").await;
        send(&mut client, &whole[at..]).await;
        expect(&mut accept(&scene.variant).await, b"xy").await;
    }
}

#[tokio::test]
async fn half_closed_before_the_answer() {
    let scene = Scene::always().await;
    let mut client = connect(scene.proxy).await;
    send(&mut client, &[&of("pr-1")[..], b"question"].concat()).await;
    client.shutdown().await.expect("open");
    let mut served = accept(&scene.variant).await;
    let (question, end) = rest(&mut served).await;
    assert_eq!(question, b"question");
    end.expect("a FIN");
    let long = vec![7; 3_000_000];
    let sending = tokio::spawn(async move {
        send(&mut served, &long).await;
    });
    let (answer, end) = rest(&mut client).await;
    assert_eq!(answer.len(), 3_000_000);
    end.expect("a FIN");
    sending.await.expect("sent");
}

#[tokio::test]
async fn a_header_alone_and_the_end() {
    let scene = Scene::always().await;
    let mut client = connect(scene.proxy).await;
    send(&mut client, &of("pr-1")).await;
    client.shutdown().await.expect("open");
    expect_end(&mut accept(&scene.variant).await).await;
}

#[tokio::test]
async fn half_a_header_is_a_reset() {
    let scene = Scene::always().await;
    let mut client = connect(scene.proxy).await;
    send(&mut client, &of("pr-1")[..15]).await;
    client.shutdown().await.expect("open");
    expect_reset(&mut client).await;
}

#[tokio::test]
async fn silent_clients_are_in_nobodys_way() {
    let scene = Scene::always().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connect(scene.proxy).await);
    }
    let mut client = connect(scene.proxy).await;
    send(&mut client, &[&of("pr-1")[..], b"x"].concat()).await;
    expect(&mut accept(&scene.variant).await, b"x").await;
}

#[tokio::test]
async fn resets_are_carried_both_ways() {
    let scene = Scene::always().await;
    let mut client = connect(scene.proxy).await;
    send(&mut client, &[&of("pr-1")[..], b"x"].concat()).await;
    let mut served = accept(&scene.variant).await;
    expect(&mut served, b"x").await;
    crate::gateway::stream::reset(&client);
    drop(client);
    expect_reset(&mut served).await;

    let mut client = connect(scene.proxy).await;
    send(&mut client, &[&of("pr-1")[..], b"x"].concat()).await;
    let mut served = accept(&scene.variant).await;
    expect(&mut served, b"x").await;
    send(&mut served, b"last words").await;
    expect(&mut client, b"last words").await;
    crate::gateway::stream::reset(&served);
    drop(served);
    expect_reset(&mut client).await;
}

#[tokio::test]
async fn no_server_is_a_reset() {
    let scene = Scene::always().await;
    let (nobody, at) = listener().await;
    drop(nobody);
    let entry = Entry { env_id: "gone".parse().expect("a name"), destination: at.to_string() };
    scene.table.put(vec![entry]).expect("room");
    let mut client = connect(scene.proxy).await;
    send(&mut client, &of("gone")).await;
    expect_reset(&mut client).await;
}

#[tokio::test]
async fn no_default_is_a_reset() {
    let router = Proxy { table: Arc::default(), default: None, propagate: true };
    let route = router.route(None);
    assert_eq!((route.destination, route.reason, route.told), (None, "no_environment", "none"));
}

const SHORT: ExpectHeader = ExpectHeader::Sniff(Duration::from_millis(1));

#[tokio::test]
async fn a_server_that_speaks_first() {
    let scene = Scene::new(SHORT, false, 100).await;
    let mut client = connect(scene.proxy).await;
    let mut served = accept(&scene.base).await;
    send(&mut served, b"hello").await;
    expect(&mut client, b"hello").await;
    send(&mut client, b"login").await;
    expect(&mut served, b"login").await;
    drop(served);
    expect_end(&mut client).await;
}

#[tokio::test]
async fn a_header_that_comes_late_is_heeded_until_the_server_speaks() {
    let scene = Scene::new(SHORT, false, 100).await;
    let mut client = connect(scene.proxy).await;
    let mut wrong = accept(&scene.base).await;
    send(&mut client, &[&of("pr-1")[..], b"x"].concat()).await;
    expect(&mut accept(&scene.variant).await, b"x").await;
    expect_end(&mut wrong).await;

    let mut client = connect(scene.proxy).await;
    let mut wrong = accept(&scene.base).await;
    send(&mut wrong, b"hello").await;
    expect(&mut client, b"hello").await;
    send(&mut client, &of("pr-1")).await;
    expect_reset(&mut client).await;
    expect_reset(&mut wrong).await;
}

#[tokio::test]
async fn new_destinations_are_for_new_connections() {
    let scene = Scene::always().await;
    let mut old = connect(scene.proxy).await;
    send(&mut old, &[&of("pr-1")[..], b"1"].concat()).await;
    let mut served = accept(&scene.variant).await;
    expect(&mut served, b"1").await;
    assert!(scene.table.delete("pr-1"));
    let mut new = connect(scene.proxy).await;
    send(&mut new, &[&of("pr-1")[..], b"2"].concat()).await;
    expect(&mut accept(&scene.base).await, b"2").await;
    send(&mut old, b"3").await;
    expect(&mut served, b"3").await;
}

#[tokio::test]
async fn no_more_at_once_than_allowed() {
    let scene = Scene::new(ExpectHeader::Always, false, 1).await;
    let mut first = connect(scene.proxy).await;
    send(&mut first, b"1").await;
    let mut served = accept(&scene.base).await;
    expect(&mut served, b"1").await;
    let mut second = connect(scene.proxy).await;
    send(&mut second, b"2").await;
    let early = tokio::time::timeout(Duration::from_millis(200), scene.base.accept()).await;
    assert!(early.is_err(), "the second was served beside the first");
    drop((first, served));
    expect(&mut accept(&scene.base).await, b"2").await;
}

#[tokio::test]
async fn an_orderly_end() {
    let scene = Scene::always().await;
    let mut client = connect(scene.proxy).await;
    send(&mut client, b"1").await;
    let mut served = accept(&scene.base).await;
    expect(&mut served, b"1").await;
    let life = scene.life.clone();
    let draining = tokio::spawn(async move { life.drain(Duration::from_secs(60)).await });
    within(scene.life.stopping()).await;
    send(&mut served, b"still there").await;
    expect(&mut client, b"still there").await;
    drop((client, served));
    assert_eq!(within(draining).await.expect("no panic"), 0);
}

#[tokio::test]
async fn an_end_that_does_not_wait() {
    let scene = Scene::always().await;
    let mut client = connect(scene.proxy).await;
    send(&mut client, b"1").await;
    let mut served = accept(&scene.base).await;
    expect(&mut served, b"1").await;
    assert_eq!(within(scene.life.drain(Duration::ZERO)).await, 1);
    expect_reset(&mut client).await;
    assert!(tokio::net::TcpStream::connect(scene.proxy).await.is_err(), "it still accepts");
}

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::stream;
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame},
};
use kube::{Client, client::Body};
use serde_json::json;

use super::*;
use crate::source::kubernetes::{objects::Namespace, wire};

#[test]
fn pauses_grow_to_a_limit() {
    let mut backoff = Backoff::default();
    let pauses: Vec<_> = (0..12).map(|_| backoff.next()).collect();
    assert!(pauses[0] <= Backoff::FIRST && pauses[0] >= Backoff::FIRST / 2, "{pauses:?}");
    assert!(pauses[11] <= Backoff::LAST && pauses[11] >= Backoff::LAST / 2, "{pauses:?}");
    backoff.reset();
    assert!(backoff.next() <= Backoff::FIRST);
}

/// A connection that was cut without a word: nothing comes, and nothing ends. Time is the test's own.
#[tokio::test(start_paused = true)]
async fn a_watch_that_says_nothing_is_given_up() {
    let watches = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn({
        let watches = Arc::clone(&watches);
        move |request: Request<Body>| {
            let watching = request.uri().query().unwrap_or_default().contains("watch=");
            let body = if watching {
                watches.fetch_add(1, Ordering::Relaxed);
                Either::Left(StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()))
            } else {
                let list = json!({
                    "apiVersion": "v1", "kind": "NamespaceList", "metadata": {"resourceVersion": "7"},
                    "items": [{"metadata": {"name": "shop"}}],
                });
                Either::Right(Full::new(Bytes::from(list.to_string())))
            };
            async { Ok::<_, Infallible>(Response::new(body)) }
        }
    });
    let follow = Follow {
        api: Api::<wire::Namespace>::all(Client::new(service, "default")),
        fields: None,
        kind: "Namespace",
        optional: false,
        keep: Box::new(|it| Some(Namespace::from(it))),
        update: Update::Namespaces,
    };
    let (out, mut updates) = mpsc::channel(8);
    let following = tokio::spawn(follow.run(out));
    let begun = tokio::time::Instant::now();
    let Some(Update::Namespaces(Change::All(all))) = updates.recv().await else { panic!("no list") };
    assert_eq!(all.len(), 1);
    let Some(Update::State(_, State::Live)) = updates.recv().await else { panic!("not live") };
    let Some(Update::State(_, State::Failing(why))) = updates.recv().await else { panic!("not given up") };
    assert!(why.contains("silent"), "{why}");
    assert!(begun.elapsed() >= SILENCE && begun.elapsed() < SILENCE * 2, "{:?}", begun.elapsed());
    // It goes on from where it was: another watch, and no list.
    let Some(Update::State(_, State::Live)) = updates.recv().await else { panic!("not live again") };
    assert_eq!(watches.load(Ordering::Relaxed), 2);
    drop(updates);
    following.await.unwrap();
}

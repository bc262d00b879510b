use std::sync::{Arc, Mutex};

use super::*;
use crate::gateway::testing::{http_server, within};

#[tokio::test]
async fn registers_and_activates_until_it_succeeds() {
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let told = Arc::clone(&seen);
    let controller = http_server(move |request: Request<Incoming>| {
        let told = Arc::clone(&told);
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let mut told = told.lock().expect("no panic");
            told.push(format!("{line} {}", String::from_utf8_lossy(&body)));
            let mut answer = Response::new(Full::new(Bytes::new()));
            // The first time there is no database, the second time not all of it.
            *answer.status_mut() = match told.len() {
                1 | 3 => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::OK,
            };
            answer
        }
    })
    .await;
    let url = format!("http://{controller}/base/").parse().expect("a URL");
    let registration = Registration::new(Some(url), Some("cart/1".to_owned()), Some(Place::Own), 9001);
    let registration = registration.expect("good").expect("a controller");
    within(registration.keep_trying()).await;
    let register = "PUT /base/proxy/cart%2F1/register {\"endpoint\":\"http://127.0.0.1:9001\"}";
    let activate = "PUT /base/proxy/cart%2F1/activate ";
    assert_eq!(*seen.lock().expect("no panic"), [register, register, activate, register, activate]);
}

#[tokio::test]
async fn an_endpoint_that_was_given() {
    let (controller, mut bodies) = {
        let (tell, bodies) = tokio::sync::mpsc::unbounded_channel();
        let controller = http_server(move |request: Request<Incoming>| {
            let tell = tell.clone();
            async move {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                tell.send(body).expect("somebody listens");
                Response::new(Full::new(Bytes::new()))
            }
        });
        (controller.await, bodies)
    };
    let url = format!("http://{controller}").parse().expect("a URL");
    let endpoint = Some("http://proxy-a:9001".parse().expect("a URL"));
    let registration = Registration::new(Some(url), Some("a".to_owned()), endpoint, 1);
    within(registration.expect("good").expect("a controller").keep_trying()).await;
    assert_eq!(bodies.recv().await.as_deref(), Some(&br#"{"endpoint":"http://proxy-a:9001"}"#[..]));
}

/// The address that the operator has registered must stay.
#[tokio::test]
async fn without_an_endpoint_it_activates_and_nothing_else() {
    let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let controller = http_server(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            tell.send(request.uri().to_string()).expect("somebody listens");
            Response::new(Full::new(Bytes::new()))
        }
    });
    let url = format!("http://{}", controller.await).parse().expect("a URL");
    let registration = Registration::new(Some(url), Some("a".to_owned()), None, 1);
    within(registration.expect("good").expect("a controller").keep_trying()).await;
    assert_eq!(asked.recv().await.as_deref(), Some("/proxy/a/activate"));
    assert!(asked.try_recv().is_err());
}

#[test]
fn urls() {
    assert!(Registration::new(None, None, None, 1).is_ok_and(|none| none.is_none()));
    let by_default =
        Registration::new(None, Some("a".to_owned()), None, 1).expect("good").expect("a controller");
    assert_eq!(by_default.controller, "http://localhost:8080");
    let bad =
        Registration::new(None, Some("a".to_owned()), Some(Place::At(Uri::from_static("https://p"))), 1);
    assert!(matches!(bad, Err(GatewayError::Url { option: "--endpoint", .. })));
    for bad in ["https://c", "c:80", "/x"] {
        let error = Registration::new(Some(Uri::from_static(bad)), Some("a".to_owned()), None, 1);
        assert!(matches!(error, Err(GatewayError::Url { option: "--controller-url", .. })), "{bad}");
    }
}

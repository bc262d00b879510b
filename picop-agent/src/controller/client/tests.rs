use super::*;
use crate::controller::http::{Answer, Answers, Server};
use tokio::net::TcpListener;

/// Answers with what was asked, 404 to all but one path.
struct Echo;

impl Answers for Echo {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let text = format!("{} {}", request.method(), request.uri());
        let mut answer = Response::new(Full::from(text));
        if request.uri().path() != "/base/good" {
            *answer.status_mut() = StatusCode::NOT_FOUND;
        }
        answer
    }
}

#[tokio::test]
async fn an_answer_is_good_or_says_why_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let server = Server::start(listener, Echo);
    let endpoint = format!("http://{at}/base/");
    let mut client = Client::new(&endpoint);
    assert!(client.is_at(&endpoint) && !client.is_at("http://elsewhere"));
    assert_eq!(client.local().await.expect("connected").ip(), at.ip());
    client.ask(Method::PUT, "/good", vec![1]).await.expect("good");
    let bad = client.ask(Method::DELETE, "/bad", vec![]).await.expect_err("bad");
    assert!(bad.to_string().contains("404") && bad.to_string().contains("DELETE /base/bad"), "{bad}");
    server.stop().await;
    let gone = client.ask(Method::PUT, "/good", vec![]).await.expect_err("nobody is there");
    assert!(matches!(gone, AskError::Connect { .. }), "{gone:?}");
    let none = Client::new("nowhere").ask(Method::PUT, "/good", vec![]).await.expect_err("no address");
    assert!(matches!(none, AskError::Connect { .. }), "{none:?}");
}

#[tokio::test]
async fn a_lost_answer_is_told_from_a_message_that_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let taken = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.readable().await.expect("a request");
    });
    let lost = Client::new(&format!("http://{at}")).ask(Method::PUT, "/", vec![]).await;
    assert!(matches!(lost, Err(AskError::NoAnswer { .. })), "{lost:?}");
    taken.await.expect("taken");
}

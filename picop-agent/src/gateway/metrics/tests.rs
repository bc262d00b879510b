use super::*;
use crate::{
    gateway::{
        Life,
        ask::Asked,
        testing::{text, within},
    },
    telemetry::metrics::written,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;

fn env(name: &str) -> EnvId {
    name.parse().expect("a name")
}

fn lines(metrics: &Metrics) -> Vec<String> {
    let (_, text) = written(&metrics.gather(), "").expect("text");
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn has(metrics: &Metrics, line: &str) {
    let lines = lines(metrics);
    assert!(lines.iter().any(|found| found == line), "{line} is not in:\n{}", lines.join("\n"));
}

#[expect(clippy::ref_option, reason = "it is what is looked up by")]
fn request(environment: &Option<EnvId>, reused: bool) -> Request<'_> {
    Request {
        environment,
        env_source: "host",
        status: Some(200),
        outcome: "ok",
        reused,
        down: 1000,
        took: Duration::from_millis(1),
    }
}

#[test]
fn what_connections_and_requests_are_counted_under() {
    let metrics = Arc::new(Metrics::default());
    let open = metrics.accepted();
    has(&metrics, "picop_gateway_connections 1");
    let pr_1 = env("pr-1");
    metrics.closed(&Connection {
        environment: Some(&pr_1),
        reason: Some("variant"),
        outcome: Outcome::Ok,
        up: 10,
        down: 100,
        lasted: Duration::from_millis(1),
    });
    for reused in [false, true, true] {
        metrics.answered(&request(&Some(pr_1.clone()), reused));
    }
    metrics.answered(&Request { status: None, outcome: "client_reset", ..request(&None, false) });
    drop(open);
    for line in [
        "picop_gateway_connections 0",
        "picop_gateway_connections_accepted_total 1",
        "picop_gateway_connections_closed_total{environment=\"pr-1\",outcome=\"ok\",reason=\"variant\"} 1",
        "picop_gateway_bytes_total{direction=\"up\",environment=\"pr-1\"} 10",
        "picop_gateway_bytes_total{direction=\"down\",environment=\"pr-1\"} 100",
        "picop_gateway_connection_duration_seconds_count 1",
        "picop_gateway_requests_total{env_source=\"host\",environment=\"pr-1\",outcome=\"ok\",status=\"200\"} 3",
        "picop_gateway_requests_total{env_source=\"host\",environment=\"\",outcome=\"client_reset\",status=\"0\"} 1",
        "picop_gateway_response_bytes_total{environment=\"pr-1\"} 3000",
        "picop_gateway_upstream_requests_total{connection=\"new\",environment=\"pr-1\"} 1",
        "picop_gateway_upstream_requests_total{connection=\"kept\",environment=\"pr-1\"} 2",
        "picop_gateway_request_duration_seconds_count 4",
    ] {
        has(&metrics, line);
    }
}

#[test]
fn environments_that_clients_make_up_have_no_end_and_names_have() {
    let metrics = Metrics::default();
    for number in 0..3000 {
        metrics.answered(&request(&Some(env(&format!("made-up-{number}"))), false));
    }
    let requests = |line: &&String| line.starts_with("picop_gateway_requests_total{");
    assert!(lines(&metrics).iter().filter(requests).count() <= Limits::default().pairs + 1);
    assert!(metrics.known.read().expect("no panic").len() <= Limits::default().pairs);
    let others = 3000 - Limits::default().pairs;
    let line = format!(
        "picop_gateway_requests_total{{env_source=\"host\",environment=\"(other)\",outcome=\"ok\",status=\"200\"}} {others}"
    );
    has(&metrics, &line);
}

#[tokio::test]
async fn who_asks_is_answered() {
    let life = Life::default();
    let _open = life.metrics().accepted();
    let at = start((std::net::Ipv4Addr::LOCALHOST, 0).into(), &life).await.expect("a port");
    let ask = async |method: &str, path: &str| {
        let url: hyper::Uri = format!("http://{at}{path}").parse().expect("a URL");
        let mut asked =
            within(Asked::connect(&url, &[], Duration::from_secs(20))).await.expect("a connection");
        let request =
            hyper::Request::builder().method(method).uri(url.clone()).body(Full::<Bytes>::default());
        let answer = within(asked.ask(request.expect("a request"))).await.expect("an answer");
        (answer.status(), text(answer).await)
    };
    let (status, numbers) = ask("GET", "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(numbers.lines().any(|line| line == "picop_gateway_connections 1"), "{numbers}");
    assert!(numbers.contains("\nprocess_resident_memory_bytes "), "{numbers}");
    assert_eq!(ask("GET", "/healthz").await, (StatusCode::OK, "live\n".to_owned()));
    assert_eq!(ask("GET", "/else").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask("POST", "/metrics").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

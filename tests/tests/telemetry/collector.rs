//! A collector of traces: it receives them by OTLP, over gRPC or HTTP, and decodes them with OpenTelemetry's own definitions.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;

/// What it has received.
#[derive(Clone, Default)]
pub struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Received {
    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().expect("nobody panics");
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|one| &one.scope_spans).flat_map(|one| one.spans.clone()).collect()
    }

    /// The names of the services that they are of.
    pub fn services(&self) -> Vec<String> {
        let requests = self.0.lock().expect("nobody panics");
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources
            .filter_map(|one| one.resource.as_ref())
            .filter_map(|resource| attribute(&resource.attributes, "service.name"))
            .collect()
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        self.0.lock().expect("nobody panics").push(request);
    }
}

/// An attribute, as text.
pub fn attribute(all: &[KeyValue], name: &str) -> Option<String> {
    let value = all.iter().find(|one| one.key == name)?.value.as_ref()?.value.as_ref()?;
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> std::result::Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.take(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Receives over gRPC, until this process ends.
pub fn grpc() -> Result<(SocketAddr, Received)> {
    let received = Received::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let at = listener.local_addr()?;
    let service = TraceServiceServer::new(received.clone());
    thread::spawn(move || {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        runtime
            .block_on(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming))
    });
    Ok((at, received))
}

/// Receives over HTTP, until this process ends.
pub fn http() -> Result<(SocketAddr, Received)> {
    let received = Received::default();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    thread::spawn({
        let received = received.clone();
        move || {
            for stream in listener.incoming().flatten() {
                let received = received.clone();
                thread::spawn(move || {
                    if let Err(error) = serve(stream, &received) {
                        eprintln!("collector: {error:#}");
                    }
                });
            }
        }
    });
    Ok((at, received))
}

/// One request: what is no export is answered 404.
fn serve(stream: TcpStream, received: &Received) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let is_export = line.starts_with("POST /v1/traces ");
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if is_export {
        received.take(ExportTraceServiceRequest::decode(&body[..]).context("what was exported")?);
    }
    let status = if is_export { "200 OK" } else { "404 Not Found" };
    let head = "Content-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close";
    write!(stream.get_mut(), "HTTP/1.1 {status}\r\n{head}\r\n\r\n")?;
    Ok(())
}

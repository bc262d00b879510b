//! An HTTP request over a connection that belongs to an environment.

use std::process::ExitCode;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, Version,
    body::Incoming,
    header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderValue, USER_AGENT},
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{TerminalError, trust::connector};
use crate::{
    gateway::{args::CurlArgs, ask::Asked},
    protocol::Context,
};

pub async fn run(args: CurlArgs, out: &mut (impl AsyncWrite + Unpin)) -> Result<ExitCode, TerminalError> {
    let context = args.env_id.as_ref().map(Context::for_env);
    let header = context.as_ref().map_or(&[][..], Context::wire);
    let (url, patience, fail, include) = (args.url.clone(), args.connect_timeout, args.fail, args.include);
    let connector = match url.scheme_str() {
        Some("https") => Some(connector(args.cacert.as_deref(), args.insecure)?),
        _ => None,
    };
    let request = request(args)?;
    let mut asked = match &connector {
        Some(connector) => Asked::connect_tls(&url, header, patience, connector).await?,
        None => Asked::connect(&url, header, patience).await?,
    };
    let answer = asked.ask(request).await?;
    let failed = fail && (answer.status().is_client_error() || answer.status().is_server_error());
    if include {
        out.write_all(&head(&answer)).await.map_err(TerminalError::Output)?;
    }
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(TerminalError::Broken)?.into_data() {
            out.write_all(&data).await.map_err(TerminalError::Output)?;
            out.flush().await.map_err(TerminalError::Output)?;
        }
    }
    out.flush().await.map_err(TerminalError::Output)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn request(args: CurlArgs) -> Result<Request<Full<Bytes>>, TerminalError> {
    let default = if args.data.is_some() { Method::POST } else { Method::GET };
    let has_data = args.data.is_some();
    let mut request = Request::new(Full::new(Bytes::from(args.data.unwrap_or_default())));
    *request.method_mut() = args.method.unwrap_or(default);
    *request.uri_mut() = args.url;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("picop/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if has_data {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    let mut own = hyper::HeaderMap::new();
    for (name, value) in args.headers {
        let value =
            HeaderValue::from_str(&value).map_err(|_| TerminalError::Header(name.as_str().to_owned()))?;
        own.append(name, value);
    }
    // Those given by the user take the place of those that everybody gets.
    for name in own.keys() {
        headers.remove(name);
    }
    headers.extend(own);
    Ok(request)
}

fn head(answer: &Response<Incoming>) -> Vec<u8> {
    let version = if answer.version() == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut head = format!("{version} {}\r\n", answer.status()).into_bytes();
    for (name, value) in answer.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

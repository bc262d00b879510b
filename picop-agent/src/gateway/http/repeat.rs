//! Requests that may have to be sent a second time.

use http_body_util::{Either, Empty};
use hyper::{
    Method, Request, Uri, Version,
    header::{HeaderName, HeaderValue},
};

use super::upstream::Asking;

/// A request without a body. Its headers are in a list: to fill a map with them is for the few that are sent again.
#[derive(Debug)]
pub struct Repeat {
    method: Method,
    uri: Uri,
    version: Version,
    lines: Vec<(HeaderName, HeaderValue)>,
}

impl Repeat {
    /// What is needed to send it again.
    pub fn of(request: &Asking) -> Self {
        let lines = request.headers();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            lines: lines.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    /// The request.
    pub fn request(&self) -> Asking {
        let mut request = Request::new(Either::Right(Empty::new()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        for (name, value) in &self.lines {
            request.headers_mut().append(name, value.clone());
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_same(lines in prop::collection::vec(("[a-z-]{1,20}", "[ -~\u{e4}]{0,300}", any::<bool>()), 0..40)) {
            let mut request = Request::new(Either::Right(Empty::new()));
            *request.method_mut() = Method::OPTIONS;
            *request.uri_mut() = Uri::from_static("/a?b");
            *request.version_mut() = Version::HTTP_2;
            for (name, value, is_sensitive) in &lines {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                let mut value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
                value.set_sensitive(*is_sensitive);
                request.headers_mut().append(name, value);
            }
            let again = Repeat::of(&request).request();
            prop_assert_eq!(again.headers(), request.headers());
            let sensitive = |request: &Asking| request.headers().values().map(HeaderValue::is_sensitive).collect::<Vec<_>>();
            prop_assert_eq!(sensitive(&again), sensitive(&request));
            prop_assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
            prop_assert_eq!(again.version(), request.version());
        }
    }
}

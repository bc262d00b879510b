//! Requests that may have to be sent a second time.

use http_body_util::{Either, Empty};
use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    header::{HeaderName, HeaderValue},
};

use super::upstream::Asking;

/// A request without a body, in few bytes: few are sent again, and a copy of a map with all its values costs more than to write them
/// down.
#[derive(Debug)]
pub struct Repeat {
    method: Method,
    uri: Uri,
    version: Version,
    /// For each line of the headers, its name and its value, each behind its length, and whether that is secret (RFC 7541, 7.1.3).
    lines: Vec<u8>,
}

/// Of a length.
const WIDTH: usize = size_of::<u32>();

impl Repeat {
    /// What is needed to send it again.
    pub fn of(request: &Asking) -> Self {
        let mut lines = Vec::with_capacity(512);
        for (name, value) in request.headers() {
            for text in [name.as_str().as_bytes(), value.as_bytes()] {
                // Longer ones than this can tell are longer than any head that is read.
                lines.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_ne_bytes());
                lines.extend_from_slice(text);
            }
            lines.push(u8::from(value.is_sensitive()));
        }
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            lines,
        }
    }

    /// The request.
    pub fn request(&self) -> Asking {
        let mut request = Request::new(Either::Right(Empty::new()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers();
        request
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut rest = &*self.lines;
        let mut line = || {
            let (name, value) = (text(&mut rest)?, text(&mut rest)?);
            let (is_sensitive, after) = rest.split_first()?;
            rest = after;
            Some((name, value, *is_sensitive == 1))
        };
        while let Some((name, value, is_sensitive)) = line() {
            let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            else {
                continue;
            };
            value.set_sensitive(is_sensitive);
            headers.append(name, value);
        }
        headers
    }
}

/// The next text, and the rest after it.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<WIDTH>()?;
    let (text, after) = after.split_at_checked(usize::try_from(u32::from_ne_bytes(*length)).ok()?)?;
    *rest = after;
    Some(text)
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

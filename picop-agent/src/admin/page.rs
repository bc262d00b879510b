//! The page: one file, with nothing from anywhere else.

use hyper::{StatusCode, header};

use super::http::{Answer, whole};

const PAGE: &str = include_str!("page/page.html");

/// What the page may do: run its own script, and ask the agent that it came from.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers `/`.
pub fn answer() -> Answer {
    let mut answer = whole(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = header::HeaderValue::from_static(POLICY);
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere() {
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(foreign);
            assert!(!found, "the page refers to something by {foreign}");
        }
    }
}

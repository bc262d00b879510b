//! Paths of the API.
use hyper::Method;

use super::super::{
    names::{BadValue, ProxyId},
    segment::unsegment,
};

/// A proxy's name in a path is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPath {
    #[error("the proxy's name in the path is not percent-encoded as it should be")]
    Encoding,
    #[error("the proxy's name in the path: {0}")]
    Value(#[from] BadValue),
}

/// A segment of a path, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path<'a>(&'a str);

impl Path<'_> {
    /// The proxy's name that it is.
    pub(super) fn decoded(self) -> Result<ProxyId, BadPath> {
        let text = unsegment(self.0).ok_or(BadPath::Encoding)?;
        Ok(ProxyId::new(text)?)
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Register(Path<'a>),
    Activate(Path<'a>),
    Proxy(Path<'a>),
    Routes,
    Health,
    Ready,
}

impl<'a> Resource<'a> {
    pub(super) fn at(path: &'a str) -> Option<Self> {
        match path {
            "/routes" => return Some(Self::Routes),
            "/healthz" => return Some(Self::Health),
            "/readyz" => return Some(Self::Ready),
            _ => {}
        }
        let rest = path.strip_prefix("/proxy/")?;
        let (id, what) = rest.split_once('/').map_or((rest, None), |(id, what)| (id, Some(what)));
        match what {
            None => Some(Self::Proxy(Path(id))),
            Some("register") => Some(Self::Register(Path(id))),
            Some("activate") => Some(Self::Activate(Path(id))),
            Some(_) => None,
        }
    }

    /// As the header `Allow` has them.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Register(_) | Self::Activate(_) => "PUT",
            Self::Proxy(_) => "DELETE",
            Self::Routes => "PUT, DELETE",
            Self::Health | Self::Ready => "GET, HEAD",
        }
    }

    pub(super) fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|known| known == method.as_str())
    }
}

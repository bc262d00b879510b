//! Paths of the API, and what their queries ask.

use serde_json::Value;

use super::kinds::Kind;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub kind: Kind,
    /// Empty for all, and for kinds of the cluster.
    pub namespace: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

/// Reads `/api/v1/...` and `/apis/GROUP/VERSION/...`.
pub(super) fn parse(path: &str) -> Option<Named> {
    let mut parts = path.trim_matches('/').split('/').peekable();
    let api_version = match parts.next()? {
        "api" => parts.next()?.to_owned(),
        "apis" => format!("{}/{}", parts.next()?, parts.next()?),
        _ => return None,
    };
    let mut parts: Vec<_> = parts.collect();
    // `namespaces/NAME` alone is an object; with a kind behind it, a place.
    let placed = parts.len() > 2 && parts[0] == "namespaces" && Kind::at(&api_version, parts[2]).is_some();
    let namespace =
        if placed { parts.drain(..2).nth(1).unwrap_or_default().to_owned() } else { String::new() };
    let mut parts = parts.into_iter().map(str::to_owned);
    let kind = Kind::at(&api_version, &parts.next()?)?;
    Some(Named { kind, namespace, name: parts.next(), subresource: parts.next() })
}

/// A query's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn new(text: &str) -> Self {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        };
        Self(text.split('&').filter(|it| !it.is_empty()).map(pair).collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| &**value)
    }

    pub(super) fn is(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or_default(), rest.next().unwrap_or_default()];
                let code = std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(code.unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Which objects are meant: by namespace, fields and labels. Selectors know `=` only.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    namespace: String,
    fields: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

impl Selector {
    pub(super) fn new(namespace: &str, query: &Query) -> Self {
        let pairs = |key| {
            let text = query.get(key).unwrap_or_default();
            let pairs = text.split(',').filter_map(|term| term.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.trim_start_matches('=').to_owned())).collect()
        };
        Self {
            namespace: namespace.to_owned(),
            fields: pairs("fieldSelector"),
            labels: pairs("labelSelector"),
        }
    }

    pub(super) fn selects(&self, object: &Value) -> bool {
        let field = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/")));
        (self.namespace.is_empty() || object["metadata"]["namespace"] == *self.namespace)
            && self.fields.iter().all(|(path, value)| field(path).is_some_and(|it| it == value))
            && self.labels.iter().all(|(key, value)| object["metadata"]["labels"][key] == **value)
    }
}

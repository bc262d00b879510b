//! Following one kind of object: list, then watch, for ever.
//!
//! Written to the API's contract (<https://kubernetes.io/docs/reference/using-api/api-concepts/>): a list is taken in pages
//! and counts when it is whole; a watch goes on from its version; a version that the server has forgotten (410 Gone, as an
//! answer or within the stream) means a new list; bookmarks move the version on. Whatever fails is tried again, with longer
//! and longer pauses, and what was seen last stays meanwhile.
use std::{
    fmt::Debug,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use kube::{
    Api, Resource,
    api::{ListParams, VersionMatch, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Update,
    objects::{Change, Name, name_of},
};
use crate::telemetry::chain;

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// How long the server may take to begin an answer, or to give a page.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a watch lasts, in seconds, until the server ends it in order and the next one goes on from there.
const WATCH_SECONDS: u32 = 120;

/// How long a watch may be silent, its end included. A connection that was cut without a word is noticed by this.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);

/// A watch that ends sooner, and brought nothing, is one that failed.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// How often it is looked whether a kind that the server does not know has come.
const ABSENT: Duration = Duration::from_secs(30);

/// How it is going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// What is known is what is.
    Live,
    /// The server does not know the kind: its definition is not installed.
    Absent,
    /// What is known is what was.
    Failing(String),
}

/// What is kept of an object; none of one that is of no interest.
pub(super) type Keep<K, T> = dyn Fn(&K) -> Option<T> + Send + Sync;

/// One kind of object to follow.
pub(super) struct Follow<K, T> {
    /// The objects: all of the cluster.
    pub api: Api<K>,
    /// Those of them that are wanted.
    pub fields: Option<String>,
    /// The kind's name.
    pub kind: &'static str,
    /// Whether the server need not know the kind.
    pub optional: bool,
    /// What is kept of an object.
    pub keep: Box<Keep<K, T>>,
    /// The kind's update.
    pub update: fn(Change<T>) -> Update,
}

/// Why following has to begin anew.
#[derive(Debug)]
enum Broken {
    /// The version is forgotten: a list must tell.
    Gone,
    /// The kind is not known.
    Absent,
    /// Anything else.
    Failed(String),
    /// Nobody listens any more.
    Closed,
}

impl Broken {
    fn code(code: u16) -> Option<Self> {
        match code {
            404 => Some(Self::Absent),
            410 => Some(Self::Gone),
            _ => None,
        }
    }
}

impl From<kube::Error> for Broken {
    fn from(error: kube::Error) -> Self {
        let known = if let kube::Error::Api(status) = &error { Self::code(status.code) } else { None };
        known.unwrap_or_else(|| Self::Failed(chain(&error)))
    }
}

impl<T> From<mpsc::error::SendError<T>> for Broken {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::Closed
    }
}

async fn answer<T>(what: &str, asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Broken> {
    match timeout(ANSWER, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Broken::Failed(format!("no answer to {what} within {ANSWER:?}"))),
    }
}

impl<K, T> Follow<K, T>
where
    K: Resource + Clone + Debug + DeserializeOwned + 'static,
{
    /// Follows until nobody listens.
    pub(super) async fn run(self, out: mpsc::Sender<Update>) {
        let mut backoff = Backoff::default();
        let (mut version, mut listed) = (None, false);
        loop {
            let broken = match self.go_on(&mut version, &mut listed, &mut backoff, &out).await {
                Ok(()) => continue,
                Err(broken) => broken,
            };
            let (state, pause) = match broken {
                Broken::Closed => return,
                Broken::Gone => {
                    version = None;
                    continue;
                }
                Broken::Absent if self.optional => {
                    version = None;
                    if out.send((self.update)(Change::All(vec![]))).await.is_err() {
                        return;
                    }
                    (State::Absent, ABSENT)
                }
                Broken::Absent => {
                    (State::Failing("the server does not know the kind (404)".into()), backoff.next())
                }
                Broken::Failed(why) => (State::Failing(why), backoff.next()),
            };
            if out.send(Update::State(self.kind, state)).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = out.closed() => return,
            }
        }
    }

    /// One list, if there is no version to go on from, and one watch, to its end in order.
    async fn go_on(
        &self,
        version: &mut Option<String>,
        listed: &mut bool,
        backoff: &mut Backoff,
        out: &mpsc::Sender<Update>,
    ) -> Result<(), Broken> {
        let from = if let Some(from) = version {
            from
        } else {
            let (all, from) = self.list(*listed).await?;
            out.send((self.update)(Change::All(all))).await?;
            *listed = true;
            version.insert(from)
        };
        let params = WatchParams {
            field_selector: self.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let stream = answer("a watch", self.api.watch(&params, from)).await?;
        let mut stream = std::pin::pin!(stream);
        out.send(Update::State(self.kind, State::Live)).await?;
        let begun = Instant::now();
        let mut brought = false;
        loop {
            let event = match timeout(SILENCE, stream.try_next()).await {
                Err(_) => return Err(Broken::Failed(format!("the watch was silent for {SILENCE:?}"))),
                Ok(event) => event?,
            };
            let Some(event) = event else {
                if brought || begun.elapsed() >= TOO_SHORT {
                    return Ok(());
                }
                return Err(Broken::Failed("the watch ended as soon as it began".into()));
            };
            let change = match event {
                WatchEvent::Bookmark(bookmark) => {
                    *from = bookmark.metadata.resource_version;
                    None
                }
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    next_version(from, &object)?;
                    let name = name_of(&object);
                    Some(
                        (self.keep)(&object)
                            .map_or_else(|| Change::Gone(name.clone()), |it| Change::Put(name.clone(), it)),
                    )
                }
                WatchEvent::Deleted(object) => {
                    next_version(from, &object)?;
                    Some(Change::Gone(name_of(&object)))
                }
                WatchEvent::Error(status) => {
                    let other = || Broken::Failed(format!("the watch failed: {}", status.message));
                    return Err(Broken::code(status.code).unwrap_or_else(other));
                }
            };
            brought = true;
            backoff.reset();
            if let Some(change) = change {
                out.send((self.update)(change)).await?;
            }
        }
    }

    /// All objects, and the version of the list.
    async fn list(&self, again: bool) -> Result<(Vec<(Name, T)>, String), Broken> {
        // The first list may come from the server's cache, however old: it costs etcd nothing when a thousand nodes ask. Later
        // ones must not go back behind what was seen.
        let cached = (!again).then(|| "0".to_owned());
        let mut params = ListParams {
            field_selector: self.fields.clone(),
            version_match: cached.as_ref().map(|_| VersionMatch::NotOlderThan),
            resource_version: cached,
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut all = Vec::new();
        loop {
            let page = answer("a list", self.api.list(&params)).await?;
            all.extend(page.items.iter().filter_map(|object| Some((name_of(object), (self.keep)(object)?))));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                None => {
                    let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                    let version = version.ok_or_else(|| Broken::Failed("a list without a version".into()))?;
                    return Ok((all, version));
                }
                Some(token) => {
                    // A token holds the version; giving one beside it is an error.
                    (params.resource_version, params.version_match) = (None, None);
                    params.continue_token = Some(token);
                }
            }
        }
    }
}

fn next_version(version: &mut String, object: &impl Resource) -> Result<(), Broken> {
    let next = object.meta().resource_version.clone().filter(|version| !version.is_empty());
    *version = next.ok_or_else(|| Broken::Failed("an event without a version".into()))?;
    Ok(())
}

/// Any time up to `most`. A hasher's keys are random, and this is no secret.
pub(super) fn chance(most: Duration) -> Duration {
    most / 1000 * u32::try_from(RandomState::new().hash_one(0) % 1001).unwrap_or_default()
}

/// Longer and longer pauses, each with chance in it: a thousand agents lose their server at the same time.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LAST: Duration = Duration::from_secs(10);

    /// Between half of the pause and all of it.
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LAST);
        pause / 2 + chance(pause / 2)
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
